"""The browser of Kafka. Hides that it needs an admin client, a consumer without a group, and a producer."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Collection, Iterator, Mapping, Sequence
from typing import Final, Self

from aiokafka import AIOKafkaConsumer
from aiokafka import TopicPartition as KafkaPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import GroupCoordinatorNotAvailableError, GroupLoadInProgressError, KafkaError
from aiokafka.structs import OffsetAndMetadata

from usher.addresses import KafkaAddress
from usher.delivery import Headers, Record
from usher.eventlog.browse import Committed, ReceiptsState, TopicState
from usher.eventlog.errors import LogUnavailable
from usher.eventlog.kafka.client import Clients, bounded, stop
from usher.eventlog.kafka.owners import strangers
from usher.eventlog.kafka.ranges import read_between
from usher.eventlog.kafka.start import committed
from usher.eventlog.kafka.topic_ids import seen
from usher.eventlog.kafka.topics import KafkaTopics
from usher.eventlog.kafka.writer import Writer
from usher.eventlog.names import checkpoints_topic, receipts_topic
from usher.eventlog.notes import GroupStart, Notes
from usher.eventlog.port import LogConfig, TopicPartition
from usher.kafka_options import NO_OPTIONS, KafkaOptions

_PATIENCE: Final = 15.0
_PAUSE: Final = 0.25


class KafkaBrowser:
    """`Browser` on Kafka.

    Raises:
        LogMisconfigured: on entering, the credentials are wrong.
        LogUnavailable: on entering, no broker answers.
    """

    def __init__(self, address: KafkaAddress, config: LogConfig, options: KafkaOptions = NO_OPTIONS) -> None:
        self._config = config
        self._clients = Clients(address, options)
        self._writer = Writer(self._clients)
        self._admin: AIOKafkaAdminClient
        self._consumer: AIOKafkaConsumer
        self._measurer: AIOKafkaConsumer
        self._topics: KafkaTopics

    async def __aenter__(self) -> Self:
        self._admin, self._consumer = self._clients.admin(), self._clients.reader()
        self._measurer = self._clients.reader(committed=False)
        try:
            await self._admin.start()
            await self._consumer.start()
            await self._measurer.start()
        except (KafkaError, TimeoutError) as error:
            await self.__aexit__()
            reason = await self._clients.diagnose()
            raise LogUnavailable(f"Kafka can't be reached: {reason}") from error
        except BaseException:
            await self.__aexit__()
            raise
        self._topics = KafkaTopics(self._admin, self._clients.servers, self._config)
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._writer.close()
        await stop(self._consumer)
        await stop(self._measurer)
        await bounded(self._admin.close())

    async def topics(self) -> Sequence[TopicState]:
        with self._asking("describe the topics"):
            partitions = {name: topic.partitions for name, topic in (await self._topics.look_up()).items()}
            found = await strangers(self._clients, self._config.group, self._config.topics, partitions)
            return await self._topics.states(found)

    async def existing(self) -> Collection[str]:
        """As `Browser.existing`.

        Raises:
            LogUnavailable
        """
        with self._asking("look up the topics"):
            return set(await seen(self._admin._client, self._topics.names()))

    async def create_topics(self) -> Sequence[str]:
        """As `Browser.create_topics`.

        Raises:
            LogMisconfigured: it is not permitted. Says the command to run.
            LogUnavailable
        """
        with self._asking("create topics"):
            return await self._topics.create_missing()

    async def committed(self, topic: str) -> Sequence[Committed]:
        """As `Browser.committed`.

        Raises:
            LogUnavailable
        """
        with self._asking(f"list the offsets of {topic}"):
            partitions = await self._partitions(topic)
            known = await self._committed(partitions)
            first = await self._consumer.beginning_offsets(partitions)
            ends = await self._measurer.end_offsets(partitions)
        return [
            Committed(
                TopicPartition(*each),
                known[each].offset if each in known else None,
                known[each].metadata if each in known else "",
                first[each],
                ends[each],
            )
            for each in partitions
        ]

    async def _committed(self, partitions: Collection[KafkaPartition]) -> dict[KafkaPartition, OffsetAndMetadata]:
        """Ask, and wait for the coordinator: a new cluster creates the topic of offsets at the first question about any group."""
        give_up = time.monotonic() + _PATIENCE
        while True:
            try:
                return await committed(self._admin, self._config.group, partitions)
            except (GroupCoordinatorNotAvailableError, GroupLoadInProgressError):
                if time.monotonic() > give_up:
                    raise
            await asyncio.sleep(_PAUSE)

    async def scan(
        self, topic: str, partition: int | None = None, *, first: Mapping[int, int] | None = None
    ) -> AsyncIterator[Sequence[Record]]:
        """As `Browser.scan`.

        Raises:
            LogUnavailable
        """
        async with self._clients.reading(topic) as consumer:
            partitions = [
                each
                for each in await self._partitions(topic)
                if partition in (None, each.partition) and (first is None or each.partition in first)
            ]
            kept = await consumer.beginning_offsets(partitions)
            begin = {each: max(kept[each], (first or {}).get(each.partition, 0)) for each in partitions}
            ends = await consumer.end_offsets(partitions)
            async for records in read_between(consumer, {each: (begin[each], ends[each]) for each in partitions}):
                yield records

    async def offsets_since(self, topic: str, moment: float) -> Mapping[int, int]:
        """As `Browser.offsets_since`.

        Raises:
            LogUnavailable
        """
        with self._asking(f"look up offsets of {topic}"):
            partitions = await self._partitions(topic)
            ends = await self._consumer.end_offsets(partitions)
            since = await self._consumer.offsets_for_times(dict.fromkeys(partitions, max(0, round(moment * 1000))))
        return {each.partition: ends[each] if at is None else at.offset for each, at in since.items()}

    async def records_at(self, places: Collection[tuple[TopicPartition, int]]) -> Sequence[Record]:
        """As `Browser.records_at`.

        Raises:
            LogUnavailable
        """
        found: list[Record] = []
        if not places:
            return found
        async with self._clients.reading("single records") as consumer:
            there = [each for topic in {at.topic for at, _ in places} for each in await self._partitions(topic)]
            kept, ends = await consumer.beginning_offsets(there), await consumer.end_offsets(there)
            for at, offset in places:
                partition = KafkaPartition(*at)
                if partition in kept and kept[partition] <= offset < ends[partition]:
                    async for records in read_between(consumer, {partition: (offset, offset + 1)}):
                        found += records
        return found

    async def count(self, topic_partition: TopicPartition, first: int, end: int) -> int:  # noqa: ARG002 offsets say it
        return max(0, end - first)

    async def uncommitted(self, topic: str) -> AsyncIterator[Sequence[Record]]:
        """As `Browser.uncommitted`.

        Raises:
            LogUnavailable
        """
        async with self._clients.reading(topic, committed=False) as consumer:
            partitions = await self._partitions(topic)
            readable = await self._consumer.end_offsets(partitions)
            ends = await self._measurer.end_offsets(partitions)
            async for records in read_between(consumer, {each: (readable[each], ends[each]) for each in partitions}):
                yield records

    async def receipts_state(self) -> ReceiptsState | None:
        """As `Browser.receipts_state`.

        Raises:
            LogUnavailable
        """
        topic = receipts_topic(self._config.group)
        with self._asking(f"describe {topic}"):
            if (there := (await seen(self._admin._client, [topic])).get(topic)) is None:
                return None
            partitions = [KafkaPartition(topic, number) for number in range(there.partitions)]
            first = await self._consumer.beginning_offsets(partitions)
            ends = await self._consumer.end_offsets(partitions)
        return ReceiptsState(there.id, {each.partition: (first[each], ends[each]) for each in partitions})

    async def receipts(self, positions: Mapping[int, int]) -> AsyncIterator[Sequence[Record]]:
        """As `Browser.receipts`.

        Raises:
            LogUnavailable
        """
        if (state := await self.receipts_state()) is None:
            return
        topic = receipts_topic(self._config.group)
        bounds = {
            KafkaPartition(topic, number): (max(first, positions.get(number, first)), end)
            for number, (first, end) in state.partitions.items()
        }
        async with self._clients.reading(topic) as consumer:
            async for records in read_between(consumer, bounds):
                yield records

    async def starts(self) -> Mapping[TopicPartition, GroupStart]:
        return (await self._notes()).starts

    async def address_key(self) -> bytes | None:
        return (await self._notes()).address_key

    async def _notes(self) -> Notes:
        notes = Notes(self._config.group)
        async for records in self.scan(checkpoints_topic(self._config.group)):
            notes.take(records)
        return notes

    async def append(
        self, topic: str, key: bytes | None, value: bytes | None, headers: Headers = (), partition: int | None = None
    ) -> TopicPartition:
        with self._asking(f"describe {topic}"):
            limit = await self._topics.max_bytes(topic)
        self._writer.limit({topic: limit})
        return await self._writer.write(topic, key, value, headers, partition)

    async def _partitions(self, topic: str) -> list[KafkaPartition]:
        return [KafkaPartition(topic, number) for number in range(await self._topics.partitions(topic))]

    @contextlib.contextmanager
    def _asking(self, what: str) -> Iterator[None]:
        try:
            yield
        except (KafkaError, TimeoutError) as error:
            raise self._clients.unavailable(error, what) from error
