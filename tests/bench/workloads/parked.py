"""A full parking table of which nothing is due: memory, a claim's loading, and what fresh events feel of it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence

from tests.bench import table
from tests.bench.contenders import python
from tests.bench.job import Job, Run
from tests.bench.outcome import Outcome, Point
from tests.bench.process import Child
from tests.bench.records import mix
from tests.bench.scene import Scene, fill
from tests.bench.turns import microseconds
from tests.bench.workloads.growth import LINEAR, grown_by
from tests.kafka import unique
from tests.measures import Measure
from tests.stats import median, ratio

HOT = 60_000


def full_table(scene: Scene) -> Outcome:
    """Groups with nothing, a fifth and all of it parked are given the same fresh events of other users, in turns."""
    count = 1_000_000 if scene.full else 50_000
    topic = unique("parked")
    groups = {parked: unique(f"parked-{parked}") for parked in (0, count // 5, count)}
    asyncio.run(_prepare(scene, topic, groups, count))
    runs: dict[int, list[Run]] = {parked: [] for parked in groups}
    for _ in range(scene.rounds):
        for parked, group in groups.items():
            asyncio.run(table.start_at(scene.broker, topic, group, count))
            run = _measured(scene, topic, group)
            runs[parked].append(run)
            print(f"  {parked:>9,} parked: {run.handled / run.seconds:,.0f}/s, {run.figures}", flush=True)
    return _judged(runs, count)


def _judged(runs: Mapping[int, Sequence[Run]], count: int) -> Outcome:
    work, full = f"{count:,} parked", runs[count]
    growth = grown_by("parked deliveries", "fresh record", [_point(*each) for each in runs.items()])
    return Outcome(
        [
            *growth.measures,
            Measure(
                f"parked deliveries, {count // 5:,} → {count:,}",
                f"time to load one, of that at {count // 5:,}",
                ratio(_loading(runs, count), _loading(runs, count // 5)),
                LINEAR,
            ),
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
        growth=growth.growth,
    )


def _point(parked: int, runs: Sequence[Run]) -> Point:
    return Point(
        f"{parked:,}", _rate(runs), median([microseconds(run) for run in runs]), max(run.memory for run in runs)
    )


def _loading(runs: Mapping[int, Sequence[Run]], parked: int) -> float:
    """Seconds for one parked delivery, beside what a start takes anyway."""
    return (_middle(runs[parked], "ready") - _middle(runs[0], "ready")) / parked


def _middle(runs: Sequence[Run], name: str) -> float:
    return median([run.figures[name] for run in runs])


def _rate(runs: Sequence[Run]) -> float:
    return median([run.handled / run.seconds for run in runs])


async def _prepare(scene: Scene, topic: str, groups: Mapping[int, str], count: int) -> None:
    await table.source(scene.broker, topic, count)
    await fill(scene.broker.servers, topic, mix(HOT, at=time.time()))
    later = time.time() + 86_400
    for parked, group in groups.items():
        if parked:
            await table.park(scene.broker, topic, group, parked, lambda number: later + number / 1000)


def _measured(scene: Scene, topic: str, group: str) -> Run:
    job = Job(scene.broker.servers, topic, group, folder="", handled=HOT, limit=120, profile=scene.profile)
    with Child(python("parked")(), job) as child:
        run = child.result()
        if job.profile:
            print(child.stderr)
        return run
