"""Bare lanes under a steady load: from the moment an event was to be produced to the end of its handler."""

from __future__ import annotations

import asyncio

from tests.bench.children.lanes import Lanes, read
from tests.bench.consumer import consumer_of
from tests.bench.job import Job, Run, Stopwatch, child, say_ready
from tests.bench.latencies import Latencies


async def run(job: Job) -> Run:
    watch, latencies = Stopwatch(job), Latencies(job.options["warm_up"])
    lanes = Lanes(job, watch, lambda event: latencies.add(event["context"]["timestamp"]))
    async with consumer_of(job) as consumer:
        reading = asyncio.create_task(read(consumer, lanes, watch))
        say_ready()
        await watch.over.wait()
        reading.cancel()
    return watch.run(**latencies.figures())


if __name__ == "__main__":
    child(run)
