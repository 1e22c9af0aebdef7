"""A lease that this worker has. Hides that it may end while a checkpoint is being written, and for several reasons."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping

from usher.eventlog.errors import LeaseLost

WriteCheckpoint = Callable[[str, bytes], Awaitable[object]]


class HeldLease:
    """A `Lease` from its beginning, with the *checkpoints* from before, until `end`. *write* makes a checkpoint durable."""

    def __init__(self, checkpoints: Mapping[str, bytes], write: WriteCheckpoint) -> None:
        self._checkpoints = dict(checkpoints)
        self._write = write
        self._ended = asyncio.Event()
        self._keeping = asyncio.Lock()

    def checkpoint(self, name: str) -> bytes | None:
        return self._checkpoints.get(name)

    async def keep(self, name: str, checkpoint: bytes) -> None:
        """As `Lease.keep`."""
        async with self._keeping:  # one at a time: otherwise an older one might be written last, and count
            self._check(name)
            await self._write(name, checkpoint)
            self._check(name)
            self._checkpoints[name] = checkpoint

    async def lost(self) -> None:
        await self._ended.wait()

    def end(self) -> None:
        """End the lease. May be called again."""
        self._ended.set()

    def _check(self, name: str) -> None:
        if self._ended.is_set():
            raise LeaseLost(
                f"the lease was lost before the checkpoint {name!r} was surely kept: another worker may have the lease"
            )
