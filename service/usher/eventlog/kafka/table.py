"""The streams of the retry partitions. Hides that one consumer reads all of them, each from its own beginning.

A consumer for each stream would be a long poll for each, and hardly anything happens in these partitions.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Final

import structlog
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError, OffsetOutOfRangeError

from usher.delivery import Record
from usher.eventlog.kafka.client import Clients, stop
from usher.eventlog.kafka.errors import brief
from usher.eventlog.port import CAUGHT_UP, CaughtUp

_logger = structlog.get_logger(__name__)
_BATCH: Final = 500
_AHEAD: Final = 4
_WAIT_MS: Final = 100
_PAUSE: Final = 1.0

Item = Sequence[Record] | CaughtUp | None
"""None: the reader was closed."""


class _Stream:
    """The position of one reader in one partition. *next* and *end* are None until the broker was asked."""

    def __init__(self, partition: TopicPartition) -> None:
        self.partition = partition
        self.next: int | None = None
        self.end: int | None = None
        self.caught_up = False
        self.items: asyncio.Queue[Item] = asyncio.Queue()

    @property
    def hungry(self) -> bool:
        return self.items.qsize() < _AHEAD

    def advance(self, records: Sequence[Record], position: int) -> None:
        """Take the records that were read, up to *position*."""
        if self.next is None or self.end is None:
            return
        # Two streams of one partition share its position: each takes the records that it has not had.
        if records and (fresh := [record for record in records if record.offset >= self.next]):
            self.items.put_nowait(fresh)
        self.next = max(self.next, position)
        if not self.caught_up and self.next >= self.end:
            self.caught_up = True
            self.items.put_nowait(CAUGHT_UP)


class TableReader:
    """Streams partitions: each from its beginning, then `CAUGHT_UP`, then the records that are added."""

    def __init__(self, clients: Clients) -> None:
        self._clients = clients
        self._streams: set[_Stream] = set()
        self._changed = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def stream(self, partition: TopicPartition) -> AsyncIterator[Sequence[Record] | CaughtUp]:
        """Follow *partition* until the iteration, or the reader, is closed."""
        stream = _Stream(partition)
        self._streams.add(stream)
        self._changed.set()
        if self._task is None:
            self._task = asyncio.create_task(self._run())
        try:
            while (item := await stream.items.get()) is not None:
                yield item
        finally:
            self._streams.discard(stream)
            self._changed.set()

    def rewind(self, topic: str) -> None:
        """Read *topic* from its beginning again: it was made anew."""
        for stream in self._streams:
            if stream.partition.topic == topic:
                stream.next = None
        self._changed.set()

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        for stream in self._streams:
            stream.items.put_nowait(None)

    async def _run(self) -> None:
        while True:
            consumer = self._clients.reader()
            try:
                await consumer.start()
                await self._follow(consumer)
            except OffsetOutOfRangeError as error:
                for stream in self._streams:
                    if any(stream.partition in offsets for offsets in error.args):
                        stream.next = None
            except (KafkaError, TimeoutError) as error:
                _logger.warning("retry topics can't be read", error=brief(error))
            finally:
                await stop(consumer)
            await asyncio.sleep(_PAUSE)

    async def _follow(self, consumer: AIOKafkaConsumer) -> None:
        self._changed.set()
        while True:
            if self._changed.is_set():
                self._changed.clear()
                await self._assign(consumer)
            if not self._streams:
                await self._changed.wait()
                continue
            hungry = {stream.partition for stream in self._streams}
            hungry -= {stream.partition for stream in self._streams if not stream.hungry}
            if not hungry:
                await asyncio.sleep(_WAIT_MS / 1_000)
                continue
            first = await consumer.getmany(*hungry, timeout_ms=_WAIT_MS, max_records=1)
            if not self._changed.is_set():
                await self._deliver(consumer, hungry, first)

    async def _deliver(
        self,
        consumer: AIOKafkaConsumer,
        partitions: set[TopicPartition],
        first: Mapping[TopicPartition, Sequence[Record]],
    ) -> None:
        """Deliver the records that are there. One partition a call: an error in one loses what the same call read of others."""
        for partition in partitions:
            more = await consumer.getmany(partition, timeout_ms=0, max_records=_BATCH)
            records = [*first.get(partition, ()), *more.get(partition, ())]
            position = await consumer.position(partition)
            for stream in self._streams:
                if stream.partition == partition:
                    stream.advance(records, position)

    async def _assign(self, consumer: AIOKafkaConsumer) -> None:
        """Assign the partitions of the streams, each from the lowest position of its streams."""
        fresh = [stream for stream in self._streams if stream.next is None]
        partitions = list({stream.partition for stream in fresh})
        ends = await consumer.end_offsets(partitions)
        beginnings = await consumer.beginning_offsets(partitions)
        for stream in fresh:
            stream.end = ends[stream.partition] if stream.end is None else stream.end
            stream.next = beginnings[stream.partition]
        positions: dict[TopicPartition, int] = {}
        for stream in self._streams:
            if stream.next is not None:
                positions[stream.partition] = min(positions.get(stream.partition, stream.next), stream.next)
        if not positions:
            return
        consumer.assign(list(positions))
        for partition, position in positions.items():
            consumer.seek(partition, position)
        for stream in fresh:
            stream.advance((), beginnings[stream.partition])
