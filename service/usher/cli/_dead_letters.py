"""The dead letters of all source topics as one list: read them, name them, choose some, and sort out which may be replayed.

The id of a dead letter is unique only in its topic; with several source topics it is written ``TOPIC:PARTITION@OFFSET``.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from usher.cli._exits import Exit, Stop
from usher.delivery import Record
from usher.engine.dead_letters import (
    MAX_REPLAYS,
    OPEN_STATES,
    REQUEST_PREFIX,
    DeadLetter,
    fold,
    mark_requested,
    note_headers,
    pending_requests,
    request,
)
from usher.engine.port import Browser, dead_letter_topic, retry_topic

_AT_ONCE = 100
"""Requests that wait for the event log's acknowledgement at the same time."""


@dataclass(frozen=True, slots=True)
class DeadLetterEntry:
    """A dead letter, the source *topic* that it belongs to, and the *name* that commands show and take."""

    topic: str
    dead_letter: DeadLetter
    name: str


@dataclass(frozen=True, slots=True)
class Choice:
    """What an operator asks for; a dead letter must match all that is given. Ages are in seconds."""

    names: Collection[str] = ()
    handler: str | None = None
    reason: str | None = None
    older_than: float | None = None
    newer_than: float | None = None

    @property
    def empty(self) -> bool:
        """Whether nothing was asked for: then no dead letter is chosen, rather than all of them."""
        return self == Choice()

    def takes(self, entry: DeadLetterEntry, now: int) -> bool:
        """Say whether *entry* matches at *now* (Unix milliseconds). Names are left aside: `named` finds those."""
        dead_letter, age = entry.dead_letter, (now - entry.dead_letter.at) / 1000
        return (
            self.handler in {None, dead_letter.handler}
            and self.reason in {None, dead_letter.reason}
            and (self.older_than is None or age >= self.older_than)
            and (self.newer_than is None or age <= self.newer_than)
        )


@dataclass(slots=True)
class Plan:
    """The chosen dead letters, sorted by what a replay may do with them."""

    ready: list[DeadLetterEntry] = field(default_factory=list)
    expired: list[DeadLetterEntry] = field(default_factory=list)
    beyond: list[DeadLetterEntry] = field(default_factory=list)
    closed: list[DeadLetterEntry] = field(default_factory=list)

    @property
    def refused(self) -> list[DeadLetterEntry]:
        """The open dead letters that will not be replayed."""
        return [*self.expired, *self.beyond]


async def read(browser: Browser, group: str, topics: Sequence[str]) -> list[DeadLetterEntry]:
    """Read all dead letters of *topics*, oldest first, each in its present state.

    Raises:
        LogUnavailable
    """
    existing = {state.topic for state in await browser.topics() if state.partitions}
    found: list[DeadLetterEntry] = []
    for topic in topics:
        dead_letters = await _of_topic(browser, group, topic, existing)
        found += [
            DeadLetterEntry(topic, dead_letter, dead_letter.id if len(topics) == 1 else f"{topic}:{dead_letter.id}")
            for dead_letter in dead_letters
        ]
    return sorted(
        found,
        key=lambda entry: (
            entry.dead_letter.at,
            entry.topic,
            entry.dead_letter.partition,
            entry.dead_letter.offset,
        ),
    )


async def _of_topic(browser: Browser, group: str, topic: str, existing: Collection[str]) -> Iterable[DeadLetter]:
    # Read the requests before the notes that answer them: a request that is answered in between then has its answer.
    requests: list[Record] = []
    if (retries := retry_topic(group, topic)) in existing:
        requests = [record async for record in _requests(browser, retries)]
    dead_letters: dict[str, DeadLetter] = {}
    if (dead := dead_letter_topic(group, topic)) in existing:
        async for batch in browser.scan(dead):
            fold(batch, dead_letters)
    still_open = {id_: dead_letter for id_, dead_letter in dead_letters.items() if dead_letter.state in OPEN_STATES}
    mark_requested(pending_requests(requests).values(), still_open)
    return (dead_letters | still_open).values()


async def _requests(browser: Browser, topic: str) -> AsyncIterator[Record]:
    prefix = REQUEST_PREFIX.encode()
    async for batch in browser.scan(topic):
        for record in batch:
            if (record.key or b"").startswith(prefix):
                yield record


def named(
    dead_letters: Iterable[DeadLetterEntry], names: Iterable[str], topics: Sequence[str]
) -> list[DeadLetterEntry]:
    """Return the dead letters that an operator named. With a single topic a name may be given without its prefix.

    Raises:
        Stop: there is no dead letter of such a name (4).
    """
    known = {entry.name: entry for entry in dead_letters}
    prefix = f"{topics[0]}:" if len(topics) == 1 else ""
    found: list[DeadLetterEntry] = []
    for name in names:
        if (entry := known.get(name.removeprefix(prefix))) is None:
            raise Stop(f"there is no dead letter {name}; `usher dlq list --state all` shows them", Exit.NOT_FOUND)
        found.append(entry)
    return found


def sort_out(chosen: Iterable[DeadLetterEntry], now: int, *, even_expired: bool) -> Plan:
    """Sort *chosen* into what may be replayed at *now* (Unix milliseconds) and what may not."""
    plan = Plan()
    for entry in chosen:
        dead_letter = entry.dead_letter
        if dead_letter.state not in OPEN_STATES:
            plan.closed.append(entry)
        elif dead_letter.delivery.replays >= MAX_REPLAYS:
            plan.beyond.append(entry)
        elif dead_letter.expired(now) and not even_expired:
            plan.expired.append(entry)
        else:
            plan.ready.append(entry)
    return plan


def summary(chosen: Iterable[DeadLetterEntry], now: int) -> list[dict[str, object]]:
    """Count *chosen* by handler and reason: all of them, the expired, the replayed before, and those replayed too often."""
    rows: dict[tuple[str, str], dict[str, int]] = {}
    for entry in chosen:
        dead_letter = entry.dead_letter
        row = rows.setdefault(
            (dead_letter.handler, dead_letter.reason),
            {"dead_letters": 0, "expired": 0, "replayed_before": 0, "beyond_limit": 0},
        )
        row["dead_letters"] += 1
        row["expired"] += dead_letter.expired(now)
        row["replayed_before"] += dead_letter.delivery.replays > 0
        row["beyond_limit"] += dead_letter.delivery.replays >= MAX_REPLAYS
    return [{"handler": handler, "reason": reason, **row} for (handler, reason), row in sorted(rows.items())]


async def ask(
    browser: Browser, group: str, ready: Sequence[DeadLetterEntry], *, even_expired: bool
) -> Mapping[str, DeadLetterEntry]:
    """Append a request to replay each of *ready*. Return them by request id, once all requests are acknowledged.

    Raises:
        LogUnavailable: some may have been appended; asking again is safe, since their state is `requested` then.
    """
    asked = {secrets.token_hex(8): entry for entry in ready}

    async def append(id_: str, entry: DeadLetterEntry) -> None:
        key, value, headers = request(entry.dead_letter, request_id=id_, even_expired=even_expired)
        await browser.append(
            retry_topic(group, entry.topic), key.encode(), value, headers, partition=entry.dead_letter.partition
        )

    pairs = list(asked.items())
    for start in range(0, len(pairs), _AT_ONCE):
        await asyncio.gather(*(append(id_, entry) for id_, entry in pairs[start : start + _AT_ONCE]))
    return asked


async def drop(browser: Browser, group: str, dead_letters: Iterable[DeadLetterEntry]) -> None:
    """Note in the dead-letter topic that *dead_letters* were dropped. Return once that is acknowledged.

    Raises:
        LogUnavailable
    """
    for entry in dead_letters:
        headers = note_headers(entry.dead_letter.id, "dropped")
        topic, key = dead_letter_topic(group, entry.topic), entry.dead_letter.delivery.origin.key
        await browser.append(topic, key, None, headers, partition=entry.dead_letter.partition)


async def outcomes(
    browser: Browser, group: str, asked: Mapping[str, DeadLetterEntry]
) -> AsyncIterator[Mapping[str, DeadLetterEntry]]:
    """Follow the requests *asked* until all are answered: each step gives those answered since the last step.

    Every step reads the topics again from their beginning; the caller decides how long to wait between two steps.
    """
    waiting = dict(asked)
    while waiting:
        answered = await _answers(browser, group, waiting)
        for id_ in answered:
            del waiting[id_]
        yield answered


async def _answers(
    browser: Browser, group: str, waiting: Mapping[str, DeadLetterEntry]
) -> Mapping[str, DeadLetterEntry]:
    answered: dict[str, DeadLetterEntry] = {}
    for topic in {entry.topic for entry in waiting.values()}:
        pending = pending_requests([record async for record in _requests(browser, retry_topic(group, topic))])
        done = {id_: entry for id_, entry in waiting.items() if entry.topic == topic and id_ not in pending}
        if not done:
            continue
        dead_letters: dict[str, DeadLetter] = {}
        async for batch in browser.scan(dead_letter_topic(group, topic)):
            fold(batch, dead_letters)
        for id_, entry in done.items():
            answered[id_] = DeadLetterEntry(
                topic, dead_letters.get(entry.dead_letter.id, entry.dead_letter), entry.name
            )
    return answered
