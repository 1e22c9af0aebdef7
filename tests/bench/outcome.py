"""What a workload has found, and whether that is what it was to be."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from tests.bench.contenders import Contender
from tests.measures import Measure


@dataclass(frozen=True, slots=True)
class Rates:
    """Records a second, by contender: the medians of the rounds; the peaks of their memory, in MB; CPU a record, in µs."""

    work: str
    rates: Mapping[Contender, float]
    memory: Mapping[Contender, float]
    cpu: Mapping[Contender, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Outcome:
    """All that a workload reports. *notes* are figures without a goal, in words."""

    measures: Sequence[Measure] = ()
    rates: Rates | None = None
    notes: Sequence[str] = field(default_factory=list)
