"""The few statistics of the report."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest of *values* that at least *share* (0 to 1) of them do not exceed; nan where there are none."""
    if not values:
        return math.nan
    ranked = sorted(values)
    return ranked[max(0, math.ceil(share * len(ranked)) - 1)]


def median(values: Sequence[float]) -> float:
    """The middle of *values*; nan where there are none."""
    return statistics.median(values) if values else math.nan


def ratio(value: float, to: float) -> float:
    """*value* in units of *to*; nan where that makes no sense."""
    return value / to if to else math.nan
