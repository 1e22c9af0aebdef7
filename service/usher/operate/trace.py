"""Trace events in the event log: find where they are stored, and read what the fates of their deliveries follow from."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NoReturn

from usher.delivery import Record, opaque
from usher.delivery.headers import Head, ours, read_delivery
from usher.engine.dead_letters import REQUEST_PREFIX
from usher.engine.parked_row import ParkedRow
from usher.event import Event, EventUid, Undecodable
from usher.eventlog.browse import Browser
from usher.eventlog.names import retry_topic
from usher.eventlog.port import TopicPartition
from usher.handler import Router
from usher.operate.dead_letters import read as read_dead_letters
from usher.operate.fates import Fate, Sighting, Traces, fates
from usher.parts import find_handlers
from usher.settings import Settings
from usher.storage import browser as open_browser
from usher.systems.decode import decode
from usher.systems.open import open_systems
from usher.systems.source import Source, read_record


def is_called(uid: EventUid, event_id: str) -> bool:
    """Return whether *event_id*, as its source or as Usher writes it, is the id of that event."""
    return uid.id in {event_id, opaque(event_id)}


@dataclass(frozen=True, slots=True)
class Wanted:
    """The events that are asked for; None: any source, any tenant."""

    id: str
    source: str | None = None
    tenant: str | None = None

    def is_(self, uid: EventUid) -> bool:
        return is_called(uid, self.id) and self.source in {None, uid.source} and self.tenant in {None, uid.tenant}


async def find_fates(
    settings: Settings, *, event_ids: Sequence[str], user: str | None, source: str | None, tenant: str | None
) -> list[Fate]:
    """Return the fates of all deliveries of events, or of all events of a user, in the event log that the settings name.

    Args:
        event_ids: the ids of the events.
        user: the user's id, email address or phone number; None: only the events of *event_ids*.
        source: only events of this source.
        tenant: only events of this tenant.

    Raises:
        LogUnavailable, LogMisconfigured, HandlerError, SettingsError
    """
    router = Router(find_handlers(settings), settings.triggered_by)
    sources = _sources(settings)
    found: list[Fate] = []
    async with open_browser(settings) as browser:
        wanted = [Wanted(event_id, source, tenant) for event_id in event_ids]
        if user is not None:
            uids = await uids_about(browser, settings.topic_names, user, sources=sources)
            wanted = [
                Wanted(uid.id, uid.source, uid.tenant)
                for uid in uids
                if source in {None, uid.source} and tenant in {None, uid.tenant}
            ]
        for one in wanted:
            found += await trace(
                browser,
                settings.group,
                settings.topic_names,
                router,
                one,
                dedupe_window=settings.dedupe_window,
                sources=sources,
            )
    return found


def _sources(settings: Settings) -> Mapping[str, Source]:
    """Return the sources of the topics that hold a system's own events. They call no API."""
    if not any(topic.source for topic in settings.topics):
        return {}
    return open_systems(settings, _no_session).sources_of_topics(settings)


def _no_session() -> NoReturn:
    raise RuntimeError("reading a topic calls no API")


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
    """Return the fates of all deliveries of the events *wanted*, by topic partition and offset; none if there is no trace.

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
            async for batch, committed in _all_of(browser, topic):
                for found in _sightings(batch, wanted, sources.get(topic), committed=committed):
                    sightings.setdefault((found.topic_partition, found.offset), found)
    for delivery in traces.deliveries():
        origin = delivery.origin
        topic_partition = TopicPartition(origin.topic, origin.partition)
        gone = Sighting(topic_partition, origin.offset, origin.timestamp, delivery.uid, None)
        sightings.setdefault((topic_partition, origin.offset), gone)
    ordered = _with_duplicates([sightings[spot] for spot in sorted(sightings)], dedupe_window)
    return [fate for sighting in ordered for fate in fates(sighting, router, traces)]


async def uids_about(
    browser: Browser, topics: Sequence[str], user: str, *, sources: Mapping[str, Source]
) -> list[EventUid]:
    """Return the events of a *user*, in the order of the topics. The user is given by id, user name, email address or phone number.

    Raises:
        LogUnavailable
    """
    found: dict[EventUid, None] = {}
    existing = {state.topic for state in await browser.topics() if state.partitions}
    for topic in topics:
        if topic in existing:
            async for batch, _ in _all_of(browser, topic):
                events = (_event_in(record, sources.get(topic)) for record in batch)
                found |= {event.uid: None for event in events if event is not None and _is_about(event, user)}
    return list(found)


async def _all_of(browser: Browser, topic: str) -> AsyncIterator[tuple[Sequence[Record], bool]]:
    """Read what is in a topic, in batches, each with whether it is committed."""
    async for batch in browser.scan(topic):
        yield batch, True
    async for batch in browser.uncommitted(topic):
        yield batch, False


def _is_about(event: Event, user: str) -> bool:
    if user in {event.user.id, event.context.user_id, event.user.phone}:
        return True
    names = (event.user.email, event.user.username)
    return any(name is not None and name.casefold() == user.casefold() for name in names)


async def _read_traces(browser: Browser, group: str, topics: Sequence[str], wanted: Wanted) -> Traces:
    # Commits first: what settles while the rest is read is then reported as waiting, and never as settled too early.
    traces = Traces()
    existing = {state.topic for state in await browser.topics() if state.partitions}
    for topic in topics:
        if topic in existing:
            traces.committed |= {entry.topic_partition: entry for entry in await browser.committed(topic)}
        if (retries := retry_topic(group, topic)) in existing:
            async for batch in browser.scan(retries):
                _fold_retries(ours(batch, group, topic), topic, wanted, traces)
    for entry in await read_dead_letters(browser, group, topics):  # oldest first: a delivery's last one counts
        if wanted.is_(entry.dead_letter.delivery.uid):
            traces.dead_letters[entry.topic, entry.dead_letter.delivery.key] = entry
    return traces


def _fold_retries(batch: Iterable[Record], topic: str, wanted: Wanted, traces: Traces) -> None:
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
            ParkedRow.from_record(record, key, Head(record.headers))  # under its own key, as a worker checks it
        except ValueError as error:
            traces.foreign[topic, key] = str(error)
            continue
        if wanted.is_(delivery.uid):
            traces.parked[topic, key] = delivery


def _sightings(
    batch: Iterable[Record], wanted: Wanted, source: Source | None, *, committed: bool
) -> Iterator[Sighting]:
    for record in batch:
        event = _event_in(record, source)
        if event is not None and wanted.is_(event.uid):
            topic_partition = TopicPartition(record.topic, record.partition)
            yield Sighting(topic_partition, record.offset, record.timestamp, event.uid, event, committed=committed)


def _event_in(record: Record, source: Source | None) -> Event | None:
    if source is not None:
        arrival = read_record(source, record)
        return arrival.event if arrival else None
    try:
        return decode(record.value or b"")
    except Undecodable:
        return None


def _with_duplicates(sightings: Iterable[Sighting], window: float) -> Iterator[Sighting]:
    """Yield *sightings* in order; one that repeats another of its partition within *window* seconds says which."""
    first: dict[tuple[TopicPartition, EventUid], Sighting] = {}
    for sighting in sightings:
        key = (sighting.topic_partition, sighting.uid)
        earlier = first.get(key)
        if earlier is not None and sighting.stored_at - earlier.stored_at <= window * 1000:
            yield replace(sighting, duplicate_of=earlier.offset)
        else:
            first[key] = sighting
            yield sighting
