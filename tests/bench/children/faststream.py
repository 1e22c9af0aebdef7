"""FastStream: a subscriber that takes a dict, as its tutorial shows it."""

from __future__ import annotations

import asyncio
from typing import Any

from faststream.kafka import KafkaBroker
from tests.bench.job import Job, Run, Stopwatch, child
from tests.bench.records import OURS


async def run(job: Job) -> Run:
    watch = Stopwatch(job)
    broker = KafkaBroker(job.servers, logger=None)

    async def handle(event: dict[str, Any]) -> None:
        watch.saw(1)
        if event["context"]["triggered_by"] == OURS:
            await asyncio.sleep(job.work)
            watch.did()

    broker.subscriber(job.topic, group_id=job.group, auto_offset_reset="earliest")(handle)
    async with broker:
        await broker.start()
        await watch.over.wait()
    return watch.run()


if __name__ == "__main__":
    child(run)
