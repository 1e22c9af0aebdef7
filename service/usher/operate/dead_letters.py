"""The dead letters of all source topics as one list: read them, name them, choose some, count them, drop them.

The id of a dead letter is unique only in its topic; with several source topics it is written ``TOPIC:PARTITION@OFFSET``.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Iterable, Sequence
from dataclasses import dataclass

from usher.delivery import Record
from usher.delivery.headers import ours
from usher.engine.dead_letters import (
    MAX_REPLAYS,
    OPEN_STATES,
    REQUEST_PREFIX,
    DeadLetter,
    fold,
    mark_requested,
    pending_requests,
    state_headers,
)
from usher.event import Event, Undecodable
from usher.eventlog.browse import Browser
from usher.eventlog.names import dead_letter_topic, retry_topic
from usher.operate.errors import NotFound
from usher.settings import Settings
from usher.storage import browser as open_browser
from usher.systems.decode import decode


@dataclass(frozen=True, slots=True)
class DeadLetterEntry:
    """A dead letter, the source *topic* that it belongs to, and the *name* that commands show and take."""

    topic: str
    dead_letter: DeadLetter
    name: str

    @property
    def open(self) -> bool:
        """Whether it may still be replayed or dropped."""
        return self.dead_letter.state in OPEN_STATES


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


async def read_all(settings: Settings) -> list[DeadLetterEntry]:
    """Read all dead letters in the event log that the settings name, as `read` does.

    Raises:
        LogUnavailable, LogMisconfigured
    """
    async with open_browser(settings) as browser:
        return await read(browser, settings.group, settings.topic_names)


async def read(browser: Browser, group: str, topics: Sequence[str]) -> list[DeadLetterEntry]:
    """Read all dead letters of *topics*, oldest first, each in its present state.

    Raises:
        LogUnavailable
    """
    existing = await browser.existing()
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
    if retry_topic(group, topic) in existing:
        requests = [record async for record in requests_in(browser, group, topic)]
    dead_letters: dict[str, DeadLetter] = {}
    if (dead := dead_letter_topic(group, topic)) in existing:
        async for batch in browser.scan(dead):
            fold(ours(batch, group, topic), dead_letters)
    still_open = {id_: dead_letter for id_, dead_letter in dead_letters.items() if dead_letter.state in OPEN_STATES}
    mark_requested(pending_requests(requests).values(), still_open)
    return (dead_letters | still_open).values()


async def requests_in(browser: Browser, group: str, topic: str) -> AsyncIterator[Record]:
    """Yield the requests to replay dead letters of *group* and the source *topic*."""
    prefix = REQUEST_PREFIX.encode()
    async for batch in browser.scan(retry_topic(group, topic)):
        for record in ours(batch, group, topic):
            if (record.key or b"").startswith(prefix):
                yield record


def named(
    dead_letters: Iterable[DeadLetterEntry], names: Iterable[str], topics: Sequence[str]
) -> list[DeadLetterEntry]:
    """Return the dead letters that an operator named. With a single topic a name may be given without its prefix.

    Raises:
        NotFound: there is no dead letter of such a name.
    """
    known = {entry.name: entry for entry in dead_letters}
    prefix = f"{topics[0]}:" if len(topics) == 1 else ""
    found: list[DeadLetterEntry] = []
    for name in names:
        if (entry := known.get(name.removeprefix(prefix))) is None:
            raise NotFound(f"there is no dead letter {name}; `usher dlq list --state all` shows them")
        found.append(entry)
    return found


def chosen(
    dead_letters: Sequence[DeadLetterEntry], choice: Choice, topics: Sequence[str], now: int
) -> list[DeadLetterEntry]:
    """Return those of *dead_letters* that match *choice* at *now* (Unix milliseconds).

    Named ones are taken in any state, so that a report can say why they are left out; otherwise only open ones are.

    Raises:
        NotFound: there is no dead letter of a name in *choice*.
    """
    if choice.names:
        dead_letters = named(dead_letters, dict.fromkeys(choice.names), topics)
    else:
        dead_letters = [entry for entry in dead_letters if entry.open]
    return [entry for entry in dead_letters if choice.takes(entry, now)]


def summary(dead_letters: Iterable[DeadLetterEntry], now: int) -> list[dict[str, object]]:
    """Count *dead_letters* by handler and reason: all of them, the expired, the replayed before, and those replayed too often."""
    rows: dict[tuple[str, str], dict[str, int]] = {}
    for entry in dead_letters:
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


def event_in(dead_letter: DeadLetter) -> Event | None:
    """Return the event of a dead letter; None: it can't be decoded."""
    try:
        return decode(dead_letter.delivery.value)
    except Undecodable:
        return None


def masked(address: str | None) -> str | None:
    """Mask an address or user name so that only a person who knows it can recognize it: ``s…@example.com``, ``…89``."""
    if address is None:
        return None
    local, at, domain = address.rpartition("@")
    if at:
        return f"{local[:1]}…@{domain}"
    return f"…{address[-2:]}" if len(address) > 4 else "…"


async def drop(browser: Browser, group: str, dead_letters: Iterable[DeadLetterEntry]) -> None:
    """Note in the dead-letter topic that *dead_letters* were dropped. Return once that is acknowledged.

    Raises:
        LogUnavailable
    """
    for entry in dead_letters:
        headers = state_headers(entry.dead_letter.id, "dropped", group=group, topic=entry.topic)
        topic, key = dead_letter_topic(group, entry.topic), entry.dead_letter.delivery.origin.key
        await browser.append(topic, key, None, headers, partition=entry.dead_letter.partition)
