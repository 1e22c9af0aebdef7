"""What a workload has found, and whether that is what it was to be. All of it can be kept as JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from tests.measures import Measure


@dataclass(frozen=True, slots=True)
class Rates:
    """What is done a second, by the contenders' names: the medians of the rounds; peaks of memory, in MB; CPU for each, in µs.

    *unit* is what is counted, a record or a message.
    """

    work: str
    rates: Mapping[str, float]
    memory: Mapping[str, float]
    cpu: Mapping[str, float] = field(default_factory=dict)
    unit: str = "record"


@dataclass(frozen=True, slots=True)
class Point:
    """Usher at one size, which *label* names: *rate* of units a second, *cpu* in µs a unit, peak *memory* in MB."""

    label: str
    rate: float
    cpu: float
    memory: float


@dataclass(frozen=True, slots=True)
class Growth:
    """What Usher costs while *what* grows, from the smallest size to the largest. *unit* is what the cost is of."""

    what: str
    unit: str
    points: Sequence[Point]


@dataclass(frozen=True, slots=True)
class Outcome:
    """All that a workload reports. *notes* are figures without a goal, in words."""

    measures: Sequence[Measure] = ()
    rates: Rates | None = None
    notes: Sequence[str] = field(default_factory=list)
    growth: Growth | None = None
