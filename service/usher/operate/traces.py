"""Reads what the event log has of deliveries beside their receipts: commits, what is parked, and dead letters."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from usher.delivery import Delivery, Record, delivery_key
from usher.delivery.headers import Head, ours, read_delivery
from usher.engine.dead_letters import REQUEST_PREFIX
from usher.engine.parked_row import ParkedRow
from usher.event import EventUid
from usher.eventlog.browse import Browser, Committed
from usher.eventlog.names import retry_topic
from usher.eventlog.notes import GroupStart
from usher.eventlog.port import TopicPartition
from usher.operate.dead_letters import DeadLetterEntry
from usher.operate.dead_letters import read as read_dead_letters
from usher.operate.progress import ReadingProgress
from usher.operate.sightings import Spot

Key = tuple[str, str]
"""A source topic, and the key of a delivery in its retry topic."""


@dataclass(slots=True)
class Traces:
    """All that the event log has of deliveries, beside the source records and the receipts. *topics* are the source topics that exist."""

    topics: Sequence[str] = ()
    committed: dict[TopicPartition, Committed] = field(default_factory=dict)
    starts: Mapping[TopicPartition, GroupStart] = field(default_factory=dict)
    parked: dict[Key, Delivery] = field(default_factory=dict)
    unparked: set[Key] = field(default_factory=set)
    foreign: dict[Key, str] = field(default_factory=dict)
    """What is wrong with records in the retry topic that Usher did not write."""
    dead_letters: dict[Key, DeadLetterEntry] = field(default_factory=dict)
    _lanes: dict[tuple[str, str], dict[str, int]] = field(default_factory=dict)
    """The keys of what is parked, by topic and lane, each with its place in the lane."""
    _handlers: dict[tuple[EventUid, Spot], set[str]] | None = None

    def deliveries(self) -> Iterator[Delivery]:
        """Yield the deliveries that are parked or dead."""
        yield from self.parked.values()
        yield from (entry.dead_letter.delivery for entry in self.dead_letters.values())

    def handlers_at(self, uid: EventUid, spot: Spot) -> set[str]:
        """Return the handlers whose deliveries of the event at this place are parked or dead. Call it once all is read."""
        if self._handlers is None:
            self._handlers = {}
            for delivery in self.deliveries():
                self._handlers.setdefault((delivery.uid, spot_of(delivery)), set()).add(delivery.handler)
        return self._handlers.get((uid, spot), set())

    def only(self, wanted: Callable[[Delivery], bool]) -> Traces:
        """Return what there is of the deliveries that are *wanted*."""
        parked = {key: delivery for key, delivery in self.parked.items() if wanted(delivery)}
        dead = {key: entry for key, entry in self.dead_letters.items() if wanted(entry.dead_letter.delivery)}
        return Traces(self.topics, self.committed, self.starts, parked, self.unparked, self.foreign, dead, self._lanes)

    def ahead_of(self, delivery: Delivery) -> str:
        """Return the key of the delivery that *delivery* waits behind; empty where it is the first of its lane."""
        lane = self._lanes.get((delivery.origin.topic, delivery.lane_key), {})
        before = [(offset, key) for key, offset in lane.items() if offset < delivery.offset and key != delivery.key]
        return max(before)[1] if before else ""

    def fold(self, records: Iterator[Record], topic: str) -> None:
        """Take in records of a retry topic."""
        for record in records:
            text = (record.key or b"").decode("utf-8", "replace")
            if text.startswith(REQUEST_PREFIX):
                continue
            key = (topic, text)
            if record.value is None:
                gone = self.parked.pop(key, None)
                if gone is not None:
                    self._lanes[topic, gone.lane_key].pop(text, None)
                self.unparked.add(key)
                continue
            try:
                delivery = read_delivery(record)
                ParkedRow.from_record(record, text, Head(record.headers))  # under its own key, as a worker checks it
            except ValueError as error:
                self.foreign[key] = str(error)
                continue
            self.parked[key] = delivery
            self._lanes.setdefault((topic, delivery.lane_key), {})[text] = delivery.offset


async def read_traces(browser: Browser, group: str, topics: Sequence[str], progress: ReadingProgress) -> Traces:
    """Read all of it.

    Raises:
        LogUnavailable
    """
    # Commits first: what settles while the rest is read is then reported as running, and never as settled too early.
    existing = await browser.existing()
    traces = Traces([topic for topic in topics if topic in existing])
    for topic in traces.topics:
        traces.committed |= {entry.topic_partition: entry for entry in await browser.committed(topic)}

    async def deliveries() -> None:
        # What is parked comes first: what dies meanwhile is then found as parked, or as dead, or as both.
        for topic in topics:
            retries, count = retry_topic(group, topic), 0
            if retries in existing:
                async for batch in browser.scan(retries):
                    traces.fold(ours(batch, group, topic), topic)
                    count += len(batch)
                    progress.read(retries, count)
        for entry in await read_dead_letters(browser, group, topics):  # oldest first: a delivery's last one counts
            traces.dead_letters[entry.topic, entry.dead_letter.delivery.key] = entry

    traces.starts, _ = await asyncio.gather(browser.starts(), deliveries())
    return traces


def key_at(spot: Spot, uid: EventUid, handler: str) -> Key:
    """Return the key of the delivery of an event at this place."""
    (topic, partition), offset = spot
    return topic, delivery_key(handler, uid, partition, offset)


def spot_of(delivery: Delivery) -> Spot:
    """Return the place of the source record of *delivery*."""
    origin = delivery.origin
    return Spot(TopicPartition(origin.topic, origin.partition), origin.offset)
