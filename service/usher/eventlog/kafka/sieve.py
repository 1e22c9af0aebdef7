"""How a consumer leaves out records before an object is made of them. Hides where aiokafka makes its records.

A consumer sifts if it is made with a `Sieve` as its *value_deserializer*: that is the way from the consumer to the place where
its records are made, `aiokafka.consumer.fetcher.PartitionRecords`, which `install` replaces. What such a consumer returns are
pairs: how many records were left out since the last pair, and the record. After the last record of a fetch comes a pair without
a record. So a count goes with the records: what is lost, given back or read again is so with its count.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from operator import attrgetter
from typing import Any, Final

import structlog
from aiokafka.consumer import fetcher

from usher.delivery import StoredRecord
from usher.eventlog.kafka import unpacking
from usher.eventlog.port import Batch, Claim, Sieves

_logger = structlog.get_logger(__name__)
MOST_LEFT_OUT: Final = 10_000
"""How many records one read may leave out: some 10 ms of work, during which nothing else runs."""
_Pair = tuple[int, StoredRecord | None]
_EXPECTED: Final[Mapping[str, Sequence[str]]] = {
    "Fetcher._proc_fetch_request": ("MemoryRecords", "PartitionRecords"),
    "PartitionRecords.__init__": ("_tp", "_records", "_value_deserializer", "next_fetch_offset", "_unpack_records"),
    "PartitionRecords._unpack_records": ("has_next", "next_batch", "next_fetch_offset", "_consumer_record"),
}
"""The names that functions of aiokafka's fetcher must use for this to work. None of them is documented."""


class Sieve:
    """The sieve of one consumer. *sieves* returns the one of a topic."""

    def __init__(self, sieves: Sieves) -> None:
        self.of = sieves
        self.room = MOST_LEFT_OUT
        """How many records may still be left out. After that all are let through, so that the read ends at its limit."""

    def __call__(self, value: bytes | None) -> bytes | None:
        return value  # a deserializer: the one of an aiokafka that knows nothing of sieves changes nothing


class _Sifting:
    """The sifting of one fetch of one partition, which begins at the offset *first*.

    It does not know the `_Records` that has it: a cycle would keep what was fetched until the garbage collector comes.
    """

    def __init__(self, sieve: Sieve, topic: str, first: int) -> None:
        self._sieve = sieve
        self._may_be_ours = sieve.of(topic)
        self._first = first
        self._left_out = 0

    def __call__(self, records: Iterable[Any], base: int) -> Iterator[Any]:
        """Yield of the *records* of one batch, which begins at the offset *base*, those that may be ours, and count the others."""
        may_be_ours, sieve, first = self._may_be_ours, self._sieve, self._first
        whole, room, left_out = base >= first, sieve.room, 0
        for record in records:
            if left_out >= room or may_be_ours(record.value, record.headers):
                if left_out:
                    self._count(left_out)
                    left_out = 0
                yield record
                self._first, room = max(first, record.offset + 1), sieve.room
            elif (
                whole or record.offset >= first
            ):  # earlier ones have been read: a fetch may begin in the middle of a batch
                left_out += 1
        self._count(left_out)

    def _count(self, left_out: int) -> None:
        self._left_out += left_out
        self._sieve.room -= left_out

    def counted(self) -> int:
        """Return how many were left out since the last call."""
        left_out, self._left_out = self._left_out, 0
        return left_out


class _Records(getattr(fetcher, "PartitionRecords", object)):  # type: ignore[misc]  # `install` says what is missing
    """The records of one fetch of one partition: where the consumer has a sieve, pairs of those that may be ours."""

    _sifting: _Sifting | None = None

    def _unpack_records(self) -> Iterator[Any]:
        records: Iterator[Any] = super()._unpack_records()
        if not isinstance(self._value_deserializer, Sieve):
            return records
        self._sifting = _Sifting(self._value_deserializer, self._tp.topic, self.next_fetch_offset)
        self._records.sift = self._sifting
        return _to_the_end(records, self._sifting)

    def _consumer_record(self, tp: Any, record: Any) -> Any:
        if self._sifting is None:
            return super()._consumer_record(tp, record)
        headers = tuple(record.headers)
        kept = StoredRecord(tp.topic, tp.partition, record.offset, record.timestamp, record.key, record.value, headers)
        return self._sifting.counted(), kept


def _to_the_end(pairs: Iterator[_Pair], sifting: _Sifting) -> Iterator[_Pair]:
    yield from pairs
    if left_out := sifting.counted():
        yield left_out, None


def batch_of(claim: Claim, read: Sequence[Any], position: int) -> Batch:
    """Return what a consumer *read*: pairs of a sieve that is in force, or records."""
    if not in_force():
        return Batch(claim, read, position)
    records, before, passed = list[StoredRecord](), list[int](), 0
    for left_out, record in read:
        passed += left_out
        if record is not None:
            records.append(record)
            before.append(passed)
    return Batch(claim, records, position, passed, before)


def in_force() -> bool:
    """Return whether the consumers of this process use their sieves."""
    return getattr(fetcher, "PartitionRecords", None) is _Records


@cache
def install() -> None:
    """Let the consumers of this process use their sieves, where aiokafka works as this module expects; else warn, once."""
    unpacking.install()
    if unknown := _unknown():
        _logger.warning(
            "this version of aiokafka is not known: what no handler is for is read all the same", unknown=unknown
        )
    else:
        fetcher.PartitionRecords = _Records  # type: ignore[misc]  # it is made there, by this name


def _unknown() -> list[str]:
    """Return the names that are expected in aiokafka and are not there."""
    names = []
    for function, expected in _EXPECTED.items():
        try:
            used = attrgetter(f"{function}.__code__.co_names")(fetcher)
        except AttributeError:
            used = ()
        names += [f"{function}: {name}" for name in expected if name not in used]
    return names
