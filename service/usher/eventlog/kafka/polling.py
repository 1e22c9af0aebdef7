"""The polling of a consumer. Hides that an error in one partition must not stop the others, and which partitions rest.

A consumer does not say which partition an error is about, and an error loses the good records that the call had read. So after
one the partitions are read one by one, then the one with the error record by record, and then it rests.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Collection, Mapping
from typing import Any, Final

from aiokafka import AIOKafkaConsumer
from aiokafka import TopicPartition as KafkaPartition
from aiokafka.errors import (
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

from usher.eventlog.kafka.sieve import MOST_LEFT_OUT, Sieve, batch_of
from usher.eventlog.kafka.stops import Stops
from usher.eventlog.port import Batch, Claim, unsieved

_UNOWNED: Final = KafkaPartition("unowned", 0)
_REST: Final = 60.0
_CAREFUL: Final = 2.0
_PROBATION: Final = 10.0
"""Seconds after which a partition that was tried again, without another error, does not stand still any more."""
_ONE_PARTITIONS: Final = (
    OffsetOutOfRangeError,
    NoOffsetForPartitionError,
    CorruptRecordException,
    UnsupportedCodecError,
    RecordTooLargeError,
    TopicAuthorizationFailedError,
)

Live = Mapping[KafkaPartition, Claim]
"""The claims that are read now, by partition."""
Read = Mapping[KafkaPartition, list[Any]]


class Polling:
    """Reads the claims of one member of *group*, and reports to *stops* which of them stand still."""

    def __init__(self, group: str, stops: Stops) -> None:
        self._group = group
        self._stops = stops
        self.sieve = Sieve(unsieved)
        """The sieve of the consumers."""
        self._read_to: dict[Claim, int] = {}
        self._resting: dict[Claim, float] = {}
        self._suspected: dict[Claim, float] = {}
        self._tried: dict[Claim, float] = {}
        self._careful_until = 0.0
        self._turn = 0
        self.out_of_range: dict[Claim, int] = {}
        """Claims whose log does not have the offset to read next, with that offset. They never go on by themselves."""

    def begin(self, consumer: AIOKafkaConsumer, claim: Claim, *, stopped: bool = False) -> None:
        """Read *claim* from its start on, unless it is *stopped*."""
        consumer.seek(KafkaPartition(*claim.topic_partition), claim.start)
        self._read_to[claim] = claim.start
        if stopped:
            self._halt(claim, claim.start)
        else:
            self._stops.go_on(claim.topic_partition)

    def end(self) -> None:
        """Forget all claims."""
        self._read_to.clear()
        self._resting.clear()
        self._suspected.clear()
        self._tried.clear()
        self.out_of_range.clear()

    @property
    def read_to(self) -> Mapping[KafkaPartition, int]:
        """The offset that is read next, for each claim."""
        return {KafkaPartition(*claim.topic_partition): offset for claim, offset in self._read_to.items()}

    def explain(self, claim: Claim, error: str, hint: str) -> None:
        """Say why *claim*, which is out of range, stands still. Call it again while it lasts."""
        if (offset := self.out_of_range.get(claim)) is not None:
            self._stops.stop(claim.topic_partition, error, hint, offset=offset)

    def live(self, consumer: AIOKafkaConsumer, claims: Collection[Claim]) -> Live:
        """Return the claims to read now, beginning with another one each time: the first one gets most of the limit."""
        self._turn += 1
        ordered = list(claims)
        start = self._turn % len(ordered) if ordered else 0
        turns = ordered[start:] + ordered[:start]
        return {KafkaPartition(*claim.topic_partition): claim for claim in turns if self._may_read(consumer, claim)}

    def _may_read(self, consumer: AIOKafkaConsumer, claim: Claim) -> bool:
        if claim in self.out_of_range:
            return False
        if (until := self._resting.get(claim)) is None:
            if self._tried and self._tried.get(claim, _now()) < _now():
                self._goes_on(claim)
            return True
        if until > _now():
            return False
        del self._resting[claim]
        self._tried[claim] = _now() + _PROBATION
        with contextlib.suppress(IllegalStateError):
            consumer.seek(KafkaPartition(*claim.topic_partition), self._read_to[claim])
        return True

    async def wait(self, consumer: AIOKafkaConsumer, live: Live, wait: float) -> Read:
        """Wait for a record: at most one is read, as soon as there is one, or as soon as one was left out."""
        # While an error is looked for nothing is left out: else the offset would not be known that has it.
        self.sieve.room = 0 if any(until > _now() for until in self._suspected.values()) else MOST_LEFT_OUT
        if live and _now() < self._careful_until:
            await asyncio.sleep(min(wait, 0.05))
            return {}
        try:
            # Without a partition getmany() would read all of them. With one that has no owner it only keeps the membership alive.
            return await consumer.getmany(*(live or [_UNOWNED]), timeout_ms=int(wait * 1_000), max_records=1)
        except Exception as error:
            if not is_one_partitions(error):
                raise
            # The error does not say which partition it is about: read them one by one for a while.
            self._careful_until = _now() + _CAREFUL
            return {}

    async def collect(
        self,
        consumer: AIOKafkaConsumer,
        live: Live,
        first: Read,
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
                    if not is_one_partitions(error):
                        raise
                    self._suspect(consumer, claim, error, position)
                    more = {}
                records = records + more.get(partition, []) if records else more.get(partition, [])
                room -= len(records)
            if position != self._read_to[claim]:
                self._read_to[claim] = position
                if claim in self._tried:
                    self._goes_on(claim)
                batches.append(batch_of(claim, records, position))
        return batches

    def give_back(self, consumer: AIOKafkaConsumer, read: Read) -> None:
        """Give back records that came after the claims had changed: who has the partition now reads them again."""
        for partition in read.keys() & self.read_to.keys():
            with contextlib.suppress(IllegalStateError):
                consumer.seek(partition, self.read_to[partition])

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
        if isinstance(error, OffsetOutOfRangeError):
            self._halt(claim, position)
            return
        self._resting[claim] = _now() + _REST
        self._tried.pop(claim, None)
        hint = _hint(error, self._group, claim)
        self._stops.stop(claim.topic_partition, type(error).__name__, hint, offset=position)

    def _halt(self, claim: Claim, position: int) -> None:
        """Read *claim* no more. The lookout finds out why, and says it."""
        self.out_of_range[claim] = position
        self._tried.pop(claim, None)
        self._stops.wait([claim.topic_partition], "the record to read next is not there")

    def _goes_on(self, claim: Claim) -> None:
        del self._tried[claim]
        self._stops.go_on(claim.topic_partition)


def _now() -> float:
    return asyncio.get_running_loop().time()


def is_one_partitions(error: Exception) -> bool:
    """Return whether the error is about the records of one partition. A damaged batch makes a decompressor raise one too."""
    return isinstance(error, _ONE_PARTITIONS) or not isinstance(error, (KafkaError, ConsumerStoppedError))


def _hint(error: Exception, group: str, claim: Claim) -> str:
    topic_partition = f"{claim.topic}:{claim.partition}"
    reset = (
        f"kafka-consumer-groups.sh --reset-offsets --group {group} --topic {topic_partition} --to-earliest --execute"
    )
    if isinstance(error, TopicAuthorizationFailedError):
        return f"allow this user to read {claim.topic}"
    skip = reset.replace("--to-earliest", "--shift-by 1")
    return f"the record there can't be read; stop all workers and skip it, if it is really lost: {skip}"
