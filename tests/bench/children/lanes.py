"""The limit of what keeps the order of each key: prefilter, decode, a queue for each key, and no bookkeeping at all.

No commits, no retries, no metrics: what is lost when it stops is lost. With the option ``reads``, what its handlers get is as safe as
what Usher's get, by the same code: they read an event less credentials, whose fields are checked.
"""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import Callable
from typing import Any

from tests.bench.consumer import consumer_of
from tests.bench.job import Job, Run, Stopwatch, child
from tests.bench.records import OURS, look_at

from usher.cli._process import collect_less
from usher.systems.decode import decode

IN_FLIGHT = 10_000


class Lanes:
    """One task for each key that has something to do."""

    def __init__(self, job: Job, watch: Stopwatch, done: Callable[[Any], object] | None = None) -> None:
        self._work = job.work
        self._done = done
        self._watch = watch
        self._queues: dict[bytes, deque[Any]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._room = asyncio.Event()
        self._room.set()
        self._waiting = 0

    async def put(self, key: bytes, event: Any) -> None:
        await self._room.wait()
        self._waiting += 1
        if self._waiting >= IN_FLIGHT:
            self._room.clear()
        queue = self._queues.get(key)
        if queue is not None:
            queue.append(event)
            return
        self._queues[key] = deque([event])
        task = asyncio.create_task(self._drain(key))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _drain(self, key: bytes) -> None:
        queue = self._queues[key]
        while queue:
            event = queue.popleft()
            await asyncio.sleep(self._work)
            if self._done is not None:
                self._done(event)
            self._watch.did()
            self._waiting -= 1
            if self._waiting < IN_FLIGHT:
                self._room.set()
        del self._queues[key]


async def run(job: Job) -> Run:
    watch = Stopwatch(job)
    reads = bool(job.options.get("reads"))
    if reads:
        collect_less()  # as Usher: events that wait are many objects
    lanes = Lanes(job, watch, look_at if reads else None)
    async with consumer_of(job) as consumer:
        reading = asyncio.create_task(read(consumer, lanes, watch, decode if reads else json.loads))
        await watch.over.wait()
        reading.cancel()
    return watch.run()


async def read(consumer: Any, lanes: Lanes, watch: Stopwatch, load: Callable[[bytes], Any] = json.loads) -> None:
    """Read for ever. *load* makes an event of a record's value."""
    ours = f'"{OURS}"'.encode()
    while True:
        batches = await consumer.getmany(timeout_ms=200, max_records=2_000)
        for records in batches.values():
            watch.saw(len(records))
            for record in records:
                if record.value.rfind(ours) >= 0:
                    await lanes.put(record.key, load(record.value))
        await asyncio.sleep(0)  # records at hand are given without a pause: the handlers need theirs


if __name__ == "__main__":
    child(run)
