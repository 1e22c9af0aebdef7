"""The dead letters of all source topics as one list: how they are read, named, chosen, and sorted into what may be replayed.

A letter's id is unique in its dead-letter topic only; with several source topics it is written ``TOPIC:PARTITION@OFFSET``.
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
    pending_requests,
    request,
    state_headers,
)
from usher.eventlog.browse import Browser
from usher.eventlog.port import dead_letter_topic, retry_topic

_AT_ONCE = 100
"""Requests that wait for the log's acknowledgement side by side."""


@dataclass(frozen=True, slots=True)
class ListedDeadLetter:
    """A letter, the source *topic* it belongs to, and the *name* an operator calls it by."""

    topic: str
    dead_letter: DeadLetter
    name: str


@dataclass(frozen=True, slots=True)
class Choice:
    """What an operator asks for; all that is given must hold. Ages are in seconds."""

    names: Collection[str] = ()
    handler: str | None = None
    reason: str | None = None
    older_than: float | None = None
    newer_than: float | None = None

    @property
    def empty(self) -> bool:
        """Whether nothing was asked for: then nothing is meant, and not everything."""
        return self == Choice()

    def takes(self, listed: ListedDeadLetter, now: int) -> bool:
        """Whether *listed* is meant, at *now* (Unix milliseconds), names aside: `named` finds those."""
        dead_letter, age = listed.dead_letter, (now - listed.dead_letter.at) / 1000
        return (
            self.handler in {None, dead_letter.handler}
            and self.reason in {None, dead_letter.reason}
            and (self.older_than is None or age >= self.older_than)
            and (self.newer_than is None or age <= self.newer_than)
        )


@dataclass(slots=True)
class Plan:
    """The chosen letters by what a replay may do with them."""

    ready: list[ListedDeadLetter] = field(default_factory=list)
    expired: list[ListedDeadLetter] = field(default_factory=list)
    beyond: list[ListedDeadLetter] = field(default_factory=list)
    closed: list[ListedDeadLetter] = field(default_factory=list)

    @property
    def refused(self) -> list[ListedDeadLetter]:
        """Open letters that will not be replayed as things are."""
        return [*self.expired, *self.beyond]


async def read(browser: Browser, group: str, topics: Sequence[str]) -> list[ListedDeadLetter]:
    """All letters of *topics*, oldest first, in the state that the log tells.

    Raises:
        LogUnavailable
    """
    existing = {state.topic for state in await browser.topics() if state.partitions}
    found: list[ListedDeadLetter] = []
    for topic in topics:
        dead_letters = await _of_topic(browser, group, topic, existing)
        found += [
            ListedDeadLetter(topic, dead_letter, dead_letter.id if len(topics) == 1 else f"{topic}:{dead_letter.id}")
            for dead_letter in dead_letters
        ]
    return sorted(
        found,
        key=lambda listed: (
            listed.dead_letter.at,
            listed.topic,
            listed.dead_letter.partition,
            listed.dead_letter.offset,
        ),
    )


async def _of_topic(browser: Browser, group: str, topic: str, existing: Collection[str]) -> Iterable[DeadLetter]:
    # Requests are read before the notes that answer them: a request answered in between is then seen with its answer.
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
    dead_letters: Iterable[ListedDeadLetter], names: Iterable[str], topics: Sequence[str]
) -> list[ListedDeadLetter]:
    """The letters that an operator named. With one topic its prefix may be there or not.

    Raises:
        Stop: there is no letter of a name (4).
    """
    known = {listed.name: listed for listed in dead_letters}
    prefix = f"{topics[0]}:" if len(topics) == 1 else ""
    found: list[ListedDeadLetter] = []
    for name in names:
        if (listed := known.get(name.removeprefix(prefix))) is None:
            raise Stop(f"there is no dead letter {name}; `usher dlq list --state all` shows them", Exit.NOT_FOUND)
        found.append(listed)
    return found


def sort_out(chosen: Iterable[ListedDeadLetter], now: int, *, even_expired: bool) -> Plan:
    """Sort *chosen* into what may be replayed at *now* (Unix milliseconds) and what may not."""
    plan = Plan()
    for listed in chosen:
        dead_letter = listed.dead_letter
        if dead_letter.state not in OPEN_STATES:
            plan.closed.append(listed)
        elif dead_letter.delivery.replays >= MAX_REPLAYS:
            plan.beyond.append(listed)
        elif dead_letter.expired(now) and not even_expired:
            plan.expired.append(listed)
        else:
            plan.ready.append(listed)
    return plan


def summary(chosen: Iterable[ListedDeadLetter], now: int) -> list[dict[str, object]]:
    """For each handler and reason: how many letters, and how many of them are expired, were replayed before, or too often."""
    rows: dict[tuple[str, str], dict[str, int]] = {}
    for listed in chosen:
        dead_letter = listed.dead_letter
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
    browser: Browser, group: str, ready: Sequence[ListedDeadLetter], *, even_expired: bool
) -> Mapping[str, ListedDeadLetter]:
    """Append a request to replay each of *ready*; the letters by request id, once all are acknowledged.

    Raises:
        LogUnavailable: some may have been appended; asking again is safe, those are `requested` then.
    """
    asked = {secrets.token_hex(8): listed for listed in ready}

    async def append(id_: str, listed: ListedDeadLetter) -> None:
        key, value, headers = request(listed.dead_letter, request_id=id_, even_expired=even_expired)
        await browser.append(
            retry_topic(group, listed.topic), key.encode(), value, headers, partition=listed.dead_letter.partition
        )

    pairs = list(asked.items())
    for start in range(0, len(pairs), _AT_ONCE):
        await asyncio.gather(*(append(id_, listed) for id_, listed in pairs[start : start + _AT_ONCE]))
    return asked


async def drop(browser: Browser, group: str, dead_letters: Iterable[ListedDeadLetter]) -> None:
    """Note in the dead-letter topic that *dead_letters* were dropped; returns once acknowledged.

    Raises:
        LogUnavailable
    """
    for listed in dead_letters:
        headers = state_headers(listed.dead_letter.id, "dropped")
        topic, key = dead_letter_topic(group, listed.topic), listed.dead_letter.delivery.origin.key
        await browser.append(topic, key, None, headers, partition=listed.dead_letter.partition)


async def outcomes(
    browser: Browser, group: str, asked: Mapping[str, ListedDeadLetter]
) -> AsyncIterator[Mapping[str, ListedDeadLetter]]:
    """What became of the requests *asked*: each step gives those answered since the last one, until all are.

    Every step reads the topics again from their beginning; the caller decides how long to wait between two.
    """
    waiting = dict(asked)
    while waiting:
        answered = await _answers(browser, group, waiting)
        for id_ in answered:
            del waiting[id_]
        yield answered


async def _answers(
    browser: Browser, group: str, waiting: Mapping[str, ListedDeadLetter]
) -> Mapping[str, ListedDeadLetter]:
    answered: dict[str, ListedDeadLetter] = {}
    for topic in {listed.topic for listed in waiting.values()}:
        pending = pending_requests([record async for record in _requests(browser, retry_topic(group, topic))])
        done = {id_: listed for id_, listed in waiting.items() if listed.topic == topic and id_ not in pending}
        if not done:
            continue
        dead_letters: dict[str, DeadLetter] = {}
        async for batch in browser.scan(dead_letter_topic(group, topic)):
            fold(batch, dead_letters)
        for id_, listed in done.items():
            answered[id_] = ListedDeadLetter(
                topic, dead_letters.get(listed.dead_letter.id, listed.dead_letter), listed.name
            )
    return answered
