"""Says on stderr how far a command has come, where that takes longer than a second."""

from __future__ import annotations

import time

from usher.operate.progress import ReadingProgress
from usher.terminal import say

_FIRST, _TIMES = 1.0, 2.0


class _Spoken:
    """Says it after a second, then after two, four and so on: a long wait is few lines."""

    def __init__(self) -> None:
        self._began, self._next = time.monotonic(), _FIRST

    def read(self, what: str, count: int) -> None:
        if time.monotonic() - self._began >= self._next:
            self._next *= _TIMES
            say(f"usher: reading {what}: {count:,} so far")


def spoken() -> ReadingProgress:
    """Return a progress that is spoken on stderr."""
    return ReadingProgress(read=_Spoken().read, note=lambda text: say(f"usher: {text}"))
