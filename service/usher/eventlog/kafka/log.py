"""The EventLog on Kafka. Hides that it has several clients, and in which order they start and end."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from typing import Final

import structlog
from aiokafka import AIOKafkaConsumer
from aiokafka import TopicPartition as KafkaPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError

from usher.addresses import KafkaAddress
from usher.delivery import Headers, Record
from usher.eventlog.errors import LogMisconfigured, LogUnavailable
from usher.eventlog.kafka.beginnings import Beginnings, Locator
from usher.eventlog.kafka.client import Clients, bounded, stop
from usher.eventlog.kafka.errors import brief
from usher.eventlog.kafka.lease import Checkpoints
from usher.eventlog.kafka.lookout import Lookout
from usher.eventlog.kafka.member import Member
from usher.eventlog.kafka.notes import Notes
from usher.eventlog.kafka.owners import strangers
from usher.eventlog.kafka.ranges import read_between, read_since
from usher.eventlog.kafka.start import Start
from usher.eventlog.kafka.table import TableReader
from usher.eventlog.kafka.topics import KafkaTopics, Topic, shared
from usher.eventlog.kafka.writer import Writer
from usher.eventlog.port import (
    Batch,
    CaughtUp,
    Claim,
    Lease,
    LogConfig,
    Owner,
    Position,
    TopicPartition,
    dead_letter_topic,
    retry_topic,
)
from usher.kafka_options import NO_OPTIONS, KafkaOptions

_logger = structlog.get_logger(__name__)
_FIRST_RETRY: Final = 0.3
_RETRY: Final = 3.0
_READERS: Final = 4


class KafkaLog:
    """`EventLog` on Kafka."""

    def __init__(self, address: KafkaAddress, config: LogConfig, options: KafkaOptions = NO_OPTIONS) -> None:
        self._config = config
        self._clients = Clients(address, options)
        self._topics: Mapping[str, Topic] = {}
        self._admin: AIOKafkaAdminClient | None = None
        self._asker: AIOKafkaConsumer | None = None
        self._writer = Writer(self._clients)
        self._table = TableReader(self._clients)
        self._locator = Locator(config.group, notes := Notes(self._clients, self._writer, config.group))
        self._member = Member(
            self._clients,
            config.group,
            config.topics,
            config.drain,
            locate=self._locate,
            settled=self._locator.settled,
        )
        self._lookout = Lookout(
            self._member, self._locator, notes, self._table, config=config, every=options.metadata_age
        )
        self._checkpoints = Checkpoints(self._clients, self._writer, config.group)
        self._history_slots = asyncio.Semaphore(_READERS)

    async def open(self, owner: Owner) -> None:
        """As `EventLog.open`. Waits while Kafka can't be reached, and logs that."""
        pause = _FIRST_RETRY
        while True:
            try:
                await self._connect()
                break
            except (KafkaError, TimeoutError) as error:
                reason = await self._clients.diagnose()
                if pause > 1:  # a new cluster needs a moment for its first group: that is no problem
                    _logger.warning(
                        "kafka is not ready", servers=self._clients.servers, error=brief(error), reason=reason
                    )
            await asyncio.sleep(pause)
            pause = min(2 * pause, _RETRY)
        self._member.join(owner)

    async def _connect(self) -> None:
        """Start the clients. Where something fails, stop those that were started."""
        async with contextlib.AsyncExitStack() as started:
            admin, asker = self._clients.admin(), self._clients.reader()
            started.push_async_callback(lambda: bounded(admin.close()))
            started.push_async_callback(lambda: stop(asker))
            await admin.start()
            self._take_topics(await self._topics_of(admin).verified())
            await self._refuse_strangers()
            sources = {name: self._topics[name] for name in self._config.topics}
            anew = await self._locator.made_anew({name: topic.id for name, topic in sources.items()})
            start = Start(self._clients, admin, self._config.group, self._config.start_from)
            counts = {name: topic.partitions for name, topic in sources.items()}
            self._locator.starts = await start.ensure(counts, anew)
            await asker.start()
            self._admin, self._asker = admin, asker
            self._lookout.begin(admin, asker, self._topics_of(admin), self._take_topics)
            started.pop_all()  # all are started: close() stops them

    def _take_topics(self, topics: Mapping[str, Topic]) -> None:
        self._topics = topics
        self._writer.limit({name: topic.max_bytes for name, topic in topics.items()})

    async def _refuse_strangers(self) -> None:
        partitions = {name: topic.partitions for name, topic in self._topics.items()}
        for name, owner in (
            await strangers(self._clients, self._config.group, self._config.topics, partitions)
        ).items():
            raise LogMisconfigured(shared(name, owner, self._config.group))

    def _topics_of(self, admin: AIOKafkaAdminClient) -> KafkaTopics:
        return KafkaTopics(admin, self._clients.servers, self._config.group, self._config.topics)

    async def close(self) -> None:
        """As `EventLog.close`. Takes some seconds at most, even when Kafka is dead."""
        await self._lookout.end()
        await asyncio.gather(self._member.leave(), self._table.close(), self._writer.close())
        admin, self._admin = self._admin, None
        asker, self._asker = self._asker, None
        if asker is not None:
            await stop(asker)
        if admin is not None:
            await bounded(admin.close())

    async def read(self, claims: Collection[Claim], limit: int, wait: float) -> Sequence[Batch]:
        return await self._member.read(claims, limit, wait)

    async def commit(self, positions: Mapping[Claim, Position]) -> None:
        await self._member.commit(positions)

    async def park(self, claim: Claim, key: str, value: bytes, headers: Headers) -> None:
        await self._write_own(retry_topic, claim, key.encode(), value, headers)

    async def unpark(self, claim: Claim, key: str, headers: Headers = ()) -> None:
        await self._write_own(retry_topic, claim, key.encode(), None, headers)

    async def bury(self, claim: Claim, key: bytes | None, value: bytes | None, headers: Headers) -> None:
        await self._write_own(dead_letter_topic, claim, key, value, headers)

    async def _write_own(
        self, name: Callable[[str, str], str], claim: Claim, key: bytes | None, value: bytes | None, headers: Headers
    ) -> None:
        try:
            await self._writer.write(name(self._config.group, claim.topic), key, value, headers, claim.partition)
        except LogUnavailable:
            self._lookout.soon()  # the topic may be gone
            raise

    def parked(self, claim: Claim) -> AsyncIterator[Sequence[Record] | CaughtUp]:
        return self._table.stream(KafkaPartition(retry_topic(self._config.group, claim.topic), claim.partition))

    async def history(self, claim: Claim, window: float, limit: int) -> AsyncIterator[Sequence[Record]]:
        """As `EventLog.history`.

        Raises:
            LogUnavailable
        """
        async with self._history_slots:
            consumer = self._clients.reader()
            try:
                await consumer.start()
                partition = KafkaPartition(*claim.topic_partition)
                first = await _first_within(consumer, partition, claim.start, window, limit)
                async for records in read_between(consumer, {partition: (first, claim.start)}):
                    yield records
            except (KafkaError, TimeoutError) as error:
                raise self._clients.unavailable(error, f"read the history of {claim.topic}") from error
            finally:
                await stop(consumer)

    async def append(self, topic: str, key: bytes | None, value: bytes, headers: Headers = ()) -> TopicPartition:
        return await self._writer.write(topic, key, value, headers)

    def lease(self) -> contextlib.AbstractAsyncContextManager[Lease]:
        if self._admin is None:
            raise LogUnavailable("the event log is not open")
        return self._checkpoints.lease()

    async def since(self, topic: str, moment: float) -> AsyncIterator[Sequence[Record]]:
        """As `EventLog.since`.

        Raises:
            LogUnavailable
        """
        consumer = self._clients.reader()
        try:
            await consumer.start()
            partitions = [KafkaPartition(topic, number) for number in range(self._topics[topic].partitions)]
            async for records in read_since(consumer, partitions, moment):
                yield records
        except (KafkaError, TimeoutError) as error:
            raise self._clients.unavailable(error, f"read {topic}") from error
        finally:
            await stop(consumer)

    async def ends(self, claims: Collection[Claim]) -> Mapping[Claim, int]:
        """As `EventLog.ends`.

        Raises:
            LogUnavailable
        """
        if not claims:
            return {}
        if self._asker is None:
            raise LogUnavailable("the event log is not open")
        try:
            ends = await self._asker.end_offsets([KafkaPartition(*claim.topic_partition) for claim in claims])
        except (KafkaError, TimeoutError) as error:
            raise self._clients.unavailable(error, "list the ends of partitions") from error
        return {claim: ends[KafkaPartition(*claim.topic_partition)] for claim in claims}

    async def writable(self) -> bool:
        return await self._writer.writable()

    def complaints(self) -> Sequence[str]:
        return self._lookout.complaints

    def stopped(self) -> Collection[TopicPartition]:
        return [claim.topic_partition for claim in self._member.stopped]

    async def _locate(self, partitions: Collection[KafkaPartition]) -> Beginnings:
        if self._admin is None or self._asker is None:
            raise LogUnavailable("the event log is not open")
        if any(each.partition >= self._topics[each.topic].partitions for each in partitions):
            self._take_topics(await self._topics_of(self._admin).verified())
        return await self._locator.locate(self._admin, self._asker, partitions)


async def _first_within(
    consumer: AIOKafkaConsumer, partition: KafkaPartition, start: int, window: float, limit: int
) -> int:
    """Return the offset of the first record before *start* that is within *window* and *limit*."""
    beginning: int = (await consumer.beginning_offsets([partition]))[partition]
    end = (await consumer.end_offsets([partition]))[partition]
    now = time.time() * 1_000
    async for records in read_between(consumer, {partition: (start, min(end, start + 1))}):
        now = records[0].timestamp
    since = {partition: max(0, int(now - window * 1_000))}
    found = (await consumer.offsets_for_times(since))[partition]
    first: int = start if found is None else found.offset
    return min(start, max(first, beginning, start - limit))
