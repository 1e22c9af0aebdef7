"""The intake: from a record to the deliveries that are still to be made.

Hides the prefilter, decoding, dedupe, routing, and rule 6: what is parked or known to be done does not begin again.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence

from usher.delivery import Delivery, Origin, Record, StoredRecord, Unreadable, lane_of
from usher.engine.claim_state import ClaimState
from usher.engine.dead_letters import undecodable
from usher.engine.index_file import IndexLost
from usher.engine.lanes import InFlight
from usher.engine.limits import Limits
from usher.event import Event, Undecodable
from usher.eventlog.port import Batch, Sieve, everything
from usher.handler import Handler, Router
from usher.metrics import Metrics
from usher.systems.peek import peek, shortened
from usher.systems.prefilter import prefilter
from usher.systems.source import Source, read_record

_UNDECODED = "undecoded"
_WINDOW = 100
"""Over how many records of a partition the ratio of undecodable ones is taken."""


NO_SOURCES: Mapping[str, Source] = {}
"""No topic has the raw events of a system: all events are canonical."""


class Intake:
    """Takes in the records of all claims, for a router.

    *now* gives Unix seconds. *sources* read the topics that have the raw events of a system.
    """

    def __init__(
        self,
        router: Router,
        metrics: Metrics,
        limits: Limits,
        now: Callable[[], float],
        sources: Mapping[str, Source] = NO_SOURCES,
    ) -> None:
        self._limits = limits
        self._router = router
        self._metrics = metrics
        self._prefilter = prefilter(router.actors)
        self._sources = sources
        self._now = now

    def take(self, state: ClaimState, batch: Batch) -> list[InFlight]:
        """Return the deliveries that a batch still needs, in order. A record that is no event has one without a handler.

        Never waits. Moves the position of the claim past the batch, or to the record where the partition begins to rest: the records
        that follow become its backlog.
        """
        todo: list[InFlight] = []
        filtered: Counter[str] = Counter()
        topic, ledger = batch.claim.topic, state.ledger
        source, may_be_ours = self._sources.get(topic), self.sieve(topic)
        state.backlog = None
        ledger.position = batch.next
        for index, record in enumerate(batch.records):
            value = record.value
            if value is None:
                filtered["empty"] += 1
            elif not may_be_ours(value, record.headers):  # an event log may let through what its sieve is against
                filtered["prefilter"] += 1
            elif ledger.already_done(record.offset):
                self.remember(state, [record])  # so that its second arrival is a duplicate
            else:
                try:
                    reason = self._take_one(state, record, value, source, todo)
                except IndexLost:  # it is taken in when there is a new one
                    batch = self._rest(state, batch, index)
                    break
                if reason is _UNDECODED:
                    if self._flooded(state, state.records + batch.place(index)):
                        batch = self._rest(state, batch, index + 1)
                        break
                elif reason is not None:
                    filtered[reason] += 1
        self._count(state, batch, filtered)
        return todo

    def _count(self, state: ClaimState, taken: Batch, filtered: Counter[str]) -> None:
        number = len(taken.records) + taken.passed
        state.records += number
        self._metrics.records.labels(taken.claim.topic).inc(number)
        if taken.passed:
            filtered["prefilter"] += taken.passed
        for reason, count in filtered.items():
            self._metrics.filtered.labels(reason).inc(count)

    def _flooded(self, state: ClaimState, number: int) -> bool:
        """Return whether there are too many undecodable records now: this one is the *number*-th record of the claim."""
        bad = state.undecodable
        bad.append(number)
        while bad[0] <= number - _WINDOW:
            bad.popleft()
        share = len(bad) / min(number, _WINDOW)
        return len(bad) >= self._limits.undecodable_at_least and share > self._limits.undecodable_ratio

    @staticmethod
    def _rest(state: ClaimState, batch: Batch, at: int) -> Batch:
        """Make a backlog of what follows the first *at* records. Returns what comes before it."""
        taken, state.backlog = batch.cut(at)
        state.ledger.position = taken.next
        state.undecodable.clear()
        return taken

    def remember(self, state: ClaimState, records: Sequence[Record]) -> None:
        """Remember the events in records of an earlier claim, so that their second arrival is a duplicate."""
        topic = state.claim.topic
        source, may_be_ours = self._sources.get(topic), self.sieve(topic)
        for record in records:
            if record.value is not None and may_be_ours(record.value, record.headers):
                try:
                    event = peek(record.value) if source is None else _event_of(source, record)
                except Undecodable:
                    continue
                if event is not None and self._router.match(event):
                    state.recent.duplicate(event.uid, record.offset, record.timestamp)

    def sieve(self, topic: str) -> Sieve:
        """Return the prefilter for *topic*. A source that changes its documents before they are events has none."""
        source = self._sources.get(topic)
        return self._prefilter if source is None or source.plain else everything

    def _take_one(
        self, state: ClaimState, record: Record, value: bytes, source: Source | None, todo: list[InFlight]
    ) -> str | None:
        """Add to *todo* what is to be done about a record. Returns why nothing is, or that it could not be decoded."""
        if isinstance(value, Unreadable):
            return self._undecoded(state, record, value.reason, todo)
        if source is None:
            try:
                event = peek(value)
            except Undecodable as error:
                return self._undecoded(state, record, str(error), todo)
        else:
            arrival = read_record(source, record)
            if arrival is None:
                return "nothing"
            value = arrival.value
            if arrival.event is None:
                return self._undecoded(state, _with(record, value), arrival.reason, todo)
            event = shortened(arrival.event, value)
        handlers = self._router.match(event)
        if not handlers:
            return self._router.why_filtered(event)
        uid = event.uid
        if state.recent.duplicate(uid, record.offset, record.timestamp):
            return "duplicate"
        done = state.ledger.already_done_by(record.offset)
        left = [handler for handler in handlers if handler.name not in done] if done else handlers
        origin = Origin.of(record, int(self._now() * 1000), state.claim.topic_id)
        fresh = deliveries_of(event, origin, value, left)
        if state.known_done or record.offset <= state.table.highest:  # rule 6: it was handed over already
            fresh = [f for f in fresh if f.delivery.key not in state.known_done and f.delivery.key not in state.table]
        if fresh:
            names = [in_flight.delivery.handler for in_flight in fresh]
            others = [h.name for h in handlers if h.name not in names] if len(names) < len(handlers) else ()
            state.ledger.begin(record.offset, names, others)
            todo.extend(fresh)
        return None

    @staticmethod
    def _undecoded(state: ClaimState, record: Record, reason: str, todo: list[InFlight]) -> str:
        state.ledger.begin(record.offset, [""])
        todo.append(InFlight(undecodable(record, reason, state.claim.topic_id)))
        return _UNDECODED


def _event_of(source: Source, record: Record) -> Event | None:
    arrival = read_record(source, record)
    return None if arrival is None else arrival.event


def _with(record: Record, value: bytes) -> Record:
    """Return *record* with another *value*."""
    return StoredRecord(
        record.topic, record.partition, record.offset, record.timestamp, record.key, value, record.headers
    )


def deliveries_of(event: Event, origin: Origin, value: bytes, handlers: Iterable[Handler]) -> list[InFlight]:
    """Return one fresh delivery for each handler."""
    uid, alone = event.uid, f"{origin.partition}-{origin.offset}"
    lane = lane_of(uid.source, uid.tenant, event.user.id or event.context.user_id, alone)
    return [
        InFlight(Delivery(each.name, uid, lane if each.ordered else f"{lane}/{alone}", origin, value), event)
        for each in handlers
    ]
