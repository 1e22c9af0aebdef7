"""A clock that stands still until a test moves it."""

from __future__ import annotations

import time
from datetime import datetime

from usher.outcome import Duration, seconds


class Clock:
    """A clock to call: it returns Unix seconds, as `time.time` does. It starts at *now*, by default the present."""

    def __init__(self, now: float | datetime | None = None) -> None:
        self._now = time.time() if now is None else _stamp(now)

    def __call__(self) -> float:
        return self._now

    def set(self, now: float | datetime) -> None:
        """Set the time to *now*: Unix seconds, or a datetime with its zone."""
        self._now = _stamp(now)

    def advance(self, duration: Duration) -> None:
        """Move the time forward: by seconds, a timedelta, or a text such as ``10m``."""
        self._now += seconds(duration)


def _stamp(now: float | datetime) -> float:
    return now.timestamp() if isinstance(now, datetime) else float(now)
