"""Usher with a full parking table of which nothing is due: what it costs to load, and to have."""

from __future__ import annotations

import asyncio
import time

from tests.bench.job import Job, Run, Stopwatch, child, peak_memory
from tests.bench.service import on_kafka, ready, serve

from usher import Context, Event, on

_TICK = 0.002


class Blocks:
    """The longest time for which the loop let nobody else run, in milliseconds."""

    def __init__(self) -> None:
        self.longest = 0.0

    async def watch(self) -> None:
        """For ever."""
        while True:
            began = time.perf_counter()
            await asyncio.sleep(_TICK)
            self.longest = max(self.longest, (time.perf_counter() - began - _TICK) * 1000)


async def run(job: Job) -> Run:
    """``ready``: seconds from the start of the service; ``loading`` and ``running``: milliseconds; ``memory``: when loaded."""
    watch, blocks = Stopwatch(job), Blocks()
    figures: dict[str, float] = {}

    @on("user.created")
    async def bench(event: Event, ctx: Context) -> None:
        watch.did()

    app, log = on_kafka(job, watch, bench)
    log.breaker = False
    began = time.perf_counter()

    async def measure() -> None:
        watching = asyncio.create_task(blocks.watch())
        await ready(app)
        figures.update(ready=time.perf_counter() - began, loading=blocks.longest, memory=peak_memory())
        blocks.longest = 0.0
        log.breaker = True
        await watch.over.wait()
        figures.update(running=blocks.longest)
        watching.cancel()

    await serve(app, measure())
    return watch.run(**figures)


if __name__ == "__main__":
    child(run)
