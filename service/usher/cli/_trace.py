"""What a log knows of one event: where it lies, and for each handler what became of it.

Nothing says of a delivery that it is done, except that its offset lies behind the commit (or the Mark names it done), and
that it is neither parked nor dead. So the traces are read in this order: dead letters, the parking table, the commit.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from usher.cli._console import moment
from usher.cli._dead_letters import ListedDeadLetter
from usher.cli._dead_letters import read as read_dead_letters
from usher.delivery import Delivery, Record, delivery_key
from usher.engine.dead_letters import REQUEST_PREFIX
from usher.engine.ledger import Mark, handlers_hash
from usher.event import Event, EventUid, Undecodable
from usher.eventlog.browse import Browser, Committed
from usher.eventlog.port import TopicPartition, retry_topic
from usher.handler import Router, Ruling
from usher.headers import read_delivery
from usher.sources import Source, decode, read_record


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which events are asked for; None: any."""

    id: str
    source: str | None = None
    tenant: str | None = None

    def is_(self, uid: EventUid) -> bool:
        return uid.id == self.id and self.source in {None, uid.source} and self.tenant in {None, uid.tenant}


@dataclass(frozen=True, slots=True)
class Sighting:
    """One arrival of the event. *event* is None where the source topic has it no more; *stored_at* in Unix milliseconds."""

    topic_partition: TopicPartition
    offset: int
    stored_at: int
    uid: EventUid
    event: Event | None
    duplicate_of: int | None = None


@dataclass(frozen=True, slots=True)
class Fate:
    """What became of one delivery: *state* is one word or two, *detail* the reason; the rest where it applies."""

    sighting: Sighting
    handler: str
    state: str
    detail: str
    attempt: int = 0
    due: int | None = None
    error: str = ""
    dead_letter: str = ""


@dataclass(slots=True)
class _Traces:
    """All that the log has beside the source records themselves."""

    committed: dict[TopicPartition, Committed] = field(default_factory=dict)
    parked: dict[tuple[str, str], Delivery] = field(default_factory=dict)
    unparked: set[tuple[str, str]] = field(default_factory=set)
    dead_letters: dict[tuple[str, str], ListedDeadLetter] = field(default_factory=dict)


async def trace(
    browser: Browser,
    group: str,
    topics: Sequence[str],
    router: Router,
    wanted: Wanted,
    *,
    dedupe_window: float,
    sources: Mapping[str, Source],
) -> list[Fate]:
    """The fates of all deliveries of the events *wanted*, by place; none where the log has no trace of one.

    Args:
        sources: what reads the topics that hold a system's own events.

    Raises:
        LogUnavailable
    """
    traces = await _read_traces(browser, group, topics, wanted)
    existing = {state.topic for state in await browser.topics() if state.partitions}
    sightings: dict[tuple[TopicPartition, int], Sighting] = {}
    for topic in topics:
        if topic in existing:
            async for batch in browser.scan(topic):
                for found in _sightings(batch, wanted, sources.get(topic)):
                    sightings[found.topic_partition, found.offset] = found
    for delivery in _remembered(traces):
        origin = delivery.origin
        topic_partition = TopicPartition(origin.topic, origin.partition)
        gone = Sighting(topic_partition, origin.offset, origin.timestamp, delivery.uid, None)
        sightings.setdefault((topic_partition, origin.offset), gone)
    ordered = _with_duplicates([sightings[spot] for spot in sorted(sightings)], dedupe_window)
    return [fate for sighting in ordered for fate in _fates(sighting, router, traces)]


async def identities_about(
    browser: Browser, topics: Sequence[str], user: str, *, sources: Mapping[str, Source]
) -> list[EventUid]:
    """The events about a *user*, who is named by id, email address or phone number, in the order of the topics.

    Raises:
        LogUnavailable
    """
    found: dict[EventUid, None] = {}
    existing = {state.topic for state in await browser.topics() if state.partitions}
    for topic in topics:
        if topic in existing:
            async for batch in browser.scan(topic):
                events = (_event_in(record, sources.get(topic)) for record in batch)
                found |= {event.uid: None for event in events if event is not None and _is_about(event, user)}
    return list(found)


def _is_about(event: Event, user: str) -> bool:
    if user in {event.user.id, event.context.user_id, event.user.phone}:
        return True
    return event.user.email is not None and event.user.email.casefold() == user.casefold()


async def _read_traces(browser: Browser, group: str, topics: Sequence[str], wanted: Wanted) -> _Traces:
    # Commits first: what settles while the rest is read is then reported as waiting, never as settled before it was.
    traces = _Traces()
    existing = {state.topic for state in await browser.topics() if state.partitions}
    for topic in topics:
        if topic in existing:
            traces.committed |= {entry.topic_partition: entry for entry in await browser.committed(topic)}
        if (retries := retry_topic(group, topic)) in existing:
            async for batch in browser.scan(retries):
                _fold_retries(batch, topic, wanted, traces)
    for listed in await read_dead_letters(browser, group, topics):  # oldest first: the last letter of a delivery counts
        if wanted.is_(listed.dead_letter.delivery.uid):
            traces.dead_letters[listed.topic, listed.dead_letter.delivery.key] = listed
    return traces


def _fold_retries(batch: Iterable[Record], topic: str, wanted: Wanted, traces: _Traces) -> None:
    for record in batch:
        key = (record.key or b"").decode("utf-8", "replace")
        if key.startswith(REQUEST_PREFIX):
            continue
        if record.value is None:
            traces.parked.pop((topic, key), None)
            traces.unparked.add((topic, key))
            continue
        try:
            delivery = read_delivery(record)
        except ValueError:
            continue
        if wanted.is_(delivery.uid):
            traces.parked[topic, key] = delivery


def _remembered(traces: _Traces) -> Iterator[Delivery]:
    yield from traces.parked.values()
    yield from (listed.dead_letter.delivery for listed in traces.dead_letters.values())


def _sightings(batch: Iterable[Record], wanted: Wanted, source: Source | None) -> Iterator[Sighting]:
    for record in batch:
        event = _event_in(record, source)
        if event is not None and wanted.is_(event.uid):
            topic_partition = TopicPartition(record.topic, record.partition)
            yield Sighting(topic_partition, record.offset, record.timestamp, event.uid, event)


def _event_in(record: Record, source: Source | None) -> Event | None:
    if source is not None:
        arrival = read_record(source, record)
        return arrival.event if arrival else None
    try:
        return decode(record.value or b"")
    except Undecodable:
        return None


def _with_duplicates(sightings: Iterable[Sighting], window: float) -> Iterator[Sighting]:
    """*sightings* in order; those that repeat one of the same partition within *window* seconds say which."""
    first: dict[tuple[TopicPartition, EventUid], Sighting] = {}
    for sighting in sightings:
        key = (sighting.topic_partition, sighting.uid)
        earlier = first.get(key)
        if earlier is not None and sighting.stored_at - earlier.stored_at <= window * 1000:
            yield Sighting(
                sighting.topic_partition,
                sighting.offset,
                sighting.stored_at,
                sighting.uid,
                sighting.event,
                earlier.offset,
            )
        else:
            first[key] = sighting
            yield sighting


def _fates(sighting: Sighting, router: Router, traces: _Traces) -> Iterator[Fate]:
    rulings: Mapping[str, Ruling] = {}
    if sighting.event is not None:
        rulings = {ruling.handler.name: ruling for ruling in router.explain(sighting.event)}
    strangers = {
        delivery.handler
        for delivery in _remembered(traces)
        if (delivery.origin.topic, delivery.origin.partition, delivery.offset)
        == (*sighting.topic_partition, sighting.offset)
    }
    for handler in sorted({*rulings, *strangers}):
        if (known := _known(sighting, handler, traces)) is not None:
            yield known
        elif handler in rulings:
            yield _by_commit(sighting, handler, rulings[handler], router, traces)


def _known(sighting: Sighting, handler: str, traces: _Traces) -> Fate | None:
    """What a letter, a parked delivery or a tombstone tells."""
    topic, partition = sighting.topic_partition
    key = (topic, delivery_key(handler, sighting.uid, partition, sighting.offset))
    if (delivery := traces.parked.get(key)) is not None:
        due = "once it is the first of its user" if delivery.due is None else f"due {moment(delivery.due)}"
        return Fate(sighting, handler, "parked", due, delivery.attempt, delivery.due, delivery.error)
    if (listed := traces.dead_letters.get(key)) is not None:
        return _of_dead_letter(sighting, listed)
    if key in traces.unparked:
        return Fate(sighting, handler, "settled", "it had been parked, and is done")
    return None


def _of_dead_letter(sighting: Sighting, listed: ListedDeadLetter) -> Fate:
    dead_letter = listed.dead_letter
    state = {"open": "dead", "refused": "dead", "requested": "replay requested"}.get(
        dead_letter.state, dead_letter.state
    )
    detail = (
        dead_letter.reason
        if dead_letter.state == "open"
        else f"{dead_letter.reason}; {dead_letter.state} {dead_letter.note}".rstrip()
    )
    return Fate(
        sighting,
        dead_letter.handler,
        state,
        detail,
        dead_letter.delivery.attempt,
        error=dead_letter.delivery.error,
        dead_letter=listed.name,
    )


def _by_commit(sighting: Sighting, handler: str, ruling: Ruling, router: Router, traces: _Traces) -> Fate:
    """What the commit tells of a delivery that left no other trace."""
    if not ruling.runs:
        return Fate(sighting, handler, "filtered", ruling.condition)
    if sighting.duplicate_of is not None:
        return Fate(sighting, handler, "filtered", f"duplicate of offset {sighting.duplicate_of}")
    commit, offset = traces.committed.get(sighting.topic_partition), sighting.offset
    if commit is None or commit.next is None:
        return Fate(sighting, handler, "waiting", "the group has committed nothing here yet")
    if offset < commit.next:
        return Fate(sighting, handler, "settled", f"{ruling.condition}; done, and neither parked nor dead")
    mark = Mark.decode(commit.mark, commit.next)
    if mark is None or offset >= mark.seen:
        return Fate(sighting, handler, "waiting", f"not read as of the last commit, at {commit.next}")
    names = sorted(router.handlers)
    bit = 1 << names.index(handler)
    valid = mark.handlers == handlers_hash(names)
    if offset in mark.undone and not (valid and mark.undone[offset] & bit):
        return Fate(sighting, handler, "waiting", "read, and not done as of the last commit")
    return Fate(sighting, handler, "settled", f"{ruling.condition}; done, and neither parked nor dead")
