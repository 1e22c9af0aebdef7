"""Trace events: find them by id, user, address or message, and say what became of each of their deliveries.

What has a receipt, is parked or dead is found at once. The rest is looked for in the source topics.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final, NoReturn

from usher.delivery import Delivery, opaque
from usher.engine.ledger import Mark
from usher.event import Event, EventUid, Undecodable
from usher.eventlog.browse import Browser
from usher.eventlog.port import TopicPartition
from usher.handler import Router
from usher.operate.event_traces import EventTrace, endings, gathered, known_sightings, repeats
from usher.operate.fates import Findings, Judge, uid_of
from usher.operate.progress import ReadingProgress
from usher.operate.receipt_index import ReceiptIndex, ask
from usher.operate.sightings import Search, Sighting
from usher.operate.traces import Traces, read_traces
from usher.operate.wanted import Wanted
from usher.outcome import duration_text
from usher.parts import find_handlers
from usher.receipts import Receipt
from usher.receipts.keys import AddressKeys, channel_of
from usher.settings import Settings
from usher.storage import browser as open_browser
from usher.storage import reading_keys
from usher.systems.decode import decode
from usher.systems.open import open_systems
from usher.systems.source import Source

WEEK: Final = 7 * 86_400.0
_MOST_LOOKED_AT: Final = 500
"""Source records that are read one by one: the newest arrivals."""


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked for: the events with *ids*, or those of a *user* or an *address*, or the one that a message was about.

    *since* is in Unix seconds: what has left nothing behind is looked for from there on, and older events of a person are left out;
    None: a week, and none. *everything*: also what handlers for other types of events did not do, and what has left nothing behind.
    """

    ids: tuple[str, ...] = ()
    user: str | None = None
    address: str | None = None
    message_id: str | None = None
    source: str | None = None
    tenant: str | None = None
    since: float | None = None
    everything: bool = False

    @property
    def wanted(self) -> Wanted:
        return Wanted(frozenset(self.ids), self.user, self.address, self.source, self.tenant)


async def find_traces(
    settings: Settings, question: Question, progress: ReadingProgress | None = None
) -> list[EventTrace]:
    """Return what became of the events that are asked for, in the event log that the settings name: the oldest first.

    Raises:
        LogUnavailable, LogMisconfigured, HandlerError, SettingsError, OperateError
    """
    router = Router(find_handlers(settings), settings.triggered_by)
    async with open_browser(settings) as browser:
        return await trace(settings, browser, router, question, progress or ReadingProgress())


async def trace(
    settings: Settings, browser: Browser, router: Router, question: Question, progress: ReadingProgress
) -> list[EventTrace]:
    """As `find_traces`, in the event log of *browser* and for the handlers of *router*."""
    traces, keys = await asyncio.gather(
        read_traces(browser, settings.group, settings.topic_names, progress), reading_keys(settings, browser)
    )

    async def answer(index: ReceiptIndex) -> list[EventTrace]:
        return await _Tracer(settings, browser, router, question, progress, traces, keys, index).events()

    return await ask(settings, browser, progress, answer)


def sources_of(settings: Settings) -> Mapping[str, Source]:
    """Return the sources of the topics that hold a system's own events. They call no API."""
    if not any(topic.source for topic in settings.topics):
        return {}
    return open_systems(settings, _no_session).sources_of_topics(settings)


def _no_session() -> NoReturn:
    raise RuntimeError("reading a topic calls no API")


@dataclass(slots=True)
class _Tracer:
    """Answers one question."""

    settings: Settings
    browser: Browser
    router: Router
    question: Question
    progress: ReadingProgress
    traces: Traces
    keys: AddressKeys | None
    index: ReceiptIndex

    async def events(self) -> list[EventTrace]:
        receipts = [receipt for receipt in self._receipts() if self.question.wanted.takes(uid_of(receipt))]
        receipts = self._whole(uid_of(receipt) for receipt in receipts)
        traces = self.traces.only(self._wanted_delivery({uid_of(receipt) for receipt in receipts}))
        sightings = await self._sightings(receipts, traces)
        unseen = {each.uid for each in sightings} - {uid_of(receipt) for receipt in receipts}
        receipts += self._whole(unseen)
        findings = await self._findings(receipts, sightings)
        found = gathered(sightings, receipts, Judge(self.router, traces, findings), everything=self.question.everything)
        return [each for each in found if self._recent(each)]

    def _recent(self, event: EventTrace) -> bool:
        return self.question.since is None or bool(self.question.ids) or event.stored_at >= self.question.since * 1000

    def _kept(self, *texts: str) -> set[str]:
        """Return how receipts may keep these texts."""
        keys = self.keys
        return {*texts, *(kept for text in texts for kept in (keys.all_kept(text) if keys is not None else ()))}

    def _receipts(self) -> list[Receipt]:
        question, index = self.question, self.index
        if question.message_id is not None:
            return index.of_message(question.message_id)
        if question.ids:
            return index.of_events(self._kept(*question.ids, *map(opaque, question.ids)))
        found = [] if question.user is None else index.of_user(self._kept(question.user))
        for text in filter(None, (question.user, question.address)):
            if self.keys is not None:
                found += index.of_address(self.keys.hmacs(text, channel_of(text)))
        return found

    def _whole(self, uids: Iterable[EventUid]) -> list[Receipt]:
        """Return all receipts of events."""
        wanted = set(uids)
        return [receipt for receipt in self.index.of_events({uid.id for uid in wanted}) if uid_of(receipt) in wanted]

    def _wanted_delivery(self, uids: set[EventUid]) -> Callable[[Delivery], bool]:
        wanted, may_be = self.question.wanted, self.question.wanted.may_be()

        def test(delivery: Delivery) -> bool:
            if delivery.uid in uids or wanted.is_called(delivery.uid):
                return True
            if self.question.ids or self.question.message_id or not may_be(delivery.value):
                return False
            event = _event_of(delivery)
            return event is not None and wanted.is_(event)

        return test

    async def _sightings(self, receipts: list[Receipt], traces: Traces) -> list[Sighting]:
        known = known_sightings(receipts, traces)
        found = dict(known)
        newest = sorted(known, key=lambda place: -known[place].stored_at)[:_MOST_LOOKED_AT]
        for seen in await self._search().at({spot for _, spot in newest}):
            if (seen.uid, seen.spot) in found:
                found[seen.uid, seen.spot] = seen
        for more in await self._more(list(found.values())):
            found.setdefault((more.uid, more.spot), more)
        return sorted(found.values(), key=lambda each: (each.stored_at, each.spot))

    async def _more(self, known: list[Sighting]) -> list[Sighting]:
        """Look for what has left nothing behind: at length where nothing is known, else only for what may be there beside it."""
        question = self.question
        if question.message_id is not None:
            return []
        since = time.time() - WEEK if question.since is None else question.since
        if question.everything or not known:
            return await self._search().since(since)
        if not question.ids:
            unread = {at: entry.next for at, entry in self.traces.committed.items() if entry.next is not None}
            return await self._search().unread(unread)
        missing = tuple(
            id_ for id_ in question.ids if not any(Wanted(frozenset({id_})).is_called(each.uid) for each in known)
        )
        found = await self._search(replace(question, ids=missing)).since(since) if missing else []
        there = [each for each in known if each.event is not None]
        return found + await self._search().after(there, self.settings.dedupe_window)

    def _search(self, question: Question | None = None) -> Search:
        wanted = (question or self.question).wanted
        return Search(self.browser, self.traces.topics, wanted, sources_of(self.settings), self.progress)

    async def _findings(self, receipts: list[Receipt], sightings: Sequence[Sighting]) -> Findings:
        keep = self.settings.receipts.keep if self.settings.receipts.on else None
        before = {}
        for each in sightings:
            read = self._read_to(each.topic_partition)
            if each.event is not None and read is not None and each.offset >= read and each.committed:
                before[each.spot] = await self.browser.count(each.topic_partition, read, each.offset)
        earlier = repeats(sightings, self.settings.dedupe_window)
        return Findings(endings(receipts), earlier, before, "" if keep is None else duration_text(keep))

    def _read_to(self, topic_partition: TopicPartition) -> int | None:
        """Return the offset up to which the group has read, as of its last commit."""
        commit = self.traces.committed.get(topic_partition)
        if commit is None or commit.next is None:
            return None
        mark = Mark.decode(commit.mark, commit.next)
        return commit.next if mark is None else max(mark.seen, commit.next)


def _event_of(delivery: Delivery) -> Event | None:
    with contextlib.suppress(Undecodable):
        return decode(delivery.value)
    return None
