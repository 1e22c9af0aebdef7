"""Figures beside their goals, and the table of them: for the pages that a command writes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

_REACHED = {True: "yes", False: "**no**", None: "not measured"}


@dataclass(frozen=True, slots=True)
class Measure:
    """One figure beside its goal. *unit* follows the number; nan: it could not be measured here.

    A *goal* of nan is none: the figure is shown, not judged. *aim* is what would be better still.
    """

    work: str
    what: str
    value: float
    goal: float
    unit: str = ""
    at_least: bool = False
    aim: float = math.nan

    @property
    def reached(self) -> bool | None:
        if math.isnan(self.value) or math.isnan(self.goal):
            return None
        return self.value >= self.goal if self.at_least else self.value <= self.goal


def goals(measures: Sequence[Measure]) -> str:
    """A table: each figure beside its goal."""
    rows = [["work", "what", "measured", "goal", "reached"]]
    for each in measures:
        verdict = "" if math.isnan(each.goal) else _REACHED[each.reached]
        rows.append([each.work, each.what, f"{number(each.value)}{each.unit}", _goal(each), verdict])
    return rows_of(rows)


def _goal(measure: Measure) -> str:
    if math.isnan(measure.goal):
        return ""
    sign = "≥" if measure.at_least else "≤"
    goal = f"{sign} {number(measure.goal)}{measure.unit}" if measure.goal else "0"
    return goal if math.isnan(measure.aim) else f"{goal} (aim: {number(measure.aim)})"


def rows_of(rows: Sequence[Sequence[str]]) -> str:
    head, *body = rows
    lines = [head, ["---"] * len(head), *body]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def number(value: float) -> str:
    """Three digits that count: 0.713, 41.5, 30,000."""
    if math.isnan(value):
        return "-"
    if value == 0 or abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.{max(0, 2 - math.floor(math.log10(abs(value))))}f}".rstrip("0").rstrip(".")
