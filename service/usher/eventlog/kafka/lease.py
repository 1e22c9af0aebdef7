"""The lease of a group on Kafka. Hides that it is the assignment of the checkpoints' partition, in a consumer group of its own.

The lease ends by our own clock. The broker could only say that it has ended, and a frozen worker would read that too late.
Each commit renews the lease, because the broker takes a commit from the owner of the partition only. The lease is no longer
than the session, after which the broker gives the partition to another worker. During a rebalance no worker gets the
partition, so the lease stays valid until the rebalance is over.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Collection
from typing import Final

import structlog
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.abc import ConsumerRebalanceListener
from aiokafka.errors import CommitFailedError, ConsumerStoppedError, IllegalStateError, KafkaError

from usher import background
from usher.delivery.headers import ORIGINAL_GROUP
from usher.eventlog.errors import LogUnavailable
from usher.eventlog.kafka.client import Clients, stop
from usher.eventlog.kafka.errors import brief
from usher.eventlog.kafka.lease_assignor import lease_assignor
from usher.eventlog.kafka.ranges import read_between
from usher.eventlog.kafka.writer import Writer
from usher.eventlog.lease import HeldLease, fold_checkpoints
from usher.eventlog.names import checkpoints_topic
from usher.eventlog.port import Lease

_logger = structlog.get_logger(__name__)
_UNOWNED: Final = TopicPartition("unowned", 0)
_BEATS: Final = 4
"""How often a lease is renewed before it would end."""
_PAUSE: Final = 1.0
_SHORTLY: Final = 0.1
_FAILURES: Final = (KafkaError, ConsumerStoppedError, IllegalStateError, TimeoutError)


class Checkpoints:
    """The topic of checkpoints of a group, and the lease on it."""

    def __init__(self, clients: Clients, writer: Writer, group: str) -> None:
        self._clients = clients
        self._writer = writer
        self._partition = TopicPartition(checkpoints_topic(group), 0)
        self._group, self._headers = group, [(ORIGINAL_GROUP, group.encode())]

    @contextlib.asynccontextmanager
    async def lease(self) -> AsyncIterator[Lease]:
        """As `EventLog.lease`."""
        while True:
            candidate = _Candidate(self._clients, self._partition)
            try:
                if held := await self._won(candidate):
                    yield held
                    return
            finally:
                await candidate.leave()
            await asyncio.sleep(_PAUSE)

    async def _won(self, candidate: _Candidate) -> HeldLease | None:
        """Return the lease once *candidate* has it; None where it must be tried again."""
        topic = self._partition.topic

        async def write(name: str, checkpoint: bytes) -> None:
            if await candidate.settled():
                await self._writer.write(topic, name.encode(), checkpoint, self._headers, 0)

        try:
            await candidate.win()
            held = HeldLease(await self._folded(), write)
        except (*_FAILURES, LogUnavailable) as error:
            _logger.warning("lease not available yet", topic=topic, error=brief(error))
            return None
        if not candidate.begin(held):
            return None
        _logger.info("lease begins", topic=topic)
        return held

    async def _folded(self) -> dict[str, bytes]:
        """Read the last checkpoint of each name."""
        consumer, checkpoints = self._clients.reader(), dict[str, bytes]()
        try:
            await consumer.start()
            first = await consumer.beginning_offsets([self._partition])
            ends = await consumer.end_offsets([self._partition])
            bounds = {self._partition: (first[self._partition], ends[self._partition])}
            async for records in read_between(consumer, bounds):
                fold_checkpoints(records, self._group, checkpoints)
        finally:
            await stop(consumer)
        return checkpoints


class _Candidate(ConsumerRebalanceListener):
    """One consumer that wants the lease: it waits for it, has it, and ends."""

    def __init__(self, clients: Clients, partition: TopicPartition) -> None:
        self._clients = clients
        self._generation = clients.generation
        self._partition = partition
        self._held: HeldLease | None = None
        self._assigned = asyncio.Event()
        self._over = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._until = 0.0
        self._lease: asyncio.TimerHandle | None = None
        self._beat = clients.session / _BEATS
        self._watching: asyncio.Task[None] | None = None
        # The group goes on without a member that does not rejoin within the session: by then its lease has ended.
        assignor = lease_assignor(lambda: self._until > self._loop.time())
        self._consumer: AIOKafkaConsumer = clients.member(partition.topic, clients.session, assignor)

    async def win(self) -> None:
        """Wait until the partition is ours, and the lease has begun.

        Raises:
            KafkaError, ConsumerStoppedError, TimeoutError: try again with another consumer.
        """
        self._consumer.subscribe([self._partition.topic], listener=self)
        await self._consumer.start()
        while not self._until:
            if self._generation != self._clients.generation:
                raise LogUnavailable("the clients are built anew")
            await self._consumer.getmany(_UNOWNED, timeout_ms=0)  # raises where the membership has failed for good
            await _any_of(self._beat, self._assigned)
            try:
                if self._assigned.is_set():
                    await self._renew()
            except (CommitFailedError, IllegalStateError):  # others have joined meanwhile: there is a rebalance
                await asyncio.sleep(_SHORTLY)
        self._watching = background.begin(self._watch)

    def begin(self, held: HeldLease) -> bool:
        """Let *held* end when the lease ends. False where it has ended already."""
        self._held = held
        return not self._has_ended()

    async def settled(self) -> bool:
        """Wait for the end of a rebalance, if there is one. Return whether the lease is ours then."""
        while not self._has_ended():
            if self._assigned.is_set():
                return True
            await _any_of(None, self._assigned, self._over)
        return False

    async def leave(self) -> None:
        """End the lease, and let another worker have it. Takes a limited time."""
        self._end()
        if self._watching is None:
            await stop(self._consumer)
        else:
            await asyncio.shield(self._watching)

    async def on_partitions_revoked(self, revoked: Collection[TopicPartition]) -> None:  # noqa: ARG002
        """Remember that a rebalance begins: nothing is decided yet."""
        self._assigned.clear()

    async def on_partitions_assigned(self, assigned: Collection[TopicPartition]) -> None:
        if self._partition in assigned:
            self._consumer.pause(self._partition)  # it is owned, not read
            self._assigned.set()
        elif self._until:
            self._lose("another worker has it")

    async def _watch(self) -> None:
        """Renew the lease in time. When it ends, leave the group, whatever its user is doing."""
        while not self._over.is_set():
            await _any_of(self._beat, self._over)
            if self._assigned.is_set() and not self._has_ended():
                with contextlib.suppress(*_FAILURES):  # if the failure lasts, the lease ends
                    await self._renew()
        await stop(self._consumer)

    async def _renew(self) -> None:
        asked = self._loop.time()
        async with asyncio.timeout(self._beat):
            await self._consumer.getmany(_UNOWNED, timeout_ms=0)  # a member that does not poll is put out of the group
            await self._consumer.commit({self._partition: (0, "")})
        if self._over.is_set() or not self._assigned.is_set():
            return
        self._until = asked + self._clients.session
        if self._lease is not None:
            self._lease.cancel()
        self._lease = self._loop.call_at(self._until, self._has_ended)

    def _has_ended(self) -> bool:
        """Return whether the lease has ended. It looks at the clock itself: the loop may have stood still."""
        if not self._over.is_set() and self._loop.time() >= self._until:
            self._lose("Kafka did not confirm it in time")
        return self._over.is_set()

    def _lose(self, reason: str) -> None:
        if not self._over.is_set():
            _logger.warning("lease lost", topic=self._partition.topic, reason=reason)
            self._end()

    def _end(self) -> None:
        self._over.set()
        self._until = 0.0
        if self._lease is not None:
            self._lease.cancel()
        if self._held is not None:
            self._held.end()


async def _any_of(seconds: float | None, *events: asyncio.Event) -> None:
    """Wait until one of *events* is set, or *seconds* have passed."""
    waiting = [asyncio.ensure_future(event.wait()) for event in events]
    try:
        await asyncio.wait(waiting, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in waiting:
            task.cancel()
