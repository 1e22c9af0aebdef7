"""The EventLog on Kafka. Hides that it has several clients, and in which order they start and end."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Collection, Mapping, Sequence
from typing import Final

import structlog
from aiokafka import TopicPartition as KafkaPartition
from aiokafka.client import AIOKafkaClient
from aiokafka.errors import KafkaError

from usher import background
from usher.addresses import KafkaAddress
from usher.delivery import Headers, Record
from usher.delivery.headers import owner_headers
from usher.eventlog.errors import LogMisconfigured, LogUnavailable
from usher.eventlog.kafka.asking import Asking
from usher.eventlog.kafka.beginnings import Located, Locator
from usher.eventlog.kafka.client import Clients
from usher.eventlog.kafka.errors import brief
from usher.eventlog.kafka.known_topics import KnownTopics
from usher.eventlog.kafka.lease import Checkpoints
from usher.eventlog.kafka.lookout import Lookout
from usher.eventlog.kafka.member import Member
from usher.eventlog.kafka.offsets import first_within, known
from usher.eventlog.kafka.outage import Outages, client_of
from usher.eventlog.kafka.owners import strangers
from usher.eventlog.kafka.ranges import read_between, read_since
from usher.eventlog.kafka.start import Start
from usher.eventlog.kafka.table import TableReader
from usher.eventlog.kafka.topic import Topic
from usher.eventlog.kafka.topics import KafkaTopics, shared
from usher.eventlog.kafka.transactions import Holds
from usher.eventlog.kafka.writer import Writer
from usher.eventlog.names import dead_letter_topic, receipts_topic, retry_topic
from usher.eventlog.port import (
    Batch,
    CaughtUp,
    Claim,
    Lease,
    LogConfig,
    Owner,
    Position,
    Sieves,
    TopicPartition,
    unsieved,
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
        self._asking: Asking | None = None
        self._holds = Holds(self._clients)
        self._writer = Writer(self._clients)
        self._table = TableReader(self._clients)
        self._known_topics = KnownTopics(self._writer, config.group)
        self._locator = Locator(config.group, self._known_topics)
        self._member = Member(
            self._clients,
            config.group,
            config.topics,
            config.drain,
            locate=self._locate,
            settled=self._locator.settled,
        )
        self._lookout = Lookout(
            self._member, self._locator, self._known_topics, self._table, config=config, every=options.metadata_age
        )
        self._checkpoints = Checkpoints(self._clients, self._writer, config.group)
        self._history_slots = asyncio.Semaphore(_READERS)
        self._outages = Outages(self._clients, self._in_use, self._rebuild)
        self._watching: asyncio.Task[None] | None = None
        self._ending: set[asyncio.Task[None]] = set()

    async def open(self, owner: Owner, sieves: Sieves = unsieved) -> None:
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
        self._member.join(owner, sieves)
        self._watching = background.begin(self._outages.watch)

    async def _connect(self) -> None:
        """Start the clients. Where something fails, stop those that were started."""
        asking = await Asking.start(self._clients)
        topics = self._topics_of(asking)
        try:
            self._take_topics(await topics.verified())
            await self._refuse_strangers()
            sources = {name: self._topics[name] for name in self._config.topics}
            anew = await self._locator.made_anew(asking.reader, {name: topic.id for name, topic in sources.items()})
            start = Start(self._clients, asking.admin, self._config.group, self._config.start_from)
            counts = {name: topic.partitions for name, topic in sources.items()}
            self._locator.starts = await start.ensure(counts, anew)
        except BaseException:
            await asking.stop()
            raise
        self._asking = asking
        self._lookout.begin(asking, topics, self._take_topics, self._topics)

    def _asked(self) -> Asking:
        if self._asking is None:
            raise LogUnavailable("the event log is not open")
        return self._asking

    def _take_topics(self, topics: Mapping[str, Topic]) -> None:
        self._topics = topics
        self._writer.limit({name: topic.max_bytes for name, topic in topics.items()})

    async def _refuse_strangers(self) -> None:
        partitions = {name: topic.partitions for name, topic in self._topics.items()}
        found = await strangers(self._clients, self._config.group, self._config.topics, partitions)
        for name, owner in found.items():
            raise LogMisconfigured(shared(name, owner, self._config.group))

    def _topics_of(self, asking: Asking) -> KafkaTopics:
        return KafkaTopics(asking.admin, self._clients.servers, self._config)

    def _in_use(self) -> list[AIOKafkaClient]:
        """Return the clients that last: those that are made for one question find their brokers by themselves."""
        asking = self._asking
        mine = () if asking is None else (asking.admin, asking.reader, asking.measurer)
        lasting = (*mine, self._member.consumer, self._table.consumer, self._writer.producer)
        return [client_of(each) for each in lasting if each is not None]

    async def _rebuild(self) -> None:
        """Build all clients anew.

        Raises:
            KafkaError, TimeoutError
        """
        self._clients.generation += 1
        old, self._asking = self._asking, await Asking.start(self._clients)
        self._lookout.use(self._asking, self._topics_of(self._asking))
        if old is not None:
            ending = asyncio.create_task(old.stop())
            self._ending.add(ending)
            ending.add_done_callback(self._ending.discard)
        self._member.replace("its brokers are gone")
        self._table.replace()
        self._writer.replace()

    async def close(self) -> None:
        """As `EventLog.close`. Takes some seconds at most, even when Kafka is dead."""
        await self._lookout.end()
        if self._watching is not None:
            self._watching.cancel()
            await asyncio.gather(self._watching, return_exceptions=True)
        await asyncio.gather(self._member.leave(), self._table.close(), self._writer.close())
        asking, self._asking = self._asking, None
        if asking is not None:
            await asking.stop()
        await asyncio.gather(*self._ending)

    async def read(self, claims: Collection[Claim], limit: int, wait: float) -> Sequence[Batch]:
        return await self._member.read(claims, limit, wait)

    async def commit(self, positions: Mapping[Claim, Position]) -> None:
        await self._member.commit(positions)

    async def park(self, claim: Claim, key: str, value: bytes, headers: Headers) -> None:
        await self._write_own(
            retry_topic(self._config.group, claim.topic), key.encode(), value, headers, claim.partition
        )

    async def unpark(self, claim: Claim, key: str, headers: Headers = ()) -> None:
        await self._write_own(
            retry_topic(self._config.group, claim.topic), key.encode(), None, headers, claim.partition
        )

    async def bury(self, claim: Claim, key: bytes | None, value: bytes | None, headers: Headers) -> None:
        await self._write_own(dead_letter_topic(self._config.group, claim.topic), key, value, headers, claim.partition)

    async def file(self, claim: Claim, values: Sequence[bytes]) -> None:
        topic, headers = receipts_topic(self._config.group), owner_headers(self._config.group, "")
        partition = claim.partition % self._topics[topic].partitions
        written = (self._write_own(topic, None, value, headers, partition) for value in values)
        for outcome in await asyncio.gather(*written, return_exceptions=True):
            if outcome is not None:
                raise outcome

    async def address_key(self) -> bytes:
        """As `EventLog.address_key`.

        Raises:
            LogUnavailable
        """
        try:
            return await self._known_topics.address_key(self._asked().reader)
        except (KafkaError, TimeoutError) as error:
            raise self._clients.unavailable(error, "read the key of the addresses") from error

    async def _write_own(
        self, topic: str, key: bytes | None, value: bytes | None, headers: Headers, partition: int
    ) -> None:
        try:
            await self._writer.write(topic, key, value, headers, partition)
        except LogUnavailable:
            self._lookout.soon()  # the topic may be gone
            raise

    def parked(self, claim: Claim) -> AsyncGenerator[Sequence[Record] | CaughtUp, None]:
        return self._table.stream(KafkaPartition(retry_topic(self._config.group, claim.topic), claim.partition))

    async def history(self, claim: Claim, window: float, limit: int) -> AsyncIterator[Sequence[Record]]:
        """As `EventLog.history`.

        Raises:
            LogUnavailable
        """
        async with self._history_slots, self._clients.reading(f"the history of {claim.topic}") as consumer:
            partition = KafkaPartition(*claim.topic_partition)
            first = await first_within(consumer, partition, claim.start, window, limit)
            async for records in read_between(consumer, {partition: (first, claim.start)}):
                yield records

    async def append(self, topic: str, key: bytes | None, value: bytes, headers: Headers = ()) -> TopicPartition:
        return await self._writer.write(topic, key, value, headers)

    def lease(self) -> contextlib.AbstractAsyncContextManager[Lease]:
        self._asked()
        return self._checkpoints.lease()

    async def since(self, topic: str, moment: float) -> AsyncIterator[Sequence[Record]]:
        """As `EventLog.since`.

        Raises:
            LogUnavailable
        """
        async with self._clients.reading(topic) as consumer:
            partitions = [KafkaPartition(topic, number) for number in range(self._topics[topic].partitions)]
            async for records in read_since(consumer, partitions, moment):
                yield records

    async def ends(self, claims: Collection[Claim]) -> Mapping[Claim, int]:
        """As `EventLog.ends`. Says which partitions an open transaction holds.

        Raises:
            LogUnavailable
        """
        if not claims:
            return {}
        asking = self._asked()
        partitions = {KafkaPartition(*claim.topic_partition): claim for claim in claims}
        try:
            ends = await known(asking.measurer.end_offsets, partitions)
            await self._holds.look(asking.reader, self._member.polling.read_to, ends)
        except (KafkaError, TimeoutError) as error:
            raise self._clients.unavailable(error, "list the ends of partitions") from error
        return {partitions[each]: end for each, end in ends.items()}

    async def writable(self) -> bool:
        return await self._writer.writable()

    def complaints(self) -> Sequence[str]:
        return self._lookout.complaints

    def stopped(self) -> Mapping[TopicPartition, str]:
        return {**self._member.stopped(), **self._table.stopped()}

    def needs_restart(self) -> str:
        return self._outages.needs_restart()

    async def _locate(self, partitions: Collection[KafkaPartition]) -> Located:
        """Return where each partition begins. One for which a topic of ours has too few partitions stands still."""
        asking = self._asked()
        topics = self._topics_of(asking)
        if any(topics.narrow(self._topics, *each) for each in partitions):
            self._take_topics(await topics.verified())
        narrow = {each: why for each in partitions if (why := topics.narrow(self._topics, *each))}
        wide = [each for each in partitions if each not in narrow]
        beginnings, stopped = await self._locator.locate(asking.admin, asking.reader, wide)
        return Located(beginnings, {**stopped, **narrow})
