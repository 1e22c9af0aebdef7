"""Usher, with everything on; only the handler is ours."""

from __future__ import annotations

import asyncio

from tests.bench.job import Job, Run, Stopwatch, child
from tests.bench.service import on_kafka, serve

from usher import Context, Event, on


async def run(job: Job) -> Run:
    watch = Stopwatch(job)

    @on("user.created")
    async def bench(event: Event, ctx: Context) -> None:
        await asyncio.sleep(job.work)
        watch.did()

    app, _ = on_kafka(job, watch, bench)
    await serve(app, watch.over.wait())
    return watch.run()


if __name__ == "__main__":
    child(run)
