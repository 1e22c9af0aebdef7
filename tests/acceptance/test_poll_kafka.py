"""Pollers on a real Kafka: of two workers one polls, and when it is killed the other goes on, with nothing lost or doubled."""

from __future__ import annotations

import asyncio
import signal
import time
from collections import Counter
from pathlib import Path

import pytest
from aiokafka import AIOKafkaConsumer
from tests.engine import until
from tests.fakes.authgear import FakeAuthgear
from tests.kafka import Broker, unique
from tests.service import environment, running

from usher.systems.decode import decode
from usher.testing import raw_event
from usher.testing.providers import FakeProviders

USERS = 40


@pytest.mark.timeout(180)
async def test_one_of_two_workers_polls_and_a_kill_hands_it_on(kafka: Broker, tmp_path: Path) -> None:
    """Every event of the audit log is in the topic once, and every user is written to, though the poller was killed among them."""
    topic = unique("events")
    await kafka.create_topic(topic, 3)
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    async with FakeAuthgear(app_id="harbour") as authgear, FakeProviders() as provider:
        env = environment(
            event_log=f"kafka://{kafka.servers}",
            topics=topic,
            group=unique("usher"),
            kafka__session_timeout_ms=6000,
            authgear__endpoint=authgear.url,
            authgear__app_id=authgear.app_id,
            authgear__key_id=authgear.key_id,
            authgear__private_key=authgear.private_key.replace("\n", "\\n"),
            authgear__poll="true",
            authgear__poll_every="100ms",
            email="sendgrid",
            mail_from="Accounts <accounts@example.org>",
            sendgrid__api_key=provider.sendgrid_api_key,
            sendgrid__base_url=provider.url,
        )

        async with running(tmp_path / "one", env) as first:
            await first.line("polling")
            await authgear.wait_answered(2)
            async with running(tmp_path / "two", env) as second:
                for number in range(USERS):
                    authgear.happens(
                        raw_event(
                            id=f"{number:016x}",
                            user_id=f"user-{number}",
                            email=f"person{number}@example.org",
                            tenant="harbour",
                            timestamp=int(time.time()),
                        )
                    )
                    await asyncio.sleep(0.02)
                    if number == USERS // 2:
                        assert [line for line in second.lines if line["event"] == "polling"] == []
                        await first.end(signal.SIGKILL)
                await second.line("polling", within=60)
                await until(lambda: len({request.to for request in provider.accepted}) == USERS)
                await authgear.wait_answered(len(authgear.answered) + 5)

    ids = await _ids(kafka, topic)
    assert ids == Counter(f"{number:016x}" for number in range(USERS))


async def _ids(kafka: Broker, topic: str) -> Counter[str]:
    """How often each event is in the topic."""
    consumer = AIOKafkaConsumer(
        topic, bootstrap_servers=kafka.servers, auto_offset_reset="earliest", enable_auto_commit=False
    )
    await consumer.start()
    try:
        found: Counter[str] = Counter()
        while batches := await consumer.getmany(timeout_ms=2000):
            found.update(decode(record.value or b"").id for records in batches.values() for record in records)
        return found
    finally:
        await consumer.stop()
