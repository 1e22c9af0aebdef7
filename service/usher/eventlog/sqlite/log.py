"""The embedded log: the EventLog port on one SQLite file, for one worker, with the command line beside it.

Hides that there is no broker: every topic has the partition 0, retention is a task of the worker, and the worker looks
every now and then for what other processes wrote. All topics share one sequence of offsets: those of a topic rise, with gaps.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sqlite3
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Collection, Mapping, Sequence
from functools import partial
from pathlib import Path

from usher import background
from usher.delivery import Headers, Record
from usher.eventlog.errors import ClaimLost, LogUnavailable
from usher.eventlog.names import dead_letter_topic, retry_topic
from usher.eventlog.port import (
    CAUGHT_UP,
    Batch,
    CaughtUp,
    Claim,
    Lease,
    LogConfig,
    Owner,
    Position,
    Sieve,
    Sieves,
    TopicPartition,
    unsieved,
)
from usher.eventlog.sqlite import tables
from usher.eventlog.sqlite.access import only_worker
from usher.eventlog.sqlite.bell import Bell
from usher.eventlog.sqlite.file import DatabaseFile
from usher.eventlog.sqlite.lease import SqliteCheckpoints
from usher.eventlog.sqlite.topics import PAGE, SqliteTopics

DAY = 86_400.0
_LOOK_SECONDS = 0.1
_PAUSE_SECONDS = 1.0
_PRUNE_SECONDS = 3_600.0


class SqliteLog:
    """An `EventLog` in the file at *path*. A new group always starts at the beginning, whatever `LogConfig.start_from` says.

    It keeps source records that the group has passed for *retention* seconds, dead letters for *dead_letter_retention*,
    and the tombstone of a parked delivery for *tombstone_retention*. A file that has gone needs a restart after *patience*
    seconds. *clock* gives Unix seconds.
    """

    def __init__(
        self,
        path: Path,
        config: LogConfig,
        *,
        retention: float = 7 * DAY,
        dead_letter_retention: float = 90 * DAY,
        tombstone_retention: float = DAY,
        patience: float = 60.0,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._path = path
        self._config = config
        self._retention = retention
        self._dead_letter_retention = dead_letter_retention
        self._tombstone_retention = tombstone_retention
        self._patience = patience
        self._gone_at: float | None = None
        self._clock = clock
        self._topics = SqliteTopics(config, clock)
        self._file = DatabaseFile(path)
        self._lock: int | None = None
        self._pruning: asyncio.Task[None] | None = None
        self._held: dict[str, Claim] = {}
        self._positions: dict[Claim, int] = {}
        self._sieves: Sieves = unsieved
        self._read_bell = Bell()
        self._bells = dict.fromkeys(config.topics, self._read_bell)
        self._bells.update((retry_topic(config.group, topic), Bell()) for topic in config.topics)
        self._turn = 0
        self._checkpoints = SqliteCheckpoints(self._file, config.group, self._write)

    async def open(self, owner: Owner, sieves: Sieves = unsieved) -> None:
        """As the port says.

        Raises:
            LogMisconfigured: another worker has the file, it is damaged or of another program, or it can't be written.
            LogUnavailable: it is locked, or the disk fails.
        """
        self._sieves = sieves
        self._lock = only_worker(self._path)
        try:
            await self._file.open()
            committed = await self._file.write(self._topics.start)
        except BaseException:
            await self.close()
            raise
        self._held = {
            topic: Claim(topic, 0, committed[topic].next, committed[topic].mark) for topic in self._config.topics
        }
        self._positions = {claim: claim.start for claim in self._held.values()}
        self._pruning = background.begin(self._prune_hourly)
        await owner.claimed(list(self._held.values()))

    async def close(self) -> None:
        self._held = {}
        self._checkpoints.end()
        if self._pruning is not None:
            self._pruning.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._pruning
            self._pruning = None
        await self._file.close()
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    async def read(self, claims: Collection[Claim], limit: int, wait: float) -> Sequence[Batch]:
        clock = asyncio.get_running_loop().time
        deadline = clock() + wait
        while True:
            rung, pause = self._read_bell.next(), _LOOK_SECONDS
            try:
                if batches := await self._fetch(claims, limit):
                    return batches
            except LogUnavailable:
                pause = _PAUSE_SECONDS
            if (left := deadline - clock()) <= 0:
                return ()
            await rung.wait(min(pause, left))

    async def commit(self, positions: Mapping[Claim, Position]) -> None:
        lost = [claim for claim in positions if self._held.get(claim.topic) is not claim]
        for claim in lost:
            raise ClaimLost(f"this worker has no claim on {claim.topic}/{claim.partition} any more", lost)
        await self._file.write(lambda db: self._topics.commit(db, positions))

    async def park(self, claim: Claim, key: str, value: bytes, headers: Headers) -> None:
        await self._write(retry_topic(self._config.group, claim.topic), key.encode(), value, headers)

    async def unpark(self, claim: Claim, key: str, headers: Headers = ()) -> None:
        await self._write(retry_topic(self._config.group, claim.topic), key.encode(), None, headers)

    async def bury(self, claim: Claim, key: bytes | None, value: bytes | None, headers: Headers) -> None:
        await self._write(dead_letter_topic(self._config.group, claim.topic), key, value, headers)

    async def file(self, claim: Claim, values: Sequence[bytes]) -> None:  # noqa: ARG002 there is one partition
        await self._file.write(self._topics.file(values))

    async def address_key(self) -> bytes:
        return await self._file.write(self._topics.address_key)

    async def parked(self, claim: Claim) -> AsyncGenerator[Sequence[Record] | CaughtUp, None]:
        topic = retry_topic(self._config.group, claim.topic)
        position, caught_up = 0, False
        while self._held.get(claim.topic) is claim:
            rung = self._bells[topic].next()
            try:
                records = await self._file.read(partial(tables.page, topic=topic, start=position, limit=PAGE))
            except LogUnavailable:
                await rung.wait(_PAUSE_SECONDS)
                continue
            # It has caught up when nothing is left, not at the end as it was at the beginning: a record may have been replaced
            # by one behind that end, and would be missing.
            if records:
                position = records[-1].offset + 1
                yield records
            elif not caught_up:
                caught_up = True
                yield CAUGHT_UP
            else:
                await rung.wait(_LOOK_SECONDS)

    async def history(self, claim: Claim, window: float, limit: int) -> AsyncIterator[Sequence[Record]]:
        """As the port says.

        Raises:
            LogUnavailable
        """
        topic, start = claim.topic, claim.start
        at_start = await self._file.read(lambda db: tables.time_at(db, topic, start))
        since = (self._clock() * 1000 if at_start is None else at_start) - window * 1000
        position = await self._file.read(lambda db: tables.back(db, topic, start, limit))
        older = partial(tables.page, topic=topic, limit=PAGE, end=start, since=since)
        while records := await self._file.read(partial(older, start=position)):
            yield records
            position = records[-1].offset + 1

    async def append(self, topic: str, key: bytes | None, value: bytes, headers: Headers = ()) -> TopicPartition:
        return await self._write(topic, key, value, headers)

    def lease(self) -> contextlib.AbstractAsyncContextManager[Lease]:
        return self._checkpoints.lease()

    async def since(self, topic: str, moment: float) -> AsyncIterator[Sequence[Record]]:
        """As the port says.

        Raises:
            LogUnavailable
        """
        stamp = round(moment * 1000)
        position = await self._file.read(lambda db: tables.offset_since(db, topic, stamp))
        end = await self._file.read(lambda db: tables.bounds(db, topic)[1])
        later = partial(tables.page, topic=topic, limit=PAGE, end=end, since=stamp - 1)
        while records := await self._file.read(partial(later, start=position)):
            yield records
            position = records[-1].offset + 1

    async def ends(self, claims: Collection[Claim]) -> Mapping[Claim, int]:
        """As the port says. Never less than what has been read, even where retention has deleted the last record.

        Raises:
            LogUnavailable
        """

        def last(db: sqlite3.Connection) -> dict[Claim, int]:
            return {claim: tables.bounds(db, claim.topic)[1] for claim in claims}

        ends = await self._file.read(last)
        return {claim: max(end, self._positions.get(claim, claim.start)) for claim, end in ends.items()}

    def complaints(self) -> Sequence[str]:
        return ()

    async def writable(self) -> bool:
        if self._lock is None or self._file.gone:
            return False
        if not self._file.failing:
            return True
        # After a failure only a write shows whether it is over. A worker that is not ready writes nothing else.
        try:
            async with asyncio.timeout(_PAUSE_SECONDS):
                await self._file.write(tables.touch)
        except (LogUnavailable, TimeoutError):
            return False
        return True

    def stopped(self) -> Mapping[TopicPartition, str]:
        return {}

    def needs_restart(self) -> str:
        if not self._file.gone:
            self._gone_at = None
            return ""
        now = asyncio.get_running_loop().time()
        self._gone_at = now if self._gone_at is None else self._gone_at
        if now - self._gone_at < self._patience:
            return ""  # it may be put back
        return f"the file {self._path} was removed or replaced"

    async def _write(self, topic: str, key: bytes | None, value: bytes | None, headers: Headers) -> TopicPartition:
        await self._file.write(self._topics.put(topic, key, value, headers))
        if (bell := self._bells.get(topic)) is not None:
            bell.ring()
        return TopicPartition(topic, 0)

    async def _fetch(self, claims: Collection[Claim], limit: int) -> Sequence[Batch]:
        mine = [claim for claim in claims if self._held.get(claim.topic) is claim]
        if not mine:
            return ()
        self._turn += 1
        first = self._turn % len(mine)
        turns = (*mine[first:], *mine[:first])
        wanted = [(claim, self._positions[claim], self._sieves(claim.topic)) for claim in turns]
        batches = await self._file.read(partial(_batches, wanted=wanted, limit=limit))
        self._positions.update((batch.claim, batch.next) for batch in batches)
        return batches

    async def _prune_hourly(self) -> None:
        while True:
            now = self._clock()
            for prune in self._topics.prunes(
                now - self._retention, now - self._dead_letter_retention, now - self._tombstone_retention
            ):
                with contextlib.suppress(LogUnavailable):
                    while await self._file.write(prune):
                        """Some records at a time: other writes come in between."""
            await asyncio.sleep(_PRUNE_SECONDS)


def _batches(db: sqlite3.Connection, wanted: Sequence[tuple[Claim, int, Sieve]], limit: int) -> list[Batch]:
    batches = []
    for claim, position, sieve in wanted:
        if limit > 0 and (batch := tables.sifted(db, claim, position, limit, sieve)).next > position:
            limit -= len(batch.records) + batch.passed
            batches.append(batch)
    return batches
