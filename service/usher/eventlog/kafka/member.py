"""The membership in the consumer group. Hides rebalances, the life of a claim, commits, and a consumer that must be replaced.

Its rules; without each of them records were lost, or the worker stood still:

* A partition is read only once its claim is announced: the consumer itself does not wait for the callback of the assignment.
* Records that were read for a claim that has ended are given back.
* There is one commit at a time, with a time limit, and none is under way when a partition goes.
* Nothing slow happens in the callback of an assignment: during it no heartbeat is sent.
* The consumer is polled for one partition a call: an error in one loses the records that the call read of others.
* A partition that can't be opened does not hold up the others: each claim is announced as soon as it is known where it begins.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from typing import Final

import structlog
from aiokafka import AIOKafkaConsumer
from aiokafka import TopicPartition as KafkaPartition
from aiokafka.errors import (
    CommitFailedError,
    ConsumerStoppedError,
    IllegalStateError,
    KafkaError,
)

from usher import background
from usher.eventlog.errors import ClaimLost, LogError, LogUnavailable
from usher.eventlog.kafka.beginnings import Beginnings, Located
from usher.eventlog.kafka.client import COMMIT_TIMEOUT, Clients, stop
from usher.eventlog.kafka.errors import brief
from usher.eventlog.kafka.listener import Listener
from usher.eventlog.kafka.polling import Polling
from usher.eventlog.kafka.sieve import Sieve
from usher.eventlog.kafka.stops import Stops
from usher.eventlog.port import Batch, Claim, Owner, Position, Sieves, TopicPartition

_logger = structlog.get_logger(__name__)
_PAUSE: Final = 1.0
_LONG_PAUSE: Final = 5.0
_OPENING: Final = "its claim is not open yet"


Locate = Callable[[Collection[KafkaPartition]], Awaitable[Located]]
Settled = Callable[[Beginnings], Awaitable[None]]


class Member:
    """One worker in the group, with one consumer after another.

    *locate* finds where claims begin, and *settled* is called once that is committed, before anything is read.
    """

    def __init__(
        self,
        clients: Clients,
        group: str,
        topics: Sequence[str],
        drain: float,
        *,
        locate: Locate,
        settled: Settled,
    ) -> None:
        self._clients = clients
        self._group = group
        self._topics = topics
        self._drain = drain
        self._locate = locate
        self._settled = settled
        self._owner: Owner | None = None
        self._consumer: AIOKafkaConsumer | None = None
        self._epoch = object()
        self._assigned = False
        self._claims: dict[TopicPartition, Claim] = {}
        self._stops = Stops()
        self.polling = Polling(group, self._stops)
        self._commit_lock = asyncio.Lock()
        self._handover = asyncio.Lock()
        self._trouble = asyncio.Event()
        self._keeper: asyncio.Task[None] | None = None
        self._opening: set[asyncio.Task[None]] = set()
        self._closed = False

    def join(self, owner: Owner, sieves: Sieves) -> None:
        """Begin to claim, in the background."""
        self._owner = owner
        self.polling.sieve = Sieve(sieves)
        self._keeper = background.begin(self._keep)

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

    @property
    def consumer(self) -> AIOKafkaConsumer | None:
        """The consumer of now; None while it is replaced."""
        return self._consumer

    def replace(self, reason: str) -> None:
        """Replace the consumer: it reaches no broker, and never will."""
        if self._consumer is not None:
            self._fail(self._consumer, LogUnavailable(reason))

    def stopped(self) -> Mapping[TopicPartition, str]:
        """As `EventLog.stopped`."""
        return self._stops.reasons

    async def read(self, claims: Collection[Claim], limit: int, wait: float) -> Sequence[Batch]:
        """As `EventLog.read`."""
        await asyncio.sleep(0)  # while there are always records, nothing below lets another task run
        consumer, epoch = self._consumer, self._epoch
        if consumer is None or not self._assigned or self._trouble.is_set():
            await asyncio.sleep(wait)
            return []
        ours = [claim for claim in claims if self._claims.get(claim.topic_partition) is claim]
        live = self.polling.live(consumer, ours)
        try:
            first = await self.polling.wait(consumer, live, wait)
            if self._epoch is not epoch or self._consumer is not consumer:
                self.polling.give_back(consumer, first)
                return []
            return await self.polling.collect(consumer, live, first, limit)
        except (KafkaError, ConsumerStoppedError) as error:
            self._fail(consumer, error)
            return []

    async def commit(self, positions: Mapping[Claim, Position]) -> None:
        """As `EventLog.commit`."""
        async with self._commit_lock:
            lost = [claim for claim in positions if self._claims.get(claim.topic_partition) is not claim]
            for claim in lost:
                raise ClaimLost(f"this worker has no claim on {claim.topic}/{claim.partition} any more", lost)
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
        self._stops.wait([TopicPartition(*partition) for partition in partitions], _OPENING)
        task = background.begin(self._open, consumer, self._epoch, partitions)
        self._opening.add(task)
        task.add_done_callback(self._opening.discard)

    async def _open(self, consumer: AIOKafkaConsumer, epoch: object, partitions: Collection[KafkaPartition]) -> None:
        """Announce the claims, once it is known where they begin."""
        left, pause = set(partitions), _PAUSE
        while self._epoch is epoch:
            try:
                beginnings, stopped = await self._locate(left)
                if (beginnings or not stopped) and await self._settle_starts(epoch, beginnings):
                    await self._settled(beginnings)
                    await self._announce(consumer, epoch, beginnings)
                    left -= beginnings.keys()
                if not left:
                    return
                if self._epoch is epoch:
                    for partition, (error, hint) in stopped.items():
                        self._stops.stop(TopicPartition(*partition), error, hint)
                pause = min(2 * pause, _LONG_PAUSE)
            except ClaimLost:
                return
            except (KafkaError, LogError, TimeoutError) as error:
                _logger.warning("claims can't be opened", group=self._group, error=brief(error))
            await asyncio.sleep(pause)

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
            claims = []
            for partition, at in sorted(beginnings.items()):
                claim = Claim(*partition, at.offset, at.mark, at.topic_id, at.remade)
                self.polling.begin(consumer, claim, stopped=at.stopped)
                self._claims[claim.topic_partition] = claim
                claims.append(claim)
            try:
                await self._owner.claimed(claims)
            except Exception:
                _logger.exception("claims could not be taken", group=self._group)

    async def end_claims(self, consumer: AIOKafkaConsumer) -> None:
        """End all claims: the group takes the partitions back."""
        if consumer is self._consumer:
            await self._release()

    async def _release(self, *, lost: bool = False, remade: Collection[str] = ()) -> None:
        """Call the owner, and wait for it within its budget: all partitions are about to go (where *lost*, they have gone).

        What was read of topics that are *remade*, or are not there any more, nobody can read again.
        """
        self._begin_epoch()
        async with self._handover:
            claims = list(self._claims.values())
            if lost:
                await self._end_claims()
            if claims and self._owner is not None and not self._closed:
                try:
                    async with asyncio.timeout(self._drain + COMMIT_TIMEOUT):
                        if gone := [claim for claim in claims if claim.topic in remade or self._deleted(claim.topic)]:
                            await self._owner.remade(gone)
                        await self._owner.released(claims)
                except TimeoutError:
                    _logger.warning("claims were not released in time", group=self._group, budget=self._drain)
                except Exception:
                    _logger.exception("claims could not be released", group=self._group)
            await self._end_claims()

    def _deleted(self, topic: str) -> bool:
        return self._consumer is not None and not self._consumer.partitions_for_topic(topic)

    async def _end_claims(self) -> None:
        async with self._commit_lock:
            self._claims.clear()
            self._stops.clear()
            self.polling.end()

    # The consumer

    async def reopen(self, remade: Collection[str]) -> None:
        """Give all claims back in good order, and join the group anew: the topics *remade* are others than those claimed."""
        consumer = self._consumer
        if consumer is None or self._closed:
            return
        await self._release(remade=remade)
        if consumer is self._consumer:
            self._trouble.set()

    def _fail(self, consumer: AIOKafkaConsumer, error: Exception) -> None:
        """Replace *consumer*: an error of the coordination never goes away."""
        if consumer is self._consumer and not self._trouble.is_set():
            _logger.warning("consumer replaced", group=self._group, error=brief(error))
            self._trouble.set()

    async def _keep(self) -> None:
        """Run one consumer after the other."""
        while True:
            self._trouble.clear()
            consumer = self._consumer = self._clients.member(self._group, self._drain, sieve=self.polling.sieve)
            consumer.subscribe(self._topics, listener=Listener(self, consumer))
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
