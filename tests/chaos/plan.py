"""The plan of faults: drawn from a seed alone, so that a seed repeats it."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Literal, get_args

WORKERS = 3
SESSION = 6.0
"""Seconds after which Kafka takes a silent worker for dead."""

Kind = Literal[
    "kill", "stop", "freeze", "rolling", "broker-kill", "provider-down", "undecodable", "too-large", "add-partition"
]
_WEIGHTS: dict[Kind, int] = {
    "kill": 6,
    "stop": 4,
    "freeze": 3,
    "rolling": 1,
    "broker-kill": 2,
    "provider-down": 2,
    "undecodable": 1,
    "too-large": 1,
}
"""How often each is drawn after all have been drawn once; a partition is added only once: each needs a drain."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault: *after* seconds of pause since the last one began, it hits *workers* (by number) and *lasts* seconds.

    *at_work*: workers that are starting are waited for, so that there is something in flight to lose.
    """

    kind: Kind
    after: float
    lasts: float = 0.0
    workers: tuple[int, ...] = ()
    at_work: bool = True

    def __str__(self) -> str:
        workers = f" of worker {', '.join(map(str, self.workers))}" if self.workers else ""
        return f"{self.after:.1f} s later {self.kind}{workers}, {self.lasts:.1f} s"


def plan(seed: int, seconds: float) -> list[Fault]:
    """Faults for about *seconds*: first each kind once, in any order, then as chance will have it."""
    rng = random.Random(seed)
    kinds = list(get_args(Kind))
    rng.shuffle(kinds)
    faults: list[Fault] = []
    spent = 0.0
    while spent < seconds:
        kind = kinds.pop() if kinds else rng.choices(list(_WEIGHTS), list(_WEIGHTS.values()))[0]
        fault = _draw(kind, rng)
        faults.append(fault)
        spent += fault.after
    return faults


def _draw(kind: Kind, rng: random.Random) -> Fault:
    after = rng.uniform(1.0, 6.0)
    if kind == "kill":
        return Fault(kind, after, rng.uniform(0.0, 4.0), _some(rng, [6, 2, 1]), rng.random() < 0.8)
    if kind == "stop":
        return Fault(kind, after, rng.uniform(0.0, 4.0), _some(rng, [6, 2, 1]), rng.random() < 0.8)
    if kind == "freeze":
        return Fault(kind, after, SESSION + rng.uniform(1.0, 5.0), _some(rng, [6, 2, 0]))
    if kind == "broker-kill":
        return Fault(kind, after, rng.uniform(0.0, 4.0))
    if kind == "provider-down":
        return Fault(kind, after, rng.uniform(1.0, 4.0))
    return Fault(kind, after)


def _some(rng: random.Random, weights: list[int]) -> tuple[int, ...]:
    count = rng.choices([1, 2, 3], weights)[0]
    return tuple(sorted(rng.sample(range(WORKERS), count)))
