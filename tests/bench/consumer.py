"""The consumer of the bare contenders; hides its settings, which are those that were measured to be the fastest."""

from __future__ import annotations

from aiokafka import AIOKafkaConsumer
from tests.bench.job import Job


def consumer_of(job: Job) -> AIOKafkaConsumer:
    """A consumer of the job's topic, from its beginning, which commits nothing."""
    return AIOKafkaConsumer(
        job.topic,
        bootstrap_servers=job.servers,
        group_id=job.group,
        auto_offset_reset="earliest",
        enable_auto_commit=False,
        fetch_max_wait_ms=100,
    )
