"""Everybody does the same job, in turns: rates, memory and CPU of each. Hides who begins, and what is made of the rounds."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import replace

from tests.bench.contenders import FASTSTREAM, USHER, Command, Contender
from tests.bench.job import Job, Run
from tests.bench.outcome import Rates
from tests.bench.scene import Scene
from tests.kafka import unique
from tests.measures import Measure
from tests.stats import median, ratio

_NOISE = 1.05


def measured(
    work: str,
    scene: Scene,
    command_of: Callable[[Contender], Command | None],
    job_of: Callable[[Contender], Job | None],
    count: Callable[[Run], int] = lambda run: run.handled,
    unit: str = "record",
) -> Rates:
    """The rates at *work*. Who has no command or no job does not take part; *count* is what a run has done, in *unit*."""
    runs: dict[str, list[Run]] = defaultdict(list)
    for number in range(scene.rounds):
        for contender in _in_turn(scene.contenders, number):
            command, job = command_of(contender), job_of(contender)
            if command is None or job is None or (contender is FASTSTREAM and number):
                continue  # FastStream runs once: it is slow, and there is no doubt about it
            run = contender.run(command, replace(job, group=unique(contender.name)))
            runs[contender.name].append(run)
            print(
                f"  {work:>8}  {contender.title:<18}{count(run) / run.seconds:>10,.0f}/s {run.memory:>7,.0f} MB "
                f"{microseconds(run, count):>7,.1f} µs",
                flush=True,
            )
    return Rates(
        work,
        {name: median([count(run) / run.seconds for run in each]) for name, each in runs.items()},
        {name: max(run.memory for run in each) for name, each in runs.items()},
        {name: median([microseconds(run, count) for run in each]) for name, each in runs.items()},
        unit,
    )


def against(
    peer: Contender, rates: Rates, goal: float, work: str, *, aim: float = math.nan, us: Contender = USHER
) -> Measure:
    """Our rate in units of the *peer*'s, beside its *goal*; a goal of nan: it is only shown."""
    value = ratio(rates.rates.get(us.name, math.nan), rates.rates.get(peer.name, math.nan))
    return Measure(work, f"of {peer.title}", value, goal, at_least=True, aim=aim)


def memory(rates: Rates, before: float, work: str) -> Measure:
    """Usher's peak, which is to be no higher than *before* (MB), but for noise."""
    return Measure(work, "peak memory", rates.memory.get(USHER.name, math.nan), round(_NOISE * before), " MB")


def microseconds(run: Run, count: Callable[[Run], int] = lambda run: run.handled) -> float:
    """CPU for each of what *count* counts."""
    return ratio(run.cpu, count(run)) * 1e6


def _in_turn(contenders: Sequence[Contender], number: int) -> Sequence[Contender]:
    """Another one begins each round."""
    start = number % max(1, len(contenders))
    return [*contenders[start:], *contenders[:start]]
