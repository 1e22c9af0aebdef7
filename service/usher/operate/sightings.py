"""Finds events in the source topics: by looking through them, or at the places where they are known to be."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from usher.delivery import Record
from usher.event import Event, EventUid, Undecodable
from usher.eventlog.browse import Browser
from usher.eventlog.port import TopicPartition
from usher.operate.progress import ReadingProgress
from usher.operate.wanted import MayBe, Wanted
from usher.systems.decode import decode
from usher.systems.source import Source, read_record

_MOST: Final = 2**63 - 1
_MOST_AFTER: Final = 100_000
"""Records that are looked through for second arrivals of an event that has been found."""


class Spot(NamedTuple):
    """The place of an arrival."""

    topic_partition: TopicPartition
    offset: int


@dataclass(frozen=True, slots=True)
class Sighting:
    """One arrival of an event. *event* is None where the source topic does not have it any more; *stored_at*: Unix milliseconds.

    Not *committed*: it is in the topic, and an open transaction keeps it from being read.
    """

    topic_partition: TopicPartition
    offset: int
    stored_at: int
    uid: EventUid
    event: Event | None
    committed: bool = True

    @property
    def spot(self) -> Spot:
        return Spot(self.topic_partition, self.offset)


@dataclass(frozen=True, slots=True)
class Search:
    """Looks for the events that are *wanted* in *topics*. *sources* are what reads the topics that hold a system's own events."""

    browser: Browser
    topics: Collection[str]
    wanted: Wanted
    sources: Mapping[str, Source]
    progress: ReadingProgress

    async def since(self, moment: float) -> list[Sighting]:
        """Look through all records stamped at or after *moment* (Unix seconds), and those of open transactions."""
        found: list[Sighting] = []
        for topic in self.topics:
            found += await self._all(topic, await self.browser.offsets_since(topic, moment))
        return [each for each in found if each.committed or each.stored_at >= moment * 1000]

    async def unread(self, first: Mapping[TopicPartition, int]) -> list[Sighting]:
        """Look through what lies at or after the offsets in *first*: what the group may not be done with."""
        found: list[Sighting] = []
        for topic in self.topics:
            found += await self._all(topic, {at.partition: offset for at, offset in first.items() if at.topic == topic})
        return found

    async def _all(self, topic: str, first: Mapping[int, int]) -> list[Sighting]:
        found = [each async for each in self._scan(topic, self.browser.scan(topic, first=first))]
        held = self._scan(topic, self.browser.uncommitted(topic), committed=False)
        return found + [each async for each in held]

    async def after(self, known: Iterable[Sighting], window: float) -> list[Sighting]:
        """Look for second arrivals behind those that are *known*: within *window* seconds, and a number of records."""
        places: dict[TopicPartition, tuple[int, int]] = {}
        for each in known:
            first, last = places.get(each.topic_partition, (each.offset, each.stored_at))
            places[each.topic_partition] = min(first, each.offset), max(last, each.stored_at)
        found: list[Sighting] = []
        for (topic, partition), (first, last) in places.items():
            batches = self.browser.scan(topic, first={partition: first + 1})
            scan = self._scan(topic, batches, until=last + window * 1000, most=_MOST_AFTER)
            found += [each async for each in scan]
        return found

    async def at(self, spots: Collection[Spot]) -> list[Sighting]:
        """Look at these places. What lies there now may be another event."""
        places = [spot for spot in spots if spot.topic_partition.topic in self.topics and 0 <= spot.offset < _MOST]
        records = await self.browser.records_at(places)
        events = ((record, event_in(record, self.sources.get(record.topic))) for record in records)
        return [_sighting(record, event) for record, event in events if event is not None]

    async def _scan(
        self,
        topic: str,
        batches: AsyncIterator[Sequence[Record]],
        *,
        committed: bool = True,
        until: float | None = None,
        most: int | None = None,
    ) -> AsyncIterator[Sighting]:
        source, count = self.sources.get(topic), 0
        may_be = self.wanted.may_be() if source is None else _always
        async with contextlib.aclosing(batches) as closing:  # type: ignore[type-var]
            async for batch in closing:
                for record in _candidates(batch, may_be):
                    event = event_in(record, source)
                    if event is not None and self.wanted.is_(event):
                        yield _sighting(record, event, committed=committed)
                count += len(batch)
                self.progress.read(topic, count)
                if (until is not None and batch and batch[-1].timestamp > until) or (
                    most is not None and count >= most
                ):
                    return


def _candidates(batch: Sequence[Record], may_be: MayBe) -> list[Record]:
    return [record for record in batch if (value := record.value) is not None and may_be(value)]


def _always(_value: bytes) -> bool:
    return True


def _sighting(record: Record, event: Event, *, committed: bool = True) -> Sighting:
    at = TopicPartition(record.topic, record.partition)
    return Sighting(at, record.offset, record.timestamp, event.uid, event, committed)


def event_in(record: Record, source: Source | None) -> Event | None:
    """Return the event in a source record; None: it has none."""
    if source is not None:
        arrival = read_record(source, record)
        return arrival.event if arrival else None
    try:
        return decode(record.value or b"")
    except Undecodable:
        return None
