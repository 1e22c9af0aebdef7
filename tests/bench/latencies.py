"""How late things were: collected in a child, reported in its run."""

from __future__ import annotations

import time

from tests.stats import percentile


class Latencies:
    """Milliseconds since the moments that it is given; those of the first *warm_up* seconds do not count."""

    def __init__(self, warm_up: float = 0.0) -> None:
        self._counts_from = 0.0
        self._warm_up = warm_up
        self._found: list[float] = []

    def add(self, since: float) -> None:
        """Something has happened that was to happen at *since* (Unix seconds)."""
        now = time.time()
        if not self._counts_from:
            self._counts_from = now + self._warm_up
        if now >= self._counts_from:
            self._found.append((now - since) * 1000)

    def figures(self) -> dict[str, float]:
        """Their number, the percentiles, both ends, and how many were before their time."""
        return {
            "count": len(self._found),
            "early": sum(each < 0 for each in self._found),
            "p50": percentile(self._found, 0.5),
            "p99": percentile(self._found, 0.99),
            "max": max(self._found, default=0.0),
        }
