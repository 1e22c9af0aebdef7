"""Usher with a full parking table whose deliveries become due one after the other: how late each is run, and never early."""

from __future__ import annotations

import time

from tests.bench.job import Job, Run, Stopwatch, child
from tests.bench.latencies import Latencies
from tests.bench.service import on_kafka, ready, serve

from usher import Context, Event, on


async def run(job: Job) -> Run:
    """The events' timestamps are their due times. ``loaded`` is how long before the first of them the worker was ready."""
    watch, latencies = Stopwatch(job), Latencies()
    loaded = 0.0

    @on("user.created")
    async def bench(event: Event, ctx: Context) -> None:
        latencies.add(event.context.timestamp or 0.0)
        watch.did()

    app, _ = on_kafka(job, watch, bench, start_from="latest")

    async def measure() -> None:
        nonlocal loaded
        watch.saw(0)
        await ready(app)
        loaded = job.options["first_due"] - time.time()
        await watch.over.wait()

    await serve(app, measure())
    return watch.run(loaded=loaded, **latencies.figures())


if __name__ == "__main__":
    child(run)
