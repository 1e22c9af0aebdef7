"""Isolation: after bad starts the deliveries in doubt run alone, and the others beside each other.

Hides who has to wait for whom. Attempts *alone* have nothing beside them, and go first.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable


class Isolation:
    """Lets either one attempt run alone, or many beside each other."""

    def __init__(self) -> None:
        self._turn = asyncio.Lock()
        self._alone = 0
        self._beside = 0
        self._changed = asyncio.Event()

    @property
    def waiting(self) -> bool:
        """Whether a further attempt waits to run alone, while one does."""
        return self._alone > 1

    @contextlib.asynccontextmanager
    async def alone(self) -> AsyncIterator[None]:
        """Run with nothing beside it."""
        self._alone += 1
        try:
            async with self._turn:
                await self._until(lambda: not self._beside)
                yield
        finally:
            self._alone -= 1
            self._ring()

    @contextlib.asynccontextmanager
    async def beside(self) -> AsyncIterator[None]:
        """Run beside others, once none runs alone or waits to."""
        await self._until(lambda: not self._alone)
        self._beside += 1
        try:
            yield
        finally:
            self._beside -= 1
            self._ring()

    async def _until(self, condition: Callable[[], bool]) -> None:
        while not condition():
            await self._changed.wait()

    def _ring(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()
