"""Everybody reads the same records, in turns: how many a second, with handlers that take longer and longer."""

from __future__ import annotations

import math
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import replace

from tests.bench.contenders import BARE, FASTSTREAM, LANES, PARALLEL, THREADS, USHER, Contender
from tests.bench.job import Job, Run
from tests.bench.outcome import Outcome, Rates
from tests.bench.records import mix
from tests.bench.scene import Scene
from tests.kafka import unique
from tests.measures import Measure
from tests.stats import median, ratio

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
    rates = _measured("filter path", scene, job, lambda run: run.read)
    goals = {BARE: 0.7, LANES: 0.9, FASTSTREAM: 8.0, PARALLEL: 3.0}
    return Outcome([_against(each, rates, goal, "filter path, 95 % not ours") for each, goal in goals.items()], rates)


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
    rates = _measured(f"{work} ms", scene, job, lambda run: run.handled)
    title = f"handler of {work} ms"
    if work <= 1:
        usher = rates.rates.get(USHER, math.nan)
        own = Measure(title, "events", usher, 30_000, "/s", at_least=True)
        return Outcome([_against(LANES, rates, 0.6, title), own], rates)
    return Outcome([_against(LANES, rates, 0.9, title), _against(PARALLEL, rates, 1.0, title)], rates)


def _against(peer: Contender, rates: Rates, goal: float, work: str) -> Measure:
    value = ratio(rates.rates.get(USHER, math.nan), rates.rates.get(peer, math.nan))
    return Measure(work, f"of {peer.title}", value, goal, at_least=True)


def _measured(work: str, scene: Scene, job: Job, count: Callable[[Run], int]) -> Rates:
    rates: dict[Contender, list[float]] = defaultdict(list)
    memory: dict[Contender, list[float]] = defaultdict(list)
    for number in range(scene.rounds):
        for contender in _in_turn(scene.contenders, number):
            if contender is BARE and not job.read:
                continue
            if contender is FASTSTREAM and number:
                continue  # it is slow, and there is no doubt about it
            run = contender.run(_job_of(contender, job))
            rates[contender].append(count(run) / run.seconds)
            memory[contender].append(run.memory)
            print(
                f"  {work:>8}  {contender.title:<18}{count(run) / run.seconds:>10,.0f}/s {run.memory:>7,.0f} MB",
                flush=True,
            )
    return Rates(
        work,
        {contender: median(values) for contender, values in rates.items()},
        {contender: max(values) for contender, values in memory.items()},
    )


def _in_turn(contenders: Sequence[Contender], number: int) -> Sequence[Contender]:
    """Another one begins each round."""
    start = number % max(1, len(contenders))
    return [*contenders[start:], *contenders[:start]]


def _job_of(contender: Contender, job: Job) -> Job:
    job = replace(job, group=unique(contender.name))
    if contender is BARE:
        return replace(job, handled=0)
    if contender is PARALLEL:
        return replace(job, options={"threads": THREADS})
    return replace(job, limit=_PATIENCE) if contender is FASTSTREAM else job
