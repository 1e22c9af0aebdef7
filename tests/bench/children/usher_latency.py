"""Usher under a steady load, of which a part fails: from the moment an event was to be produced to the end of its handler."""

from __future__ import annotations

import asyncio

from tests.bench.job import Job, Run, Stopwatch, child, say_ready
from tests.bench.latencies import Latencies
from tests.bench.service import on_kafka, ready, serve

from usher import Context, Event, Retry, on


async def run(job: Job) -> Run:
    watch, latencies = Stopwatch(job), Latencies(job.options["warm_up"])
    every = int(job.options["failing"])
    failed = 0

    @on("user.created")
    async def bench(event: Event, ctx: Context) -> None:
        nonlocal failed
        await asyncio.sleep(job.work)
        if every and int(event.id, 16) % every == 0:
            failed += 1
            raise Retry("told to fail")
        latencies.add(event.context.timestamp or 0.0)
        watch.did()

    app, _ = on_kafka(job, watch, bench, retry_delays="10m")

    async def measure() -> None:
        await ready(app)
        say_ready()
        await watch.over.wait()

    await serve(app, measure())
    return watch.run(failed=failed, **latencies.figures())


if __name__ == "__main__":
    child(run)
