"""A lease that this worker has. Hides that it may end while a checkpoint is being written, and for several reasons."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping

from usher.delivery import Record
from usher.delivery.headers import ORIGINAL_GROUP, Head
from usher.eventlog.errors import LeaseLost

WriteCheckpoint = Callable[[str, bytes], Awaitable[object]]


def fold_checkpoints(records: Iterable[Record], group: str, into: dict[str, bytes]) -> None:
    """Apply records of the topic of checkpoints, in order: the last one of each name counts.

    Others may write there too: a record without a name, or of another group, is no checkpoint.
    """
    for record in records:
        if not record.key or Head(record.headers).text(ORIGINAL_GROUP, group) != group:
            continue
        name = record.key.decode("utf-8", "replace")
        if record.value is None:
            into.pop(name, None)
        else:
            into[name] = record.value


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
