"""From records to deliveries: which records are ours, and which deliveries of theirs are still to be made.

Hides the prefilter, decoding, dedupe, routing, and rule 6: what is parked or known to be done is settled unread.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from usher.delivery import Delivery, Origin, Record, lane_of
from usher.engine.lanes import Flight, Shard
from usher.engine.port import Batch
from usher.event import Event, Undecodable
from usher.handler import Handler, Router
from usher.metrics import Metrics
from usher.sources import decode
from usher.sources.prefilter import prefilter


@dataclass(frozen=True, slots=True)
class Undecoded:
    """A record whose bytes are no event, and why."""

    record: Record
    reason: str


class Intake:
    """Reads records on behalf of a router. One for all claims."""

    def __init__(self, router: Router, metrics: Metrics) -> None:
        self._router = router
        self._metrics = metrics
        self._may_be_ours = prefilter(router.actors)

    def take(self, shard: Shard, batch: Batch) -> list[Flight | Undecoded]:
        """What is to be done about a batch, in order. Moves the shard's position past it; never waits."""
        todo: list[Flight | Undecoded] = []
        filtered: Counter[str] = Counter()
        may_be_ours, ledger = self._may_be_ours, shard.ledger
        for record in batch.records:
            value = record.value
            if value is None:
                filtered["empty"] += 1
            elif not may_be_ours(value):
                filtered["prefilter"] += 1
            elif not ledger.already_done(record.offset):
                reason = self._take_one(shard, record, value, todo)
                if reason is not None:
                    filtered[reason] += 1
        ledger.position = batch.next
        self._metrics.records.labels(batch.claim.topic).inc(len(batch.records))
        for reason, count in filtered.items():
            self._metrics.filtered.labels(reason).inc(count)
        return todo

    def remember(self, shard: Shard, records: Sequence[Record]) -> None:
        """Note the events in records that were read in an earlier claim, so that their second arrival is known."""
        for record in records:
            if record.value is not None and self._may_be_ours(record.value):
                try:
                    event = decode(record.value)
                except Undecodable:
                    continue
                if self._router.match(event):
                    shard.recent.duplicate(event.identity, record.offset, record.timestamp)

    def _take_one(self, shard: Shard, record: Record, value: bytes, todo: list[Flight | Undecoded]) -> str | None:
        try:
            event = decode(value)
        except Undecodable as error:
            shard.ledger.begin(record.offset, [""])
            todo.append(Undecoded(record, str(error)))
            return None
        handlers = self._router.match(event)
        if not handlers:
            return self._router.why_filtered(event)
        if shard.recent.duplicate(event.identity, record.offset, record.timestamp):
            return "duplicate"
        done = shard.ledger.already_done_by(record.offset)
        fresh = [
            flight
            for flight in flights(event, record, value, (h for h in handlers if h.name not in done))
            if flight.delivery.key not in shard.known_done and flight.delivery.key not in shard.table
        ]
        if fresh:
            left = [flight.delivery.handler for flight in fresh]
            shard.ledger.begin(record.offset, left, (h.name for h in handlers if h.name not in left))
            todo.extend(fresh)
        return None


def flights(event: Event, record: Record | Origin, value: bytes, handlers: Iterable[Handler]) -> Iterator[Flight]:
    """One fresh delivery for each handler."""
    origin = record if isinstance(record, Origin) else Origin.of(record)
    alone = f"{origin.partition}-{origin.offset}"
    lane = lane_of(event.source, event.tenant, event.user.id or event.context.user_id, alone)
    for handler in handlers:
        own = lane if handler.ordered else f"{lane}/{alone}"
        yield Flight(Delivery(handler.name, event.identity, own, origin, value), event)
