"""A broker in memory: partitions, groups and their claims, and the faults that a test may ask for.

Hides which member has which claim: a change of members releases every claim and assigns all of them again, as an eager
Kafka group does. It waits with asyncio only, so that a loop with its own clock and schedule decides every order of events.
"""

from __future__ import annotations

import asyncio
import bisect
import contextlib
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from tests.fakes.memory_lease_queue import LeaseQueue

from usher.delivery import Headers, StoredRecord
from usher.eventlog.errors import LogUnavailable, TooLarge
from usher.eventlog.names import checkpoints_topic
from usher.eventlog.notes import GroupStart
from usher.eventlog.port import Claim, LogConfig, Owner, Position, TopicPartition

MAX_BYTES = 1_048_576


class GroupMember(Protocol):
    """What a broker needs of an event log that has joined a group: its owner, and the claims that it believes to have."""

    @property
    def config(self) -> LogConfig: ...
    @property
    def owner(self) -> Owner: ...
    @property
    def held(self) -> dict[TopicPartition, Claim]: ...


@dataclass(slots=True)
class Partition:
    """Records in offset order. *end* is the next offset: removed records count too."""

    records: list[StoredRecord] = field(default_factory=list)
    end: int = 0

    @property
    def first(self) -> int:
        return self.records[0].offset if self.records else self.end

    def since(self, offset: int, limit: int | None = None) -> Sequence[StoredRecord]:
        at = self.index(offset)
        return self.records[at : None if limit is None else at + limit]

    def index(self, offset: int) -> int:
        return bisect.bisect_left(self.records, offset, key=lambda record: record.offset)

    def compact(self) -> None:
        """Keep the last record of each key, tombstones too."""
        last = {record.key: record.offset for record in self.records}
        self.records = [record for record in self.records if last[record.key] == record.offset]


@dataclass(slots=True)
class Group:
    """A group: its members, its valid claims, and what it has committed."""

    name: str
    members: list[GroupMember] = field(default_factory=list)
    owned: dict[TopicPartition, Claim] = field(default_factory=dict)
    committed: dict[TopicPartition, Position] = field(default_factory=dict)
    topic_ids: dict[TopicPartition, str] = field(default_factory=dict)
    """The ids of the topics that the commits are of."""
    changed: bool = False
    assigning: asyncio.Task[None] | None = None
    lease: LeaseQueue = field(default_factory=LeaseQueue)


@dataclass(frozen=True, slots=True)
class _Fault:
    error: Exception
    lands_after: float | None


class MemoryBroker:
    """A broker that several `MemoryLog`s share. A topic exists from its first use, with *partitions* partitions.

    *clock* gives Unix seconds for the timestamps. Faults: `unavailable`, `fail_next`, `latency`, `lands_after_cancel`,
    `evict` and `readmit`, `compact`, `remake`, `stopped`.
    """

    def __init__(
        self, *, partitions: int = 1, clock: Callable[[], float] = time.time, max_bytes: int = MAX_BYTES
    ) -> None:
        self.partitions = partitions
        self.clock = clock
        self.max_bytes = max_bytes
        self.unavailable = False
        """Whether nothing can be read, and every write and commit raises `LogUnavailable`."""
        self.stopped: dict[TopicPartition, str] = {}
        """The partitions that stand still, each with the reason: nothing of them is read."""
        self.needs_restart = ""
        """Why only a new process could help."""
        self.uncommitted: dict[str, list[StoredRecord]] = {}
        """The records of a topic that an open transaction holds back."""
        self.latency: Callable[[], float] = lambda: 0.0
        """Gives for each write the seconds until it is acknowledged: writes that are under way together land in any order."""
        self.lands_after_cancel: Callable[[], float | None] = lambda: None
        """Gives the seconds after which a cancelled write lands all the same; None: never."""
        self._topics: dict[str, list[Partition]] = {}
        self._made: dict[str, int] = {}
        self._groups: dict[str, Group] = {}
        self._faults: list[_Fault] = []
        self._keyless = 0
        self._changed = asyncio.Event()

    # What is stored

    def topic(self, name: str) -> list[Partition]:
        return self._topics.setdefault(name, [Partition() for _ in range(self.partitions)])

    def topic_id(self, topic: str) -> str:
        """Return the id of a topic: another one each time that it is made."""
        return f"{topic}#{self._made.get(topic, 1)}"

    def partition(self, topic: str, partition: int) -> Partition:
        return self.topic(topic)[partition]

    def partition_of(self, key: bytes | None) -> int:
        """Return the partition of a key. Records without a key go to the partitions in turn."""
        if key is None:
            self._keyless += 1
            return self._keyless % self.partitions
        return zlib.crc32(key) % self.partitions

    async def write(
        self, topic_partition: TopicPartition, key: bytes | None, value: bytes | None, headers: Headers
    ) -> None:
        """Append one record, with the faults that the test asked for.

        Raises:
            TooLarge, LogUnavailable: and the errors that `fail_next` was given.
        """
        size = len(key or b"") + len(value or b"") + sum(len(name) + len(text) for name, text in headers)
        if size > self.max_bytes:
            raise TooLarge(f"a record for {topic_partition.topic} has {size:,} bytes: the limit is {self.max_bytes:,}")

        await self.attempt(lambda: self.put(topic_partition, key, value, headers))

    def put(
        self, topic_partition: TopicPartition, key: bytes | None, value: bytes | None, headers: Headers = ()
    ) -> StoredRecord:
        """Append one record at once, whatever faults there are: a write lands by this, and a test writes with it from outside."""
        log = self.partition(*topic_partition)
        now = int(self.clock() * 1000)
        record = StoredRecord(
            topic_partition.topic, topic_partition.partition, log.end, now, key, value, tuple(headers)
        )
        log.records.append(record)
        log.end += 1
        self.ring()
        return record

    async def attempt(self, land: Callable[[], object]) -> None:
        """Call *land*, which carries out a write: now, late, or never, as the faults say."""
        loop = asyncio.get_running_loop()
        fault = self._faults.pop(0) if self._faults else None
        try:
            await asyncio.sleep(self.latency())
        except asyncio.CancelledError:
            late = self.lands_after_cancel()
            if late is not None:
                loop.call_later(late, land)
            raise
        if fault is not None:
            if fault.lands_after is not None:
                loop.call_later(fault.lands_after, land)
            raise fault.error
        self.check()
        land()

    # Faults

    def check(self) -> None:
        """Raise where the broker is unavailable.

        Raises:
            LogUnavailable
        """
        if self.unavailable:
            raise LogUnavailable("the in-memory event log is unavailable, because the test says so")

    def fail_next(self, writes: int, error: Exception, *, lands_after: float | None = None) -> None:
        """Let the next *writes* (commits count) raise *error*. With *lands_after* they land all the same, so many seconds later."""
        self._faults += [_Fault(error, lands_after)] * writes

    def evict(self, member: GroupMember) -> None:
        """Take all claims of *member* away without a call to it: it still believes to have them, and still reads."""
        group = self.group(member.config.group)
        group.members.remove(member)
        group.lease.take_away(member)
        for topic_partition, claim in member.held.items():
            if group.owned.get(topic_partition) is claim:
                del group.owned[topic_partition]
        self._assign(group)

    async def readmit(self, member: GroupMember) -> None:
        """Let an evicted member know: its claims are released, and it joins again."""
        self.group(member.config.group).lease.end(member)
        await self._release(member)
        self.join(member)

    def compact(self, topic: str) -> None:
        """Compact a topic, as a broker does now and then: replaced records go, offsets stay."""
        for partition in self.topic(topic):
            partition.compact()

    def remake(self, topic: str) -> None:
        """Delete a source topic and create it again: its records are gone, and commits of groups are of another topic."""
        self._topics.pop(topic, None)
        self._made[topic] = self._made.get(topic, 1) + 1
        for group in self._groups.values():
            if any(topic in member.config.topics for member in group.members):
                self._assign(group)

    # Groups

    def group(self, name: str) -> Group:
        return self._groups.setdefault(name, Group(name))

    def note_start(self, group: str, topic_partition: TopicPartition, offset: int) -> None:
        """Note where a group begins to read a partition."""
        start = GroupStart(self.topic_id(topic_partition.topic), offset, int(self.clock() * 1000))
        self.put(TopicPartition(checkpoints_topic(group), 0), *start.record(topic_partition))

    def join(self, member: GroupMember) -> None:
        """Add *member* to its group. Its owner gets the claims soon."""
        group = self.group(member.config.group)
        group.members.append(member)
        self._assign(group)

    def leave(self, member: GroupMember) -> None:
        """Remove *member* from its group. Its claims end without a call."""
        group = self.group(member.config.group)
        if member in group.members:
            group.members.remove(member)
        group.lease.end(member)
        for topic_partition, claim in member.held.items():
            if group.owned.get(topic_partition) is claim:
                del group.owned[topic_partition]
        member.held.clear()
        self._assign(group)

    def _assign(self, group: Group) -> None:
        group.changed = True
        if group.assigning is None or group.assigning.done():
            group.assigning = asyncio.get_running_loop().create_task(self._rebalance(group))
            group.assigning.add_done_callback(lambda _: self.ring())  # where an owner has raised, its read raises that

    async def _rebalance(self, group: Group) -> None:
        while group.changed:
            group.changed = False
            await asyncio.gather(*(self._release(member) for member in list(group.members)))
            group.owned.clear()
            for member, claims in self._shares(group):
                if member not in group.members:  # it left while another one got its claims
                    continue
                for claim in claims:
                    group.owned[claim.topic_partition] = member.held[claim.topic_partition] = claim
                await member.owner.claimed(claims)
            self.ring()

    def _shares(self, group: Group) -> Iterator[tuple[GroupMember, list[Claim]]]:
        members = list(group.members)
        for turn, member in enumerate(members):
            mine = range(turn, self.partitions, len(members))
            yield (
                member,
                [self._claim(group, TopicPartition(topic, at)) for topic in member.config.topics for at in mine],
            )

    def _claim(self, group: Group, topic_partition: TopicPartition) -> Claim:
        id_ = self.topic_id(topic_partition.topic)
        if group.topic_ids.setdefault(topic_partition, id_) != id_:
            group.topic_ids[topic_partition] = id_
            group.committed[topic_partition] = Position(0)
            self.note_start(group.name, topic_partition, 0)
        at = group.committed[topic_partition]
        return Claim(*topic_partition, at.next, at.mark, id_, topic_partition.topic in self._made)

    async def _release(self, member: GroupMember) -> None:
        claims = list(member.held.values())
        if claims:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(member.config.drain):
                    if gone := [claim for claim in claims if claim.topic_id != self.topic_id(claim.topic)]:
                        await member.owner.remade(gone)
                    await member.owner.released(claims)
        member.held.clear()

    # Waiting

    def ring(self) -> None:
        """Wake all tasks that wait."""
        self._changed.set()
        self._changed = asyncio.Event()

    async def wait(self, seconds: float | None = None) -> None:
        """Wait until something has changed, or *seconds* have passed."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._changed.wait()
