"""A duty that is held: hides that its end may come while a note is being written, and from several sides."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping

from usher.engine.port import DutyLost

WriteNote = Callable[[str, bytes], Awaitable[object]]


class HeldDuty:
    """A `Duty` from its beginning, with the *notes* there were, until `end`. *write* makes a note durable."""

    def __init__(self, notes: Mapping[str, bytes], write: WriteNote) -> None:
        self._notes = dict(notes)
        self._write = write
        self._ended = asyncio.Event()
        self._keeping = asyncio.Lock()

    def note(self, name: str) -> bytes | None:
        return self._notes.get(name)

    async def keep(self, name: str, note: bytes) -> None:
        """As `Duty.keep`."""
        async with self._keeping:  # one at a time, or the last one might not be the one that counts
            self._check(name)
            await self._write(name, note)
            self._check(name)
            self._notes[name] = note

    async def lost(self) -> None:
        await self._ended.wait()

    def end(self) -> None:
        """It is ours no more. May be called again."""
        self._ended.set()

    def _check(self, name: str) -> None:
        if self._ended.is_set():
            raise DutyLost(f"the duty was lost before the note {name!r} was surely kept: another worker may have it")
