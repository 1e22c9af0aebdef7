"""The limit of all Python consumers: aiokafka's `getmany` in a loop, and nothing is done with what it brings."""

from __future__ import annotations

from tests.bench.consumer import consumer_of
from tests.bench.job import Job, Run, Stopwatch, child


async def run(job: Job) -> Run:
    watch = Stopwatch(job)
    async with consumer_of(job) as consumer:
        while not watch.over.is_set():
            batches = await consumer.getmany(timeout_ms=200)
            if batches:
                watch.saw(sum(map(len, batches.values())))
    return watch.run()


if __name__ == "__main__":
    child(run)
