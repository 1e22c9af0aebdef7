"""The lease and the checkpoints of the embedded log: a lock in its only worker, and a compacted topic."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial

from usher.delivery import Headers
from usher.eventlog.errors import LogUnavailable
from usher.eventlog.lease import HeldLease, fold_checkpoints
from usher.eventlog.names import checkpoints_topic
from usher.eventlog.port import Lease
from usher.eventlog.sqlite import tables
from usher.eventlog.sqlite.file import DatabaseFile
from usher.eventlog.sqlite.topics import PAGE

_PAUSE_SECONDS = 1.0
Write = Callable[[str, bytes | None, bytes | None, Headers], Awaitable[object]]


class SqliteCheckpoints:
    """The checkpoints of *group* in an open *file*, and the lease on them. *write* appends to a topic."""

    def __init__(self, file: DatabaseFile, group: str, write: Write) -> None:
        self._file = file
        self._group, self._topic = group, checkpoints_topic(group)
        self._write = write
        self._turn = asyncio.Lock()
        self._held: HeldLease | None = None
        self._closed = False

    @contextlib.asynccontextmanager
    async def lease(self) -> AsyncIterator[Lease]:
        """As `EventLog.lease`. The only other lease to wait for is one in this worker."""
        async with self._turn:
            held = self._held = HeldLease(await self._all(), self._keep)
            try:
                yield held
            finally:
                held.end()

    def end(self) -> None:
        """End the lease: the event log is closed."""
        self._closed = True
        if self._held is not None:
            self._held.end()

    async def _all(self) -> dict[str, bytes]:
        checkpoints: dict[str, bytes] = {}
        position = 0
        while True:
            try:
                page = await self._file.read(partial(tables.page, topic=self._topic, start=position, limit=PAGE))
            except LogUnavailable:
                if self._closed:
                    raise
                await asyncio.sleep(_PAUSE_SECONDS)
                continue
            if not page:
                return checkpoints
            fold_checkpoints(page, self._group, checkpoints)
            position = page[-1].offset + 1

    async def _keep(self, name: str, checkpoint: bytes) -> None:
        await self._write(self._topic, name.encode(), checkpoint, ())
