"""A bell: wakes all tasks that wait for it. Each waits for a ring, and no longer than it wants."""

from __future__ import annotations

import asyncio
import contextlib


class Ring:
    """One ring of a bell."""

    def __init__(self) -> None:
        self._rung = asyncio.Event()

    async def wait(self, seconds: float) -> None:
        """Return once it has come, or *seconds* have passed."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._rung.wait()

    def come(self) -> None:
        self._rung.set()


class Bell:
    """Take `next` before you look: then you miss no ring that comes in between."""

    def __init__(self) -> None:
        self._next = Ring()

    def next(self) -> Ring:
        return self._next

    def ring(self) -> None:
        rung, self._next = self._next, Ring()
        rung.come()
