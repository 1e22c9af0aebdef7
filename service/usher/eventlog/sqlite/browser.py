"""The browser of the embedded log. It works beside a worker that has the file open, and without one."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from functools import partial
from pathlib import Path

from usher.delivery import Headers, Record
from usher.eventlog.browse import Committed, ReceiptsState, TopicState
from usher.eventlog.names import dead_letter_topic, receipts_topic, retry_topic
from usher.eventlog.notes import GroupStart
from usher.eventlog.port import LogConfig, TopicPartition
from usher.eventlog.sqlite import tables
from usher.eventlog.sqlite.file import DatabaseFile
from usher.eventlog.sqlite.topics import PAGE, SqliteTopics


class SqliteBrowser:
    """A `Browser` of the file at *path*. Every topic of the config exists there.

    *create*: the file too, where there is none. Commands that only look must not leave one behind.
    """

    def __init__(
        self, path: Path, config: LogConfig, *, create: bool = False, clock: Callable[[], float] = time.time
    ) -> None:
        self._config = config
        self._topics = SqliteTopics(config, clock)
        self._file = DatabaseFile(path, create=create)

    async def __aenter__(self) -> SqliteBrowser:
        """Open the file.

        Raises:
            LogMissing: there is none, and none is to be created.
            LogMisconfigured, LogUnavailable
        """
        await self._file.open()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._file.close()

    async def topics(self) -> Sequence[TopicState]:
        group = self._config.group
        own = [
            each
            for topic in self._config.topics
            for each in (
                (topic, "source"),
                (retry_topic(group, topic), "retry"),
                (dead_letter_topic(group, topic), "dlt"),
            )
        ]
        if self._config.receipts:
            own.append((receipts_topic(group), "receipts"))
        return [TopicState(name, kind, partitions=1, compacted=kind == "retry", writable=True) for name, kind in own]

    async def existing(self) -> Collection[str]:
        return {state.topic for state in await self.topics()}

    async def create_topics(self) -> Sequence[str]:
        return []

    async def committed(self, topic: str) -> Sequence[Committed]:
        position = await self._file.read(lambda db: tables.committed(db, self._config.group, topic))
        first, end = await self._file.read(lambda db: tables.bounds(db, topic))
        if position is None:
            return [Committed(TopicPartition(topic, 0), None, "", first, end)]
        return [Committed(TopicPartition(topic, 0), position.next, position.mark, first, max(end, position.next))]

    async def scan(
        self, topic: str, partition: int | None = None, *, first: Mapping[int, int] | None = None
    ) -> AsyncIterator[Sequence[Record]]:
        if partition not in {None, 0} or (first is not None and 0 not in first):
            return
        begin, end = await self._file.read(lambda db: tables.bounds(db, topic))
        async for records in self._between(topic, max(begin, first[0]) if first else begin, end):
            yield records

    async def offsets_since(self, topic: str, moment: float) -> Mapping[int, int]:
        return {0: await self._file.read(lambda db: tables.offset_since(db, topic, moment * 1000))}

    async def records_at(self, places: Collection[tuple[TopicPartition, int]]) -> Sequence[Record]:
        pages = [
            await self._file.read(partial(tables.page, topic=at.topic, start=offset, limit=1, end=offset + 1))
            for at, offset in places
            if at.partition == 0
        ]
        return [record for page in pages for record in page]

    async def count(self, topic_partition: TopicPartition, first: int, end: int) -> int:
        return await self._file.read(lambda db: tables.count(db, topic_partition.topic, first, end))

    async def receipts_state(self) -> ReceiptsState:
        return await self._file.read(self._topics.receipts_state)

    async def receipts(self, positions: Mapping[int, int]) -> AsyncIterator[Sequence[Record]]:
        first, end = (await self.receipts_state()).partitions[0]
        async for records in self._between(self._topics.receipts, max(first, positions.get(0, first)), end):
            yield records

    async def starts(self) -> Mapping[TopicPartition, GroupStart]:
        return (await self._file.read(self._topics.notes)).starts

    async def address_key(self) -> bytes | None:
        return (await self._file.read(self._topics.notes)).address_key

    async def _between(self, topic: str, position: int, end: int) -> AsyncIterator[Sequence[Record]]:
        part = partial(tables.page, topic=topic, limit=PAGE, end=end)
        while records := await self._file.read(partial(part, start=position)):
            yield records
            position = records[-1].offset + 1

    async def uncommitted(self, topic: str) -> AsyncIterator[Sequence[Record]]:  # noqa: ARG002 the embedded log has no such records
        return
        yield

    async def append(
        self, topic: str, key: bytes | None, value: bytes | None, headers: Headers = (), partition: int | None = None
    ) -> TopicPartition:
        """As the port says. The only partition is 0.

        Raises:
            TooLarge, LogUnavailable
            ValueError: another *partition*.
        """
        if partition not in {None, 0}:
            raise ValueError(f"there is no partition {partition} of {topic}: the embedded log has only 0")
        await self._file.write(self._topics.put(topic, key, value, headers))
        return TopicPartition(topic, 0)
