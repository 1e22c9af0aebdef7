"""What the EventLog contract needs of each kind of log: fresh topics, workers that record their claims, a browser.

A kind of log is a `Harness`. It starts with empty topics and a group that has committed nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Collection, Sequence
from pathlib import Path

from tests.kafka import Broker, unique

from usher.delivery import Record
from usher.eventlog.browse import Browser
from usher.eventlog.names import dead_letter_topic, retry_topic
from usher.eventlog.port import CAUGHT_UP, CaughtUp, Claim, EventLog, LogConfig, Sieves, TopicPartition, unsieved
from usher.kafka_options import NO_OPTIONS

PATIENCE = 30.0
"""Seconds that a condition may take to come true: reached only by a test that fails."""

Journal = list[tuple[str, str, TopicPartition]]
"""(worker, ``claimed`` or ``released``, topic partition), in the order of the calls."""


class Worker:
    """A log with its owner: records the claims, and reads as the engine does."""

    def __init__(self, log: EventLog, name: str, journal: Journal) -> None:
        self.log = log
        self.held: dict[TopicPartition, Claim] = {}
        self.ended: list[Claim] = []
        self.on_release: Callable[[Sequence[Claim]], Awaitable[None]] | None = None
        self._name = name
        self._journal = journal

    async def claimed(self, claims: Sequence[Claim]) -> None:
        for claim in claims:
            self._journal.append((self._name, "claimed", claim.topic_partition))
            self.held[claim.topic_partition] = claim

    async def remade(self, claims: Sequence[Claim]) -> None:
        """Nothing is handed over."""

    async def released(self, claims: Sequence[Claim]) -> None:
        if self.on_release is not None:
            await self.on_release(claims)
        for claim in claims:
            self._journal.append((self._name, "released", claim.topic_partition))
            self.ended.append(claim)
            self.held.pop(claim.topic_partition, None)

    @property
    def claims(self) -> list[Claim]:
        return [self.held[topic_partition] for topic_partition in sorted(self.held)]

    async def until(self, condition: Callable[[], bool]) -> None:
        """Keep the membership alive, reading nothing, until *condition* holds."""
        async with asyncio.timeout(PATIENCE):
            while not condition():
                await self.log.read((), 1, 0.05)

    async def take(self, count: int, claims: Collection[Claim] | None = None, limit: int = 100) -> list[Record]:
        """Read until *count* records have come: of *claims*, or of all."""
        records: list[Record] = []
        async with asyncio.timeout(PATIENCE):
            while len(records) < count:
                for batch in await self.log.read(self.claims if claims is None else claims, limit, 1.0):
                    records += batch.records
        return records


class Harness(ABC):
    """One kind of log. *partitions* and *shares* (several workers in one group) say what it can do.

    *start_from* is where its group starts.
    """

    partitions: int = 3
    shares: bool = True
    start_from: str = "earliest"

    def __init__(self) -> None:
        self.group = f"usher-{uuid.uuid4().hex[:8]}"
        self.topic = "identity.events"
        self.journal: Journal = []
        self._opened: list[Worker] = []

    @property
    def retry_topic(self) -> str:
        return retry_topic(self.group, self.topic)

    @property
    def dead_letter_topic(self) -> str:
        return dead_letter_topic(self.group, self.topic)

    @property
    def config(self) -> LogConfig:
        return LogConfig(group=self.group, topics=(self.topic,), start_from=self.start_from, drain=10.0)

    @abstractmethod
    async def create(self) -> None:
        """Create the empty source topic with `partitions` partitions."""

    @abstractmethod
    def log(self) -> EventLog:
        """A log that is not open yet; each is a worker of its own, all of one group."""

    @abstractmethod
    def browser(self) -> Browser:
        """A browser of the same log."""

    @abstractmethod
    async def pass_time(self, seconds: float) -> None:
        """Let the clock that stamps the records advance."""

    async def worker(self, name: str = "first", *, claims: int | None = None, sieves: Sieves = unsieved) -> Worker:
        """Open an event log and wait until it has *claims* claims (by default all partitions)."""
        worker = Worker(self.log(), name, self.journal)
        self._opened.append(worker)
        await worker.log.open(worker, sieves)
        wanted = self.partitions if claims is None else claims
        await worker.until(lambda: len(worker.held) >= wanted)
        return worker

    async def close(self) -> None:
        """Close every worker that was opened."""
        for worker in self._opened:
            await worker.log.close()


class MemoryHarness(Harness):
    def __init__(self) -> None:
        super().__init__()
        from tests.fakes.memory_log import MemoryBroker

        self._now = 1_700_000_000.0
        self.broker = MemoryBroker(partitions=self.partitions, clock=lambda: self._now)

    async def create(self) -> None:
        """Its topics are there from the first use."""

    def log(self) -> EventLog:
        from tests.fakes.memory_log import MemoryLog

        return MemoryLog(self.config, broker=self.broker)

    def browser(self) -> Browser:
        from tests.fakes.memory_log import MemoryBrowser

        return MemoryBrowser(self.config, broker=self.broker)

    async def pass_time(self, seconds: float) -> None:
        self._now += seconds


class SqliteHarness(Harness):
    partitions = 1
    shares = False

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._path = path
        self._now = 1_700_000_000.0

    async def create(self) -> None:
        """Its topics are there from the first use."""

    def log(self) -> EventLog:
        from usher.eventlog.sqlite import SqliteLog

        return SqliteLog(self._path, self.config, clock=lambda: self._now)

    def browser(self) -> Browser:
        from usher.eventlog.sqlite import SqliteBrowser

        return SqliteBrowser(self._path, self.config, create=True, clock=lambda: self._now)

    async def pass_time(self, seconds: float) -> None:
        self._now += seconds


class KafkaHarness(Harness):
    options = NO_OPTIONS

    def __init__(self, broker: Broker) -> None:
        super().__init__()
        self.topic = unique("identity.events")
        self.broker = broker

    async def create(self) -> None:
        await self.broker.create_topic(self.topic, self.partitions)

    def log(self) -> EventLog:
        from usher.eventlog.kafka import KafkaLog

        return KafkaLog(self.broker.address, self.config, self.options)

    def browser(self) -> Browser:
        from usher.eventlog.kafka import KafkaBrowser

        return KafkaBrowser(self.broker.address, self.config, self.options)

    async def pass_time(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


Parked = AsyncIterator[Sequence[Record] | CaughtUp]


def parked(worker: Worker, claim: Claim) -> contextlib.aclosing[AsyncGenerator[Sequence[Record] | CaughtUp, None]]:
    """The stream of the claim's retry partition, closed at the end."""
    return contextlib.aclosing(worker.log.parked(claim))


async def loaded(stream: Parked) -> list[Record]:
    """All that the stream brings before it says that it has caught up."""
    records: list[Record] = []
    async with asyncio.timeout(PATIENCE):
        async for batch in stream:
            if isinstance(batch, CaughtUp):
                assert batch is CAUGHT_UP
                return records
            records += batch
    raise AssertionError("the stream ended without having caught up")


async def following(stream: Parked, count: int) -> list[Record]:
    """The next *count* records of a stream that has caught up."""
    records: list[Record] = []
    async with asyncio.timeout(PATIENCE):
        while len(records) < count:
            batch = await anext(stream)
            assert not isinstance(batch, CaughtUp), "caught up is said once"
            records += batch
    return records


async def drained(stream: AsyncIterator[Sequence[Record]]) -> list[Record]:
    """All records of a stream that ends."""
    async with asyncio.timeout(PATIENCE):
        return [record async for batch in stream for record in batch]
