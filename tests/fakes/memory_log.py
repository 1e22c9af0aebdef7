"""The EventLog port in memory: several partitions, several workers of a group, and a broker that fails where a test asks for it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager

from tests.fakes.memory_broker import MemoryBroker
from tests.fakes.memory_lease import memory_lease

from usher.delivery import Headers, Record, stated_time
from usher.eventlog.browse import Committed, ReceiptsState, TopicState
from usher.eventlog.errors import ClaimLost, LogError
from usher.eventlog.names import checkpoints_topic, dead_letter_topic, receipts_topic, retry_topic
from usher.eventlog.notes import GroupStart, Notes, new_key
from usher.eventlog.port import (
    CAUGHT_UP,
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

__all__ = ["MemoryBroker", "MemoryBrowser", "MemoryLog"]


class MemoryLog:
    """An `EventLog` on a `MemoryBroker`: one worker of its group. Event logs on one broker share what is stored.

    Without a *broker* it makes its own, with *partitions* partitions: see `broker`.
    """

    def __init__(self, config: LogConfig, broker: MemoryBroker | None = None, *, partitions: int = 1) -> None:
        self.config = config
        self.broker = broker or MemoryBroker(partitions=partitions)
        self.held: dict[TopicPartition, Claim] = {}
        self._owner: Owner | None = None
        self._positions: dict[Claim, int] = {}
        self._sieves: Sieves = unsieved
        self._turn = 0

    @property
    def owner(self) -> Owner:
        if self._owner is None:
            raise LogError("the event log is not open")
        return self._owner

    async def open(self, owner: Owner, sieves: Sieves = unsieved) -> None:
        """As the port says.

        Raises:
            LogUnavailable: the broker is.
        """
        self.broker.check()
        self._owner = owner
        self._sieves = sieves
        committed = self.broker.group(self.config.group).committed
        for topic in self.config.topics:
            for partition in range(self.broker.partitions):
                if (each := TopicPartition(topic, partition)) not in committed:
                    committed[each] = Position(self._start(topic, partition))
                    self.broker.note_start(self.config.group, each, committed[each].next)
        self.broker.join(self)

    async def close(self) -> None:
        if self._owner is not None:
            self._owner = None
            self.broker.leave(self)

    async def read(self, claims: Collection[Claim], limit: int, wait: float) -> Sequence[Batch]:
        clock = asyncio.get_running_loop().time
        deadline = clock() + wait
        await asyncio.sleep(0)
        while True:
            self._raise_error_of_owner()
            if batches := self._fetch(claims, limit):
                return batches
            if (left := deadline - clock()) <= 0:
                return ()
            await self.broker.wait(left)

    async def commit(self, positions: Mapping[Claim, Position]) -> None:
        group = self.broker.group(self.config.group)

        def land() -> None:
            lost = [claim for claim in positions if group.owned.get(claim.topic_partition) is not claim]
            for claim in lost:
                raise ClaimLost(f"this worker has no claim on {claim.topic}/{claim.partition} any more", lost)
            group.committed.update({claim.topic_partition: position for claim, position in positions.items()})

        await self.broker.attempt(land)

    async def park(self, claim: Claim, key: str, value: bytes, headers: Headers) -> None:
        await self.broker.write(self._retry(claim), key.encode(), value, headers)

    async def unpark(self, claim: Claim, key: str, headers: Headers = ()) -> None:
        await self.broker.write(self._retry(claim), key.encode(), None, headers)

    async def bury(self, claim: Claim, key: bytes | None, value: bytes | None, headers: Headers) -> None:
        topic_partition = TopicPartition(dead_letter_topic(self.config.group, claim.topic), claim.partition)
        await self.broker.write(topic_partition, key, value, headers)

    async def file(self, claim: Claim, values: Sequence[bytes]) -> None:
        topic_partition = TopicPartition(receipts_topic(self.config.group), claim.partition)
        await asyncio.gather(*(self.broker.write(topic_partition, None, value, ()) for value in values))

    async def address_key(self) -> bytes:
        notes = _notes(self.broker, self.config.group)
        if notes.address_key is None:
            await self.broker.write(_notes_partition(self.config.group), *new_key(), ())
            return await self.address_key()  # of several that were written the first one counts
        return notes.address_key

    async def parked(self, claim: Claim) -> AsyncGenerator[Sequence[Record] | CaughtUp, None]:
        partition = self.broker.partition(*self._retry(claim))
        end, position, caught_up = partition.end, 0, False
        while True:
            records = [] if self.broker.unavailable else partition.since(position)
            before = [record for record in records if record.offset < end]
            if before and not caught_up:
                position = before[-1].offset + 1
                yield before
            elif not caught_up and not self.broker.unavailable:
                caught_up, position = True, max(position, end)
                yield CAUGHT_UP
            elif records:
                position = records[-1].offset + 1
                yield records
            else:
                await self.broker.wait()

    async def history(self, claim: Claim, window: float, limit: int) -> AsyncIterator[Sequence[Record]]:
        """As the port says.

        Raises:
            LogUnavailable: the broker is.
        """
        self.broker.check()
        partition = self.broker.partition(*claim.topic_partition)
        at = partition.index(claim.start)
        following = partition.records[at : at + 1]
        now = int(self.broker.clock() * 1000)
        until = min(now, stated_time(following[0].timestamp, now)) if following else now
        before = partition.records[max(0, at - limit) : at]
        if young := [record for record in before if stated_time(record.timestamp, now) > until - window * 1000]:
            yield young

    async def append(self, topic: str, key: bytes | None, value: bytes, headers: Headers = ()) -> TopicPartition:
        topic_partition = TopicPartition(topic, self.broker.partition_of(key))
        await self.broker.write(topic_partition, key, value, headers)
        return topic_partition

    def lease(self) -> AbstractAsyncContextManager[Lease]:
        return memory_lease(self.broker, self)

    async def since(self, topic: str, moment: float) -> AsyncIterator[Sequence[Record]]:
        """As the port says.

        Raises:
            LogUnavailable: the broker is.
        """
        self.broker.check()
        stamp = round(moment * 1000)
        for log in self.broker.topic(topic):
            if later := [record for record in log.records if record.timestamp >= stamp]:
                yield later

    async def ends(self, claims: Collection[Claim]) -> Mapping[Claim, int]:
        """As the port says.

        Raises:
            LogUnavailable: the broker is.
        """
        self.broker.check()
        return {claim: self.broker.partition(*claim.topic_partition).end for claim in claims}

    def complaints(self) -> Sequence[str]:
        return ()

    async def writable(self) -> bool:
        return self._owner is not None and not self.broker.unavailable

    def stopped(self) -> Mapping[TopicPartition, str]:
        return {each: why for each, why in self.broker.stopped.items() if each in self.held}

    def needs_restart(self) -> str:
        return self.broker.needs_restart

    def _start(self, topic: str, partition: int) -> int:
        log, start = self.broker.partition(topic, partition), self.config.start_from
        if isinstance(start, str):
            return log.end if start == "latest" else log.first
        return next((record.offset for record in log.records if record.timestamp >= start * 1000), log.end)

    def _fetch(self, claims: Collection[Claim], limit: int) -> Sequence[Batch]:
        mine = [
            claim
            for claim in claims
            if self.held.get(claim.topic_partition) is claim
            and claim.topic_id == self.broker.topic_id(claim.topic)
            and claim.topic_partition not in self.broker.stopped
        ]
        if self.broker.unavailable or not mine:
            return ()
        self._positions = {claim: self._positions.get(claim, claim.start) for claim in self.held.values()}
        self._turn += 1
        batches = []
        for claim in (*mine[self._turn % len(mine) :], *mine[: self._turn % len(mine)]):
            records = self.broker.partition(*claim.topic_partition).since(self._positions[claim], limit)
            if records:
                limit -= len(records)
                self._positions[claim] = records[-1].offset + 1
                batches.append(self._sifted(claim, records))
        return batches

    def _sifted(self, claim: Claim, records: Sequence[Record]) -> Batch:
        may_be_ours, kept, before = self._sieves(claim.topic), list[Record](), list[int]()
        for index, record in enumerate(records):
            if may_be_ours(record.value, record.headers):
                before.append(index - len(kept))
                kept.append(record)
        return Batch(claim, kept, records[-1].offset + 1, len(records) - len(kept), before)

    def _raise_error_of_owner(self) -> None:
        assigning = self.broker.group(self.config.group).assigning
        if assigning is not None and assigning.done():
            assigning.result()

    def _retry(self, claim: Claim) -> TopicPartition:
        return TopicPartition(retry_topic(self.config.group, claim.topic), claim.partition)


def _notes_partition(group: str) -> TopicPartition:
    return TopicPartition(checkpoints_topic(group), 0)


def _notes(broker: MemoryBroker, group: str) -> Notes:
    broker.check()
    notes = Notes(group)
    notes.take(broker.partition(*_notes_partition(group)).records)
    return notes


class MemoryBrowser:
    """A `Browser` on a `MemoryBroker`."""

    def __init__(self, config: LogConfig, broker: MemoryBroker) -> None:
        self.config = config
        self.broker = broker

    async def __aenter__(self) -> MemoryBrowser:
        return self

    async def __aexit__(self, *exc: object) -> None: ...

    async def topics(self) -> Sequence[TopicState]:
        self.broker.check()
        group, count = self.config.group, self.broker.partitions
        states = [
            state
            for topic in self.config.topics
            for state in (
                TopicState(topic, "source", count, False, True),
                TopicState(retry_topic(group, topic), "retry", count, True, True),
                TopicState(dead_letter_topic(group, topic), "dlt", count, False, True),
            )
        ]
        if self.config.receipts:
            states.append(TopicState(receipts_topic(group), "receipts", count, False, True))
        return states

    async def existing(self) -> Collection[str]:
        return {state.topic for state in await self.topics()}

    async def receipts_state(self) -> ReceiptsState:
        self.broker.check()
        topic = receipts_topic(self.config.group)
        partitions = {number: (log.first, log.end) for number, log in enumerate(self.broker.topic(topic))}
        return ReceiptsState(self.broker.topic_id(topic), partitions)

    async def receipts(self, positions: Mapping[int, int]) -> AsyncIterator[Sequence[Record]]:
        self.broker.check()
        logs = enumerate(self.broker.topic(receipts_topic(self.config.group)))
        for records in [log.since(positions.get(number, 0)) for number, log in logs]:
            if records:
                yield records

    async def starts(self) -> Mapping[TopicPartition, GroupStart]:
        return _notes(self.broker, self.config.group).starts

    async def address_key(self) -> bytes | None:
        return _notes(self.broker, self.config.group).address_key

    async def create_topics(self) -> Sequence[str]:
        return []

    async def committed(self, topic: str) -> Sequence[Committed]:
        self.broker.check()
        known = self.broker.group(self.config.group).committed
        entries = []
        for number, log in enumerate(self.broker.topic(topic)):
            position = known.get(TopicPartition(topic, number))
            next_ = None if position is None else position.next
            mark = "" if position is None else position.mark
            entries.append(Committed(TopicPartition(topic, number), next_, mark, log.first, log.end))
        return entries

    async def scan(
        self, topic: str, partition: int | None = None, *, first: Mapping[int, int] | None = None
    ) -> AsyncIterator[Sequence[Record]]:
        self.broker.check()
        wanted = [
            (number, log)
            for number, log in enumerate(self.broker.topic(topic))
            if partition in {None, number} and (first is None or number in first)
        ]
        for records in [list(log.since((first or {}).get(number, 0))) for number, log in wanted]:
            yield records

    async def offsets_since(self, topic: str, moment: float) -> Mapping[int, int]:
        return {
            number: next((each.offset for each in log.records if each.timestamp >= moment * 1000), log.end)
            for number, log in enumerate(self.broker.topic(topic))
        }

    async def records_at(self, places: Collection[tuple[TopicPartition, int]]) -> Sequence[Record]:
        self.broker.check()
        found = [(offset, self.broker.partition(*at).since(offset, 1)) for at, offset in places]
        return [each for offset, records in found for each in records if each.offset == offset]

    async def count(self, topic_partition: TopicPartition, first: int, end: int) -> int:
        return sum(first <= each.offset < end for each in self.broker.partition(*topic_partition).records)

    async def uncommitted(self, topic: str) -> AsyncIterator[Sequence[Record]]:
        for records in self.broker.uncommitted.get(topic, []):
            yield [records]

    async def append(
        self, topic: str, key: bytes | None, value: bytes | None, headers: Headers = (), partition: int | None = None
    ) -> TopicPartition:
        topic_partition = TopicPartition(topic, self.broker.partition_of(key) if partition is None else partition)
        await self.broker.write(topic_partition, key, value, headers)
        return topic_partition
