"""The bounds on what callers hold before they have proved who they are: connections, and bytes of bodies.

Where a bound is reached, what has waited longest has to go: a sender in good faith is through within milliseconds, and a
health check too, so it hits those who hold on.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Literal

from usher.metrics import Metrics

if TYPE_CHECKING:
    from structlog.typing import FilteringBoundLogger

_LINE_EVERY = 60.0

Bound = Literal["connections", "requests", "head", "body", "unproven-bytes"]


class Crowded(Exception):
    """There is no room for this call now; the sender should try again."""


class Bounds:
    """Counts how often each bound was reached, and writes at most one line a minute about each."""

    def __init__(
        self, metrics: Metrics, logger: FilteringBoundLogger, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._metrics, self._logger, self._clock = metrics, logger, clock
        self._unsaid: dict[Bound, int] = {}
        self._said_at: dict[Bound, float] = {}

    def reached(self, bound: Bound) -> None:
        self._metrics.http_bounds_reached.labels(bound).inc()
        self._unsaid[bound] = self._unsaid.get(bound, 0) + 1
        now = self._clock()
        if now - self._said_at.get(bound, float("-inf")) >= _LINE_EVERY:
            self._logger.warning("a bound of the HTTP server is reached", bound=bound, count=self._unsaid.pop(bound))
            self._said_at[bound] = now
