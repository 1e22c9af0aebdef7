"""A full parking table of which nothing is due: memory, a claim's loading, and what fresh events feel of it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

from tests.bench import table
from tests.bench.contenders import python
from tests.bench.job import Job, Run
from tests.bench.outcome import Outcome
from tests.bench.process import Child
from tests.bench.records import mix
from tests.bench.scene import Scene, fill
from tests.kafka import unique
from tests.measures import Measure
from tests.stats import median, ratio

HOT = 60_000


def full_table(scene: Scene) -> Outcome:
    """One group has nothing parked and one has all of it; both are given the same fresh events of other users, in turns."""
    count = 1_000_000 if scene.full else 50_000
    topic = unique("parked")
    groups = {0: unique("empty"), count: unique("full")}
    asyncio.run(_prepare(scene, topic, groups[count], count))
    runs: dict[int, list[Run]] = {parked: [] for parked in groups}
    for _ in range(scene.rounds):
        for parked, group in groups.items():
            asyncio.run(table.start_at(scene.broker, topic, group, count))
            run = _measured(scene, topic, group)
            runs[parked].append(run)
            print(f"  {parked:>9,} parked: {run.handled / run.seconds:,.0f}/s, {run.figures}", flush=True)

    work, full = f"{count:,} parked", runs[count]
    return Outcome(
        [
            Measure(work, "memory in all", median([run.memory for run in full]), 200, " MB"),
            Measure(work, "ready after", _middle(full, "ready"), 30, " s"),
            Measure(work, "longest block of the loop, loading", _middle(full, "loading"), 50, " ms"),
            Measure(work, "longest block of the loop, with fresh events", _middle(full, "running"), 50, " ms"),
            Measure(
                work,
                "rate of fresh events, of that with none parked",
                ratio(_rate(full), _rate(runs[0])),
                0.9,
                at_least=True,
            ),
        ],
        notes=[f"{work}: with none parked the longest block was {_middle(runs[0], 'running'):.0f} ms"],
    )


def _middle(runs: Sequence[Run], name: str) -> float:
    return median([run.figures[name] for run in runs])


def _rate(runs: Sequence[Run]) -> float:
    return median([run.handled / run.seconds for run in runs])


async def _prepare(scene: Scene, topic: str, group: str, count: int) -> None:
    await table.source(scene.broker, topic, count)
    await fill(scene.broker.servers, topic, mix(HOT, at=time.time()))
    later = time.time() + 86_400
    await table.park(scene.broker, topic, group, count, lambda number: later + number / 1000)


def _measured(scene: Scene, topic: str, group: str) -> Run:
    job = Job(scene.broker.servers, topic, group, folder="", handled=HOT, limit=120, profile=scene.profile)
    with Child(python("parked")(), job) as child:
        run = child.result()
        if job.profile:
            print(child.stderr)
        return run
