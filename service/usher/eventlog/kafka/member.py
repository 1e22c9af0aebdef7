"""The membership in the consumer group. Hides rebalances, the life of a claim, commits, and a consumer that must be replaced.

Its rules; without each of them records were lost, or the worker stood still:

* A partition is read only once its claim is announced: the consumer itself does not wait for the callback of the assignment.
* Records that were read for a claim that has ended are given back.
* There is one commit at a time, with a time limit, and none is under way when a partition goes.
* Nothing slow happens in the callback of an assignment: during it no heartbeat is sent.
* The consumer is polled for one partition a call: an error in one loses the records that the call read of others.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple

import structlog
from aiokafka import AIOKafkaConsumer
from aiokafka import TopicPartition as KafkaPartition
from aiokafka.abc import ConsumerRebalanceListener
from aiokafka.errors import (
    CommitFailedError,
    ConsumerStoppedError,
    CorruptRecordException,
    IllegalStateError,
    KafkaError,
    NoOffsetForPartitionError,
    OffsetOutOfRangeError,
    RecordTooLargeError,
    TopicAuthorizationFailedError,
    UnsupportedCodecError,
)

from usher.eventlog.errors import ClaimLost, LogError, LogUnavailable
from usher.eventlog.kafka.client import COMMIT_TIMEOUT, Clients, stop
from usher.eventlog.kafka.errors import brief
from usher.eventlog.port import Batch, Claim, Owner, Position, TopicPartition

_logger = structlog.get_logger(__name__)
_UNOWNED: Final = KafkaPartition("unowned", 0)
_REST: Final = 60.0
_CAREFUL: Final = 2.0
_PAUSE: Final = 1.0
_ONE_PARTITIONS: Final = (
    OffsetOutOfRangeError,
    NoOffsetForPartitionError,
    CorruptRecordException,
    UnsupportedCodecError,
    RecordTooLargeError,
    TopicAuthorizationFailedError,
)


class Beginning(NamedTuple):
    """Where a claim begins. Not *committed*: it must be committed before anything is read."""

    offset: int
    mark: str = ""
    committed: bool = True


Beginnings = Mapping[KafkaPartition, Beginning]
Locate = Callable[[Collection[KafkaPartition]], Awaitable[Beginnings]]


class Member:
    """One worker in the group, with one consumer after another."""

    def __init__(self, clients: Clients, group: str, topics: Sequence[str], drain: float, locate: Locate) -> None:
        self._clients = clients
        self._group = group
        self._topics = topics
        self._drain = drain
        self._locate = locate
        self._owner: Owner | None = None
        self._consumer: AIOKafkaConsumer | None = None
        self._epoch = object()
        self._assigned = False
        self._claims: dict[TopicPartition, Claim] = {}
        self._read_to: dict[Claim, int] = {}
        self._resting: dict[Claim, float] = {}
        self._suspected: dict[Claim, float] = {}
        self._careful_until = 0.0
        self._turn = 0
        self._commit_lock = asyncio.Lock()
        self._handover = asyncio.Lock()
        self._trouble = asyncio.Event()
        self._keeper: asyncio.Task[None] | None = None
        self._opening: set[asyncio.Task[None]] = set()
        self._closed = False

    def join(self, owner: Owner) -> None:
        """Begin to claim, in the background."""
        self._owner = owner
        self._keeper = asyncio.create_task(self._keep())

    async def leave(self) -> None:
        """End all claims without a call to their owner, and leave the group. Takes a limited time."""
        self._closed = True
        self._begin_epoch()
        await self._end_claims()
        for task in (*self._opening, self._keeper):
            if task is not None:
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await task

    async def read(self, claims: Collection[Claim], limit: int, wait: float) -> Sequence[Batch]:
        """As `EventLog.read`."""
        await asyncio.sleep(0)  # while there are always records, nothing below lets another task run
        consumer, epoch = self._consumer, self._epoch
        if consumer is None or not self._assigned or self._trouble.is_set():
            await asyncio.sleep(wait)
            return []
        live = {
            KafkaPartition(*claim.topic_partition): claim
            for claim in self._in_turn(claims)
            if self._may_read(consumer, claim)
        }
        try:
            first = await self._wait(consumer, live, wait)
            if self._epoch is not epoch or self._consumer is not consumer:
                self._give_back(consumer, first)
                return []
            return await self._collect(consumer, live, first, limit)
        except (KafkaError, ConsumerStoppedError) as error:
            self._fail(consumer, error)
            return []

    async def commit(self, positions: Mapping[Claim, Position]) -> None:
        """As `EventLog.commit`."""
        async with self._commit_lock:
            for claim in positions:
                if self._claims.get(claim.topic_partition) is not claim:
                    raise ClaimLost(f"this worker has no claim on {claim.topic}/{claim.partition} any more")
            if positions:
                await self._commit({KafkaPartition(*c.topic_partition): (p.next, p.mark) for c, p in positions.items()})

    async def _commit(self, offsets: Mapping[KafkaPartition, tuple[int, str]]) -> None:
        consumer = self._consumer
        if consumer is None:
            raise LogUnavailable("the consumer is being replaced")
        try:
            async with asyncio.timeout(COMMIT_TIMEOUT):
                await consumer.commit(dict(offsets))
        except (CommitFailedError, IllegalStateError) as error:
            raise ClaimLost(f"group {self._group} has given the partitions to others: {error}") from error
        except (KafkaError, TimeoutError) as error:
            raise self._clients.unavailable(error, "commit") from error

    # Reading

    def _in_turn(self, claims: Collection[Claim]) -> Iterable[Claim]:
        """Return the claims, beginning with another one each time: the first one gets most of the limit."""
        self._turn += 1
        ordered = list(claims)
        start = self._turn % len(ordered) if ordered else 0
        return ordered[start:] + ordered[:start]

    def _may_read(self, consumer: AIOKafkaConsumer, claim: Claim) -> bool:
        if self._claims.get(claim.topic_partition) is not claim:
            return False
        if (until := self._resting.get(claim)) is None:
            return True
        if until > _now():
            return False
        del self._resting[claim]
        with contextlib.suppress(IllegalStateError):
            consumer.seek(KafkaPartition(*claim.topic_partition), self._read_to[claim])
        return True

    async def _wait(
        self, consumer: AIOKafkaConsumer, live: Mapping[KafkaPartition, Claim], wait: float
    ) -> dict[KafkaPartition, list[Any]]:
        """Wait for a record: at most one is read, as soon as there is one."""
        if live and _now() < self._careful_until:
            await asyncio.sleep(min(wait, 0.05))
            return {}
        try:
            # Without a partition getmany() would read all of them. With one that has no owner it only keeps the membership alive.
            return await consumer.getmany(*(live or [_UNOWNED]), timeout_ms=int(wait * 1_000), max_records=1)
        except Exception as error:
            if not _is_one_partitions(error):
                raise
            # The error does not say which partition it is about: read them one by one for a while.
            self._careful_until = _now() + _CAREFUL
            return {}

    async def _collect(
        self,
        consumer: AIOKafkaConsumer,
        live: Mapping[KafkaPartition, Claim],
        first: Mapping[KafkaPartition, list[Any]],
        limit: int,
    ) -> list[Batch]:
        """Read the records that are there, without a wait: nothing here lets another task run, so no claim ends meanwhile."""
        batches: list[Batch] = []
        room = limit - len(first)
        for partition, claim in live.items():
            records = first.get(partition, [])
            position = await consumer.position(partition)
            if room > 0:
                try:
                    more = await consumer.getmany(partition, timeout_ms=0, max_records=self._at_most(claim, room))
                    position = await consumer.position(partition)
                except Exception as error:
                    if not _is_one_partitions(error):
                        raise
                    self._suspect(consumer, claim, error, position)
                    more = {}
                records = records + more.get(partition, []) if records else more.get(partition, [])
                room -= len(records)
            if position != self._read_to[claim]:
                self._read_to[claim] = position
                batches.append(Batch(claim, records, position))
        return batches

    def _give_back(self, consumer: AIOKafkaConsumer, read: Mapping[KafkaPartition, list[Any]]) -> None:
        """Give back records that came after the claims had changed: the next owner of the partition reads them again."""
        for partition, records in read.items():
            with contextlib.suppress(IllegalStateError):
                consumer.seek(partition, records[0].offset)

    def _at_most(self, claim: Claim, room: int) -> int:
        return 1 if self._suspected.get(claim, 0.0) > _now() else room

    def _suspect(self, consumer: AIOKafkaConsumer, claim: Claim, error: Exception, position: int) -> None:
        """Handle an error in one partition. It loses the good records before it: read these again, one by one, then rest."""
        if self._suspected.pop(claim, 0.0) > _now():
            self._rest(claim, error, position)
        else:
            self._suspected[claim] = _now() + _REST
            consumer.seek(KafkaPartition(*claim.topic_partition), position)

    def _rest(self, claim: Claim, error: Exception, position: int) -> None:
        self._resting[claim] = _now() + _REST
        _logger.error(
            "partition stopped",
            topic=claim.topic,
            partition=claim.partition,
            offset=position,
            error=type(error).__name__,
            hint=_hint(error, self._group, claim),
        )

    # Claims

    def _begin_epoch(self) -> None:
        self._epoch = object()
        self._assigned = False

    async def begin_claims(self, consumer: AIOKafkaConsumer, partitions: Collection[KafkaPartition]) -> None:
        """Begin the claims on *partitions*, which the group has assigned."""
        if consumer is not self._consumer:
            return
        self._epoch = object()
        self._assigned = True
        task = asyncio.create_task(self._open(consumer, self._epoch, partitions))
        self._opening.add(task)
        task.add_done_callback(self._opening.discard)

    async def _open(self, consumer: AIOKafkaConsumer, epoch: object, partitions: Collection[KafkaPartition]) -> None:
        """Announce the claims, once it is known where they begin."""
        while self._epoch is epoch:
            try:
                beginnings = await self._locate(partitions)
                if await self._settle_starts(epoch, beginnings):
                    await self._announce(consumer, epoch, beginnings)
                    return
            except ClaimLost:
                return
            except (KafkaError, LogError, TimeoutError) as error:
                _logger.warning("claims can't be opened", group=self._group, error=brief(error))
            await asyncio.sleep(_PAUSE)

    async def _settle_starts(self, epoch: object, beginnings: Beginnings) -> bool:
        starts = {partition: (at.offset, "") for partition, at in beginnings.items() if not at.committed}
        async with self._commit_lock:
            if self._epoch is not epoch:
                return False
            if starts:
                await self._commit(starts)
                for partition, (offset, _) in starts.items():
                    _logger.info(
                        "partition starts", topic=partition.topic, partition=partition.partition, offset=offset
                    )
        return True

    async def _announce(self, consumer: AIOKafkaConsumer, epoch: object, beginnings: Beginnings) -> None:
        async with self._handover:
            if self._epoch is not epoch or self._owner is None:
                return
            claims = [Claim(*partition, at.offset, at.mark) for partition, at in sorted(beginnings.items())]
            for claim in claims:
                consumer.seek(KafkaPartition(*claim.topic_partition), claim.start)
                self._claims[claim.topic_partition] = claim
                self._read_to[claim] = claim.start
            try:
                await self._owner.claimed(claims)
            except Exception:
                _logger.exception("claims could not be taken", group=self._group)

    async def end_claims(self, consumer: AIOKafkaConsumer) -> None:
        """End all claims: the group takes the partitions back."""
        if consumer is self._consumer:
            await self._release()

    async def _release(self, *, lost: bool = False) -> None:
        """Call the owner, and wait for it within its budget: all partitions are about to go (where *lost*, they have gone)."""
        self._begin_epoch()
        async with self._handover:
            claims = list(self._claims.values())
            if lost:
                await self._end_claims()
            if claims and self._owner is not None and not self._closed:
                try:
                    async with asyncio.timeout(self._drain + COMMIT_TIMEOUT):
                        await self._owner.released(claims)
                except TimeoutError:
                    _logger.warning("claims were not released in time", group=self._group, budget=self._drain)
                except Exception:
                    _logger.exception("claims could not be released", group=self._group)
            await self._end_claims()

    async def _end_claims(self) -> None:
        async with self._commit_lock:
            self._claims.clear()
            self._read_to.clear()
            self._resting.clear()
            self._suspected.clear()

    # The consumer

    def _fail(self, consumer: AIOKafkaConsumer, error: Exception) -> None:
        """Replace *consumer*: an error of the coordination never goes away."""
        if consumer is self._consumer and not self._trouble.is_set():
            _logger.warning("consumer replaced", group=self._group, error=brief(error))
            self._trouble.set()

    async def _keep(self) -> None:
        """Run one consumer after the other."""
        while True:
            self._trouble.clear()
            consumer = self._consumer = self._clients.member(self._group, self._drain)
            consumer.subscribe(self._topics, listener=_Listener(self, consumer))
            try:
                await consumer.start()
                await self._trouble.wait()
            except (KafkaError, TimeoutError) as error:
                _logger.warning("group can't be joined", group=self._group, error=brief(error))
            finally:
                self._consumer = None
                stopping = asyncio.create_task(stop(consumer))
                if not self._closed:
                    await self._release(lost=True)
                await stopping
            await asyncio.sleep(_PAUSE)


class _Listener(ConsumerRebalanceListener):
    """Passes the callbacks of one consumer to the member. aiokafka swallows errors here, so there must be none."""

    def __init__(self, member: Member, consumer: AIOKafkaConsumer) -> None:
        self._member = member
        self._consumer = consumer

    async def on_partitions_revoked(self, revoked: Collection[KafkaPartition]) -> None:  # noqa: ARG002
        await self._member.end_claims(self._consumer)

    async def on_partitions_assigned(self, assigned: Collection[KafkaPartition]) -> None:
        await self._member.begin_claims(self._consumer, assigned)


def _now() -> float:
    return asyncio.get_running_loop().time()


def _is_one_partitions(error: Exception) -> bool:
    """Return whether the error is about the records of one partition. A damaged batch makes a decompressor raise one too."""
    return isinstance(error, _ONE_PARTITIONS) or not isinstance(error, (KafkaError, ConsumerStoppedError))


def _hint(error: Exception, group: str, claim: Claim) -> str:
    topic_partition = f"{claim.topic}:{claim.partition}"
    reset = (
        f"kafka-consumer-groups.sh --reset-offsets --group {group} --topic {topic_partition} --to-earliest --execute"
    )
    if isinstance(error, OffsetOutOfRangeError):
        return f"its records were deleted before they were read; stop all workers and go on with the rest: {reset}"
    if isinstance(error, TopicAuthorizationFailedError):
        return f"allow this user to read {claim.topic}"
    skip = reset.replace("--to-earliest", "--shift-by 1")
    return f"the record there can't be read; stop all workers and skip it, if it is really lost: {skip}"
