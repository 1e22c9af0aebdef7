"""Usher, with everything on; only the handler is ours."""

from __future__ import annotations

import asyncio

from tests.bench.job import Job, Run, Stopwatch, child
from tests.bench.records import look_at
from tests.bench.service import on_kafka, serve

from usher import Context, Event, on
from usher.handler import Handler


async def run(job: Job) -> Run:
    """The option ``reads``: a handler reads its event. ``handlers``: so many run for each event; default: one."""
    watch, reads = Stopwatch(job), bool(job.options.get("reads"))

    def handler(name: str) -> Handler:
        async def bench(event: Event, ctx: Context) -> None:
            if reads:
                look_at(event)
            await asyncio.sleep(job.work)
            watch.did()

        bench.__name__ = name
        return on("user.created")(bench)

    names = ["bench", *(f"bench_{number}" for number in range(1, int(job.options.get("handlers", 1))))]
    app, _ = on_kafka(job, watch, *map(handler, names))
    await serve(app, watch.over.wait())
    return watch.run()


if __name__ == "__main__":
    child(run)
