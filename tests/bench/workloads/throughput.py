"""Everybody reads the same records, in turns: how many a second, with handlers that take longer and longer."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import replace

from tests.bench.contenders import (
    BARE,
    FASTSTREAM,
    LANES,
    PARALLEL,
    THREADS,
    USHER,
    USHER_READING,
    USHER_RECEIPTS,
    VALIDATING_LANES,
    Contender,
)
from tests.bench.job import Job
from tests.bench.outcome import Outcome, Rates
from tests.bench.records import mix
from tests.bench.scene import Scene
from tests.bench.turns import against, measured, memory
from tests.measures import Measure

SHARE = 0.05
WORKS = (0, 1, 10, 50, 100)
"""Milliseconds."""
_COUNTS = {0: 100_000, 1: 100_000, 10: 80_000, 50: 40_000, 100: 25_000}
_GOALS = {0: (0.9, 1.0), 1: (0.85, 0.9), 10: (1.0, 1.2), 50: (0.95, 1.0), 100: (0.95, 1.0)}
_GOALS_READING = {0: (0.6, 0.65), 1: (0.65, 0.7), 10: (0.75, 0.85), 50: (0.9, 0.95), 100: (0.9, 0.95)}
"""What is to be reached of bare lanes, and at best, by the work of a handler that does not read its event, and of one that does."""
_MEMORY_BEFORE = {0: 134, 1: 135, 10: 133, 50: 148, 100: 191}
_MEMORY_BEFORE_FILTERING = 93
"""Peaks in MB of commit bdb2ffd on this page: it is to stay at that."""
_PATIENCE = 4.0
"""Seconds after which the slow are stopped, and judged by what they have done."""


def filter_path(scene: Scene) -> Outcome:
    """95 % of the records are not ours."""
    count = 600_000 if scene.full else 200_000
    topic = scene.topic("filter", mix(count, at=time.time(), share=SHARE))
    ours = round(count * SHARE)
    job = Job(
        scene.broker.servers,
        topic,
        group="",
        folder="",
        read=count,
        handled=ours,
        limit=30,
        profile=scene.profile,
    )
    rates = measured("filter path", scene, lambda contender: contender.handlers, _job_of(job), lambda run: run.read)
    work = "filter path, 95 % not ours"
    return Outcome(
        [
            against(BARE, rates, 1.0, work, aim=1.1),
            against(LANES, rates, 1.15, work, aim=1.2),
            against(PARALLEL, rates, 4.0, work),
            against(FASTSTREAM, rates, 8.0, work),
            memory(rates, _MEMORY_BEFORE_FILTERING, work),
            against(USHER, rates, 0.97, f"{work}, with receipts", us=USHER_RECEIPTS),
        ],
        rates,
    )


def handlers(scene: Scene, work: int) -> Outcome:
    """All records are ours, and each takes *work* milliseconds."""
    scale = 3 if scene.full else 1
    topic = scene.shared_topic("ours", lambda: mix(scale * max(_COUNTS.values()), at=time.time()))
    job = Job(
        scene.broker.servers,
        topic,
        group="",
        folder="",
        handled=scale * _COUNTS[work],
        work=work / 1000,
        limit=scale * 10,
        profile=scene.profile,
    )
    rates = measured(f"{work} ms", scene, lambda contender: contender.handlers, _job_of(job))
    return Outcome(_judged(rates, work), rates)


def _judged(rates: Rates, work: int) -> list[Measure]:
    title = f"handler of {work} ms"
    reading = f"{title} that reads its event"
    (goal, aim), (goal_reading, aim_reading) = _GOALS[work], _GOALS_READING[work]
    measures = [
        against(LANES, rates, goal, title, aim=aim),
        against(LANES, rates, goal_reading, reading, aim=aim_reading, us=USHER_READING),
        against(VALIDATING_LANES, rates, math.nan, reading, us=USHER_READING),
    ]
    if work == 0:
        measures.append(against(USHER, rates, 0.92, f"{title}, with receipts", us=USHER_RECEIPTS))
    if work <= 1:
        measures.append(Measure(title, "events", rates.rates.get(USHER.name, math.nan), 30_000, "/s", at_least=True))
    else:
        measures.append(against(PARALLEL, rates, 1.0, title))
        measures.append(against(PARALLEL, rates, 1.0, reading, us=USHER_READING))
    return [*measures, memory(rates, _MEMORY_BEFORE[work], title)]


def _job_of(job: Job) -> Callable[[Contender], Job | None]:
    """The job of each. None: it does not take part; the bare loop has no handlers, and only handlers read events."""

    def job_of(contender: Contender) -> Job | None:
        if contender is BARE:
            return replace(job, handled=0) if job.read else None
        if contender is USHER_RECEIPTS:
            return None if job.work else replace(job, options={"receipts": 1})
        if contender in (USHER_READING, VALIDATING_LANES):
            return None if job.read else replace(job, options={"reads": 1})
        if contender is PARALLEL:
            return replace(job, options={"threads": THREADS})
        return replace(job, limit=_PATIENCE) if contender is FASTSTREAM else job

    return job_of
