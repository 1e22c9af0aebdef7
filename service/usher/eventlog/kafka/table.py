"""The streams of the retry partitions. Hides that one consumer reads all of them, each from its own beginning.

A consumer for each stream would be a long poll for each, and hardly anything happens in these partitions.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import Final

import structlog
from aiokafka import AIOKafkaConsumer
from aiokafka import TopicPartition as KafkaPartition
from aiokafka.errors import KafkaError, OffsetOutOfRangeError

from usher import background
from usher.delivery import Record
from usher.eventlog.kafka.client import Clients, stop
from usher.eventlog.kafka.errors import brief
from usher.eventlog.kafka.offsets import known
from usher.eventlog.kafka.polling import is_one_partitions
from usher.eventlog.kafka.stops import Stops
from usher.eventlog.port import CAUGHT_UP, CaughtUp, TopicPartition

_logger = structlog.get_logger(__name__)
_BATCH: Final = 500
_AHEAD: Final = 4
_WAIT_MS: Final = 100
_PAUSE: Final = 1.0
_REST: Final = 30.0
_CAREFUL: Final = 2.0
_PROBATION: Final = 10.0

Item = Sequence[Record] | CaughtUp | None
"""None: the reader was closed."""


class _Stream:
    """The position of one reader in one partition. *next* and *end* are None until the broker was asked."""

    def __init__(self, partition: KafkaPartition) -> None:
        self.partition = partition
        self.next: int | None = None
        self.end: int | None = None
        self.caught_up = False
        self.rests_until = 0.0
        self.items: asyncio.Queue[Item] = asyncio.Queue()

    @property
    def hungry(self) -> bool:
        return self.next is not None and self.items.qsize() < _AHEAD and self.rests_until <= _now()

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
        self._stops = Stops()
        self._careful_until = 0.0
        self._changed = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self.consumer: AIOKafkaConsumer | None = None
        """The consumer of now; None while it is replaced."""

    def stopped(self) -> Mapping[TopicPartition, str]:
        """Return the partitions that stand still, each with the reason."""
        followed = {TopicPartition(*stream.partition) for stream in self._streams}
        return {each: why for each, why in self._stops.reasons.items() if each in followed}

    def replace(self) -> None:
        """Go on with a new consumer, where the streams are."""
        if self.consumer is not None:
            self.consumer = None
            self._changed.set()

    async def stream(self, partition: KafkaPartition) -> AsyncGenerator[Sequence[Record] | CaughtUp, None]:
        """Follow *partition* until the iteration, or the reader, is closed."""
        stream = _Stream(partition)
        self._streams.add(stream)
        self._changed.set()
        if self._task is None:
            self._task = background.begin(self._run)
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
            consumer = self.consumer = self._clients.reader()
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
                self.consumer = None
                await stop(consumer)
            await asyncio.sleep(_PAUSE)

    async def _follow(self, consumer: AIOKafkaConsumer) -> None:
        self._changed.set()
        while consumer is self.consumer:
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
            first = await self._wait(consumer, hungry)
            if not self._changed.is_set():
                await self._deliver(consumer, hungry, first)

    async def _wait(
        self, consumer: AIOKafkaConsumer, partitions: set[KafkaPartition]
    ) -> Mapping[KafkaPartition, Sequence[Record]]:
        """Wait for a record: at most one is read. An error does not say which partition it is about: for a while none is read here."""
        if _now() < self._careful_until:
            await asyncio.sleep(_WAIT_MS / 1_000)
            return {}
        try:
            first: Mapping[KafkaPartition, Sequence[Record]] = await consumer.getmany(
                *partitions, timeout_ms=_WAIT_MS, max_records=1
            )
        except Exception as error:
            if not _can_rest(error):
                raise
            self._careful_until = _now() + _CAREFUL
            return {}
        return first

    async def _deliver(
        self,
        consumer: AIOKafkaConsumer,
        partitions: set[KafkaPartition],
        first: Mapping[KafkaPartition, Sequence[Record]],
    ) -> None:
        """Deliver the records that are there. One partition a call: an error in one loses what the same call read of others."""
        for partition in partitions:
            try:
                more = await consumer.getmany(partition, timeout_ms=0, max_records=_BATCH)
            except Exception as error:
                if not _can_rest(error):
                    raise
                self._rest(partition, brief(error), "its records can't be read; the claims that need them wait")
                continue
            tried = max((stream.rests_until for stream in self._streams if stream.partition == partition), default=0.0)
            if more or _now() - tried > _PROBATION:
                self._stops.go_on(TopicPartition(*partition))
            records = [*first.get(partition, ()), *more.get(partition, ())]
            position = await consumer.position(partition)
            for stream in self._streams:
                if stream.partition == partition:
                    stream.advance(records, position)

    async def _assign(self, consumer: AIOKafkaConsumer) -> None:
        """Assign the partitions of the streams, each from the lowest position of its streams."""
        fresh = [stream for stream in self._streams if stream.next is None and stream.rests_until <= _now()]
        partitions = list({stream.partition for stream in fresh})
        ends = await known(consumer.end_offsets, partitions)
        beginnings = await known(consumer.beginning_offsets, ends)
        for stream in fresh:
            if stream.partition in beginnings:
                stream.end = ends[stream.partition] if stream.end is None else stream.end
                stream.next = beginnings[stream.partition]
        for partition in {*partitions} - beginnings.keys():
            self._rest(partition, "its offsets are not known", "see whether the partition has a leader")
        positions: dict[KafkaPartition, int] = {}
        for stream in self._streams:
            if stream.next is not None:
                positions[stream.partition] = min(positions.get(stream.partition, stream.next), stream.next)
        if not positions:
            return
        consumer.assign(list(positions))
        for partition, position in positions.items():
            consumer.seek(partition, position)
        for stream in fresh:
            if stream.next is not None:
                stream.advance((), stream.next)

    def _rest(self, partition: KafkaPartition, error: str, hint: str) -> None:
        """Leave *partition* alone for a while: the streams of the others go on."""
        self._stops.stop(TopicPartition(*partition), error, hint)
        for stream in self._streams:
            if stream.partition == partition:
                stream.rests_until = _now() + _REST
        asyncio.get_running_loop().call_later(_REST, self._changed.set)


def _now() -> float:
    return asyncio.get_running_loop().time()


def _can_rest(error: Exception) -> bool:
    """Return whether only the partition that the error is about has to wait. One whose beginning was deleted begins anew."""
    return is_one_partitions(error) and not isinstance(error, OffsetOutOfRangeError)
