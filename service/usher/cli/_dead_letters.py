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
from usher.engine.letters import (
    MAX_REPLAYS,
    OPEN_STATES,
    REQUEST_PREFIX,
    Letter,
    fold,
    mark_requested,
    note_headers,
    pending_requests,
    request,
)
from usher.engine.port import Browser, dead_letter_topic, retry_topic

_AT_ONCE = 100
"""Requests that wait for the log's acknowledgement side by side."""


@dataclass(frozen=True, slots=True)
class Filed:
    """A letter, the source *topic* it belongs to, and the *name* an operator calls it by."""

    topic: str
    letter: Letter
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

    def takes(self, filed: Filed, now: int) -> bool:
        """Whether *filed* is meant, at *now* (Unix milliseconds), names aside: `named` finds those."""
        letter, age = filed.letter, (now - filed.letter.at) / 1000
        return (
            self.handler in {None, letter.handler}
            and self.reason in {None, letter.reason}
            and (self.older_than is None or age >= self.older_than)
            and (self.newer_than is None or age <= self.newer_than)
        )


@dataclass(slots=True)
class Plan:
    """The chosen letters by what a replay may do with them."""

    ready: list[Filed] = field(default_factory=list)
    expired: list[Filed] = field(default_factory=list)
    beyond: list[Filed] = field(default_factory=list)
    closed: list[Filed] = field(default_factory=list)

    @property
    def refused(self) -> list[Filed]:
        """Open letters that will not be replayed as things are."""
        return [*self.expired, *self.beyond]


async def read(browser: Browser, group: str, topics: Sequence[str]) -> list[Filed]:
    """All letters of *topics*, oldest first, in the state that the log tells.

    Raises:
        LogUnavailable
    """
    existing = {state.topic for state in await browser.topics() if state.partitions}
    found: list[Filed] = []
    for topic in topics:
        for letter in await _of_topic(browser, group, topic, existing):
            found.append(Filed(topic, letter, letter.id if len(topics) == 1 else f"{topic}:{letter.id}"))  # noqa: PERF401
    return sorted(found, key=lambda filed: (filed.letter.at, filed.topic, filed.letter.partition, filed.letter.offset))


async def _of_topic(browser: Browser, group: str, topic: str, existing: Collection[str]) -> Iterable[Letter]:
    # Requests are read before the notes that answer them: a request answered in between is then seen with its answer.
    requests: list[Record] = []
    if (retries := retry_topic(group, topic)) in existing:
        requests = [record async for record in _requests(browser, retries)]
    letters: dict[str, Letter] = {}
    if (dead := dead_letter_topic(group, topic)) in existing:
        async for batch in browser.scan(dead):
            fold(batch, letters)
    still_open = {id_: letter for id_, letter in letters.items() if letter.state in OPEN_STATES}
    mark_requested(pending_requests(requests).values(), still_open)
    return (letters | still_open).values()


async def _requests(browser: Browser, topic: str) -> AsyncIterator[Record]:
    prefix = REQUEST_PREFIX.encode()
    async for batch in browser.scan(topic):
        for record in batch:
            if (record.key or b"").startswith(prefix):
                yield record


def named(letters: Iterable[Filed], names: Iterable[str], topics: Sequence[str]) -> list[Filed]:
    """The letters that an operator named. With one topic its prefix may be there or not.

    Raises:
        Stop: there is no letter of a name (4).
    """
    known = {filed.name: filed for filed in letters}
    prefix = f"{topics[0]}:" if len(topics) == 1 else ""
    found: list[Filed] = []
    for name in names:
        if (filed := known.get(name.removeprefix(prefix))) is None:
            raise Stop(f"there is no dead letter {name}; `usher dlq list --state all` shows them", Exit.NOT_FOUND)
        found.append(filed)
    return found


def sort_out(chosen: Iterable[Filed], now: int, *, even_expired: bool) -> Plan:
    """Sort *chosen* into what may be replayed at *now* (Unix milliseconds) and what may not."""
    plan = Plan()
    for filed in chosen:
        letter = filed.letter
        if letter.state not in OPEN_STATES:
            plan.closed.append(filed)
        elif letter.delivery.replays >= MAX_REPLAYS:
            plan.beyond.append(filed)
        elif letter.expired(now) and not even_expired:
            plan.expired.append(filed)
        else:
            plan.ready.append(filed)
    return plan


def summary(chosen: Iterable[Filed], now: int) -> list[dict[str, object]]:
    """For each handler and reason: how many letters, and how many of them are expired, were replayed before, or too often."""
    rows: dict[tuple[str, str], dict[str, int]] = {}
    for filed in chosen:
        letter = filed.letter
        row = rows.setdefault(
            (letter.handler, letter.reason), {"letters": 0, "expired": 0, "replayed_before": 0, "beyond_limit": 0}
        )
        row["letters"] += 1
        row["expired"] += letter.expired(now)
        row["replayed_before"] += letter.delivery.replays > 0
        row["beyond_limit"] += letter.delivery.replays >= MAX_REPLAYS
    return [{"handler": handler, "reason": reason, **row} for (handler, reason), row in sorted(rows.items())]


async def ask(browser: Browser, group: str, ready: Sequence[Filed], *, even_expired: bool) -> Mapping[str, Filed]:
    """Append a request to replay each of *ready*; the letters by request id, once all are acknowledged.

    Raises:
        LogUnavailable: some may have been appended; asking again is safe, those are `requested` then.
    """
    asked = {secrets.token_hex(8): filed for filed in ready}

    async def append(id_: str, filed: Filed) -> None:
        key, value, headers = request(filed.letter, id=id_, even_expired=even_expired)
        await browser.append(
            retry_topic(group, filed.topic), key.encode(), value, headers, partition=filed.letter.partition
        )

    pairs = list(asked.items())
    for start in range(0, len(pairs), _AT_ONCE):
        await asyncio.gather(*(append(id_, filed) for id_, filed in pairs[start : start + _AT_ONCE]))
    return asked


async def drop(browser: Browser, group: str, letters: Iterable[Filed]) -> None:
    """Note in the dead-letter topic that *letters* were dropped; returns once acknowledged.

    Raises:
        LogUnavailable
    """
    for filed in letters:
        headers = note_headers(filed.letter.id, "dropped")
        topic, key = dead_letter_topic(group, filed.topic), filed.letter.delivery.origin.key
        await browser.append(topic, key, None, headers, partition=filed.letter.partition)


async def outcomes(browser: Browser, group: str, asked: Mapping[str, Filed]) -> AsyncIterator[Mapping[str, Filed]]:
    """What became of the requests *asked*: each step gives those answered since the last one, until all are.

    Every step reads the topics again from their beginning; the caller decides how long to wait between two.
    """
    waiting = dict(asked)
    while waiting:
        answered = await _answers(browser, group, waiting)
        for id_ in answered:
            del waiting[id_]
        yield answered


async def _answers(browser: Browser, group: str, waiting: Mapping[str, Filed]) -> Mapping[str, Filed]:
    answered: dict[str, Filed] = {}
    for topic in {filed.topic for filed in waiting.values()}:
        pending = pending_requests([record async for record in _requests(browser, retry_topic(group, topic))])
        done = {id_: filed for id_, filed in waiting.items() if filed.topic == topic and id_ not in pending}
        if not done:
            continue
        letters: dict[str, Letter] = {}
        async for batch in browser.scan(dead_letter_topic(group, topic)):
            fold(batch, letters)
        for id_, filed in done.items():
            answered[id_] = Filed(topic, letters.get(filed.letter.id, filed.letter), filed.name)
    return answered
