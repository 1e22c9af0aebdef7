"""The event log of the simulation: slow, refusing, and with writes that land after their process has ended.

Hides when a write lands: in time, long after its process has lost the claim, or never.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import random
from collections.abc import AsyncGenerator, Callable, Collection, Coroutine, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from tests.fakes.memory_broker import Group, GroupMember, MemoryBroker
from tests.fakes.memory_log import MemoryLog
from tests.simulation.history import FOREVER, History, Tenure, Trouble, shortened
from tests.simulation.loop import PROCESS, Process, SimulatedLoop
from tests.simulation.plan import Family
from tests.simulation.receipts import Filed

from usher.delivery import Headers, Record, StoredRecord
from usher.delivery.headers import WRITER, Head
from usher.eventlog.errors import ClaimLost, LogUnavailable
from usher.eventlog.names import receipts_topic, retry_topic
from usher.eventlog.port import Batch, CaughtUp, Claim, LogConfig, Owner, Position, Sieves, TopicPartition, unsieved

TOPIC = "events"
GROUP = "usher"
RETRY_TOPIC = retry_topic(GROUP, TOPIC)
RECEIPTS_TOPIC = receipts_topic(GROUP)
RECOVERY = 2.5
"""Seconds after which a write that was refused has been tried again."""
_TIMEOUT = 5.0
_IDLE = 6
_WRITE: contextvars.ContextVar[str] = contextvars.ContextVar("write", default="")


@dataclass(eq=False)
class _Write:
    """A write under way. It gets no answer where it is *lost*, nor where it lands after *late* more seconds."""

    kind: str
    process: Process | None
    lost: bool = False
    late: float = 0.0


@dataclass(eq=False)
class Refusal:
    """Writes of *kinds* raise, the next *count* of them; each lands all the same *lands_after* seconds later, if not None."""

    kinds: Collection[str]
    count: float
    lands_after: float | None = None


class HostileBroker(MemoryBroker):
    """A broker whose writes take as long as *family* says, and are recorded in *history*."""

    def __init__(
        self,
        loop: SimulatedLoop,
        rng: random.Random,
        family: Family,
        history: History,
        filed: Filed,
        *,
        partitions: int,
        epoch: float,
    ) -> None:
        super().__init__(partitions=partitions, clock=lambda: epoch + loop.time())
        self.refusals: list[Refusal] = []
        self.slow: dict[str, float] = {}
        """Seconds that writes of a kind take for now."""
        self._loop = loop
        self._rng = rng
        self._family = family
        self._history = history
        self.filed = filed
        self._writes: dict[_Write, None] = {}
        self.latency = lambda: rng.choice(family.latencies)
        self.pause: Callable[[], float] = lambda: rng.random() * family.slowest

    @property
    def landing(self) -> bool:
        """Whether any write is still to land."""
        return bool(self._writes)

    def put(
        self, topic_partition: TopicPartition, key: bytes | None, value: bytes | None, headers: Headers = ()
    ) -> StoredRecord:
        record = super().put(topic_partition, key, value, headers)
        if topic_partition.topic == RETRY_TOPIC:
            self._history.retry[topic_partition.partition].append(record)
        elif topic_partition.topic == RECEIPTS_TOPIC:
            self.filed.landed(record)
        return record

    async def attempt(self, land: Callable[[], object]) -> None:
        """Carry out a write on its own: to cancel or to kill the task that waits for it need not end it."""
        write = _Write(_WRITE.get(), PROCESS.get())
        carried = self._loop.spawn(None, self._until_landed(write, self._carry(write, land)))
        try:
            await asyncio.shield(carried)
        except asyncio.CancelledError:
            self._orphan(write)
            raise

    async def _until_landed(self, write: _Write, carried: Coroutine[Any, Any, None]) -> None:
        self._writes[write] = None
        try:
            await carried
        finally:
            del self._writes[write]

    async def _carry(self, write: _Write, land: Callable[[], object]) -> None:
        await asyncio.sleep(self.slow.get(write.kind, self.latency()))
        refusal = next((refusal for refusal in self.refusals if write.kind in refusal.kinds), None)
        if refusal is not None:
            self._refuse(refusal, land)
        if write.late:
            self._land_anyway(write.late, land)
        if write.late or write.lost:
            await asyncio.sleep(_TIMEOUT)
            self._trouble(self._family.slowest + _TIMEOUT)
            raise LogUnavailable("no answer in time")
        self.check()
        land()

    def _refuse(self, refusal: Refusal, land: Callable[[], object]) -> None:
        refusal.count -= 1
        if refusal.count <= 0:
            self.refusals.remove(refusal)
        self._trouble(self._family.slowest)
        if refusal.lands_after is not None:
            self._land_anyway(refusal.lands_after, land)
        raise LogUnavailable("refused")

    def _trouble(self, since: float) -> None:
        self._history.troubles.append(Trouble(self.clock() - since, self.clock() + RECOVERY))

    def _land_anyway(self, seconds: float, land: Callable[[], object]) -> None:
        self._loop.spawn(None, self._until_landed(_Write("", None), self._land_later(seconds, land)))

    @staticmethod
    async def _land_later(seconds: float, land: Callable[[], object]) -> None:
        await asyncio.sleep(seconds)
        land()

    def strand(self, process: Process) -> None:
        """*process* was killed or frozen: what it was writing is lost, or lands in time, or long after."""
        for write in self._writes:
            if write.process is process:
                self._orphan(write)

    def _orphan(self, write: _Write) -> None:
        fate = self._rng.random()
        if write.kind == "commit":
            write.lost = fate < 0.5  # one connection: a late commit lands before the next owner takes over
        elif fate < 0.35:
            write.lost = True
        elif fate < 0.75:
            write.late = self._rng.random() * 40

    def _assign(self, group: Group) -> None:
        outside = contextvars.copy_context()  # a member that joins or leaves does not take the broker with it
        outside.run(PROCESS.set, None)
        outside.run(super()._assign, group)

    def _shares(self, group: Group) -> Iterator[tuple[GroupMember, list[Claim]]]:
        self._rng.shuffle(group.members)  # the last owner of a partition says nothing about the next one
        return super()._shares(group)

    def reassign(self) -> None:
        self._assign(self.group(GROUP))


class Bystander(Protocol):
    """What the event log of a process needs of the world."""

    history: History
    broker: HostileBroker
    loop: SimulatedLoop

    def now(self) -> float: ...
    def say(self, what: str) -> None: ...
    def look_into(self, process: Process) -> None: ...
    def hand_over(self, process: Process, claims: Sequence[Claim]) -> None: ...
    async def strike(self, moment: str, process: Process, log: HostileLog, *, landed: bool) -> None: ...


@dataclass(eq=False)
class WatchedOwner:
    """A worker seen from the broker: calls run in the worker's process, which may be frozen, and claims are recorded."""

    world: Bystander
    process: Process
    owner: Owner

    async def claimed(self, claims: Sequence[Claim]) -> None:
        world, history = self.world, self.world.history
        world.say(f"{self.process.name} gets {[claim.partition for claim in claims]}")
        for claim in claims:
            known = len(history.retry[claim.partition])
            tenure = Tenure(self.process.name, claim, world.now(), known, history.lives[self.process.name].stopping)
            history.tenures.append(tenure)
        await asyncio.wait([world.loop.spawn(self.process, self.owner.claimed(claims))], timeout=0.5)

    async def remade(self, claims: Sequence[Claim]) -> None:
        if self.process.dead:
            return
        if not self.process.frozen:
            self.world.hand_over(self.process, claims)
        await asyncio.wait([self.world.loop.spawn(self.process, self.owner.remade(claims))], timeout=0.5)

    async def released(self, claims: Sequence[Claim]) -> None:
        world = self.world
        world.say(f"{self.process.name} lets go of {[claim.partition for claim in claims]}")
        if self.process.dead:
            return
        tenures = [tenure for tenure in world.history.tenures if tenure.claim in claims]
        for tenure in tenures:
            tenure.asked_back = min(tenure.asked_back, world.now())
        try:
            await asyncio.shield(world.loop.spawn(self.process, self.owner.released(claims)))
        finally:
            for tenure in tenures:
                tenure.ended = min(tenure.ended, world.now())


class HostileLog(MemoryLog):
    """The event log of one process: each write is watched, and may be its last."""

    def __init__(self, world: Bystander, process: Process, drain: float) -> None:
        config = LogConfig(group=GROUP, topics=(TOPIC,), start_from="earliest", drain=drain)
        super().__init__(config, world.broker)
        self._world = world
        self._process = process
        self._begun: set[tuple[str, bytes | None, str]] = set()
        self._lost: dict[Claim, float] = {}
        """When a commit was answered that a claim is lost."""

    async def open(self, owner: Owner, sieves: Sieves = unsieved) -> None:
        await super().open(WatchedOwner(self._world, self._process, owner), sieves)

    async def close(self) -> None:
        now = self._world.now()
        for tenure in self._world.history.tenures:
            if self.held.get(tenure.claim.topic_partition) is tenure.claim:
                tenure.ended = min(tenure.ended, now)
        await super().close()

    async def read(self, claims: Collection[Claim], limit: int, wait: float) -> Sequence[Batch]:
        """Read with a longer wait: otherwise most steps of a schedule would be idle polls. Any event wakes it all the same."""
        self._world.look_into(self._process)
        return await super().read(claims, limit, wait * _IDLE)

    async def parked(self, claim: Claim) -> AsyncGenerator[Sequence[Record] | CaughtUp, None]:
        """Read with a pause once the end is known: what is written meanwhile lies after it."""
        pause = self._world.broker.pause()
        async with contextlib.aclosing(super().parked(claim)) as stream:
            async for part in stream:
                if not isinstance(part, CaughtUp):
                    await asyncio.sleep(pause)
                    pause = 0.0
                yield part

    async def park(self, claim: Claim, key: str, value: bytes, headers: Headers) -> None:
        self._still_ours(claim, "parks", headers, key)
        parking, about = self._world.history.parking, (claim, shortened(key))
        parking.add(about)
        try:
            await self._exposed("park", super().park(claim, key, value, headers))
        finally:
            parking.discard(about)

    async def unpark(self, claim: Claim, key: str, headers: Headers = ()) -> None:
        self._world.broker.filed.before_tombstone(key)
        await self._exposed("tombstone", super().unpark(claim, key, headers))

    async def bury(self, claim: Claim, key: bytes | None, value: bytes | None, headers: Headers) -> None:
        if value is not None:
            self._still_ours(claim, "buries", headers, str(key))
        await self._exposed("dead-letter", super().bury(claim, key, value, headers))

    async def file(self, claim: Claim, values: Sequence[bytes]) -> None:
        await self._exposed("receipts", super().file(claim, values))

    async def commit(self, positions: Mapping[Claim, Position]) -> None:
        for claim, position in positions.items():
            self._world.broker.filed.before_commit(claim, position)
        try:
            await self._exposed("commit", super().commit(positions))
        except ClaimLost as error:
            self._lost |= dict.fromkeys((claim for claim in positions if claim in error.claims), self._world.now())
            raise

    def _still_ours(self, claim: Claim, what: str, headers: Headers, key: str) -> None:
        """Check rule 9: no worker begins to write a failure once its claim has gone. A write that was begun may be tried again."""
        if self._world.now() > self._lost.get(claim, FOREVER):
            self._world.history.violate(
                f"late: {self._process.name} {what} {key} though it has heard that its claim is lost"
            )
        attempt = (what, Head(headers).get(WRITER), f"{key} {Head(headers).get('usher-attempt')!r}")
        now = self._world.now()
        aware = not self._world.history.lives[self._process.name].strayed(now - RECOVERY, now)
        if aware and attempt not in self._begun and self.held.get(claim.topic_partition) is not claim:
            self._world.history.violate(f"late: {self._process.name} {what} {key} when its claim has gone")
        self._begun.add(attempt)

    async def _exposed(self, kind: str, write: Coroutine[Any, Any, None]) -> None:
        _WRITE.set(kind)
        try:
            await self._world.strike(kind, self._process, self, landed=False)
            await write
        finally:
            write.close()
        await self._world.strike(kind, self._process, self, landed=True)
