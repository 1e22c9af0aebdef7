"""Figures beside their goals, and the table of them: for the pages that a command writes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

_REACHED = {True: "yes", False: "**no**", None: "not measured"}


@dataclass(frozen=True, slots=True)
class Measure:
    """One figure beside its goal. *unit* follows the number; nan: it could not be measured here."""

    work: str
    what: str
    value: float
    goal: float
    unit: str = ""
    at_least: bool = False

    @property
    def reached(self) -> bool | None:
        if math.isnan(self.value):
            return None
        return self.value >= self.goal if self.at_least else self.value <= self.goal


def goals(measures: Sequence[Measure]) -> str:
    """A table: each figure beside its goal."""
    rows = [["work", "what", "measured", "goal", "reached"]]
    for each in measures:
        sign = "≥" if each.at_least else "≤"
        goal = f"{sign} {number(each.goal)}{each.unit}" if each.goal else "0"
        rows.append([each.work, each.what, f"{number(each.value)}{each.unit}", goal, _REACHED[each.reached]])
    return rows_of(rows)


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
