"""An event loop whose clock does not wait: when nothing can run, its time jumps to the next timer. No threads, no I/O.

A test marked `jumping` runs on it (tests/conftest.py): what takes an hour there takes no time, and no load makes it late.
"""

from __future__ import annotations

import asyncio
import selectors
import time
from typing import Any

_START = 1_000.0


class Deadlock(Exception):
    """Nothing can happen any more, and the work has not ended."""


class JumpingLoop(asyncio.SelectorEventLoop):
    """Time stands still while anything runs, and jumps to the next timer when nothing does."""

    def __init__(self) -> None:
        self._virtual = _START
        self._epoch = time.time() - _START
        super().__init__(_Jump(self))

    def time(self) -> float:
        return self._virtual

    def wall(self) -> float:
        """Return the time of day in Unix seconds: that of the machine when the loop began, and it goes as `time` goes."""
        return self._epoch + self._virtual

    def jump(self, seconds: float | None) -> None:
        if seconds is None:
            raise Deadlock
        self._virtual += seconds


class _Jump(selectors.SelectSelector):
    """A selector that never waits: it moves the loop's clock instead."""

    def __init__(self, loop: JumpingLoop) -> None:
        super().__init__()
        self._loop = loop

    def select(self, timeout: float | None = None) -> list[Any]:
        if timeout is None or timeout > 0:
            self._loop.jump(timeout)
        return []


def now() -> float:
    """Return Unix seconds, by the loop that runs: those of the machine, unless its clock jumps."""
    loop = asyncio._get_running_loop()
    return loop.wall() if isinstance(loop, JumpingLoop) else time.time()
