"""Everybody reads the same records, in turns: how many a second, with handlers that take longer and longer."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import replace

from tests.bench.contenders import BARE, FASTSTREAM, LANES, PARALLEL, THREADS, USHER, Contender
from tests.bench.job import Job
from tests.bench.outcome import Outcome
from tests.bench.records import mix
from tests.bench.scene import Scene
from tests.bench.turns import against, measured
from tests.measures import Measure

SHARE = 0.05
WORKS = (0, 1, 10, 50, 100)
"""Milliseconds."""
_COUNTS = {0: 100_000, 1: 100_000, 10: 80_000, 50: 40_000, 100: 25_000}
_PATIENCE = 4.0
"""Seconds after which the slow are stopped, and judged by what they have done."""


def filter_path(scene: Scene) -> Outcome:
    """95 % of the records are not ours."""
    count = 200_000
    topic = scene.topic("filter", mix(count, at=time.time(), share=SHARE))
    ours = round(count * SHARE)
    job = Job(
        scene.broker.servers,
        topic,
        group="",
        folder="",
        read=count,
        handled=ours,
        limit=20,
        profile=scene.profile,
    )
    rates = measured("filter path", scene, lambda contender: contender.handlers, _job_of(job), lambda run: run.read)
    goals = {BARE: 0.7, LANES: 0.9, FASTSTREAM: 8.0, PARALLEL: 3.0}
    return Outcome([against(each, rates, goal, "filter path, 95 % not ours") for each, goal in goals.items()], rates)


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
    title = f"handler of {work} ms"
    if work <= 1:
        usher = rates.rates.get(USHER, math.nan)
        own = Measure(title, "events", usher, 30_000, "/s", at_least=True)
        return Outcome([against(LANES, rates, 0.6, title), own], rates)
    return Outcome([against(LANES, rates, 0.9, title), against(PARALLEL, rates, 1.0, title)], rates)


def _job_of(job: Job) -> Callable[[Contender], Job | None]:
    """The job of each; None: it does not take part, as the bare loop where all is about handlers."""

    def job_of(contender: Contender) -> Job | None:
        if contender is BARE:
            return replace(job, handled=0) if job.read else None
        if contender is PARALLEL:
            return replace(job, options={"threads": THREADS})
        return replace(job, limit=_PATIENCE) if contender is FASTSTREAM else job

    return job_of
