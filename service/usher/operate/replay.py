"""Replays of dead letters: sort out which may be replayed, request them from the worker, and follow what becomes of them."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from usher.delivery.headers import ours
from usher.engine.dead_letters import MAX_REPLAYS, DeadLetter, fold, pending_requests, request
from usher.eventlog.browse import Browser
from usher.eventlog.names import dead_letter_topic, retry_topic
from usher.operate.dead_letters import DeadLetterEntry, requests_in

_AT_ONCE = 100
"""Requests that wait for the event log's acknowledgement at the same time."""
_FIRST_LOOK, _LONGEST_PAUSE = 0.25, 5.0
"""Seconds between two looks at the topics, which are read from their beginning each time: at first, and at most."""


@dataclass(frozen=True, slots=True)
class ReplayResult:
    """The result for one dead letter. *request* is the request's id, None if none was made; *note* says more."""

    entry: DeadLetterEntry
    request: str | None
    result: str
    note: str = ""


@dataclass(slots=True)
class ReplayBatch:
    """The chosen dead letters, sorted by what a replay may do with them, and what has become of its requests.

    *beyond* were replayed too often, *closed* are not open. *asked* and *ended* are by request id; those in *ended* are as
    they are after the replay.
    """

    ready: list[DeadLetterEntry] = field(default_factory=list)
    expired: list[DeadLetterEntry] = field(default_factory=list)
    beyond: list[DeadLetterEntry] = field(default_factory=list)
    closed: list[DeadLetterEntry] = field(default_factory=list)
    asked: Mapping[str, DeadLetterEntry] = field(default_factory=dict)
    ended: dict[str, DeadLetterEntry] = field(default_factory=dict)

    @property
    def refused(self) -> list[DeadLetterEntry]:
        """The open dead letters that will not be replayed."""
        return [*self.expired, *self.beyond]

    @property
    def unanswered(self) -> int:
        """The number of requests that have no outcome yet."""
        return len(self.asked) - len(self.ended)

    @property
    def replayed(self) -> int:
        """The number of replays that worked."""
        return sum(entry.dead_letter.state == "replayed" for entry in self.ended.values())

    @property
    def failed(self) -> int:
        """The number of replays that failed again."""
        return len(self.ended) - self.replayed

    def results(self) -> Iterator[ReplayResult]:
        """Yield the result for each chosen dead letter."""
        for id_, entry in self.asked.items():
            after = self.ended[id_].dead_letter if id_ in self.ended else None
            yield ReplayResult(entry, id_, *((after.state, after.note) if after else ("requested", "")))
        for refused, why in ((self.expired, "expired"), (self.beyond, "beyond-limit")):
            for entry in refused:
                yield ReplayResult(entry, None, why)
        for entry in self.closed:
            yield ReplayResult(entry, None, f"already-{entry.dead_letter.state}", entry.dead_letter.note)


def sort_out(dead_letters: Iterable[DeadLetterEntry], now: int, *, even_expired: bool) -> ReplayBatch:
    """Sort *dead_letters* into those that may be replayed at *now* (Unix milliseconds) and those that may not."""
    replay = ReplayBatch()
    for entry in dead_letters:
        dead_letter = entry.dead_letter
        if not entry.open:
            replay.closed.append(entry)
        elif dead_letter.delivery.replays >= MAX_REPLAYS:
            replay.beyond.append(entry)
        elif dead_letter.expired(now) and not even_expired:
            replay.expired.append(entry)
        else:
            replay.ready.append(entry)
    return replay


async def ask(browser: Browser, group: str, replay: ReplayBatch, *, even_expired: bool) -> None:
    """Append a request for each dead letter that is ready. Return once all requests are acknowledged; they are *asked* then.

    Raises:
        LogUnavailable: some may have been appended; asking again is safe, since their state is `requested` then.
    """
    asked = {secrets.token_hex(8): entry for entry in replay.ready}

    async def append(id_: str, entry: DeadLetterEntry) -> None:
        key, value, headers = request(entry.dead_letter, request_id=id_, even_expired=even_expired)
        await browser.append(
            retry_topic(group, entry.topic), key.encode(), value, headers, partition=entry.dead_letter.partition
        )

    pairs = list(asked.items())
    for start in range(0, len(pairs), _AT_ONCE):
        await asyncio.gather(*(append(id_, entry) for id_, entry in pairs[start : start + _AT_ONCE]))
    replay.asked = asked


async def follow(browser: Browser, group: str, replay: ReplayBatch, *, within: float) -> AsyncIterator[None]:
    """Follow the requests until all have *ended*, or *within* seconds have passed. Yield after each look at the topics."""
    pause, deadline = _FIRST_LOOK, time.monotonic() + within
    while replay.unanswered:
        waiting = {id_: entry for id_, entry in replay.asked.items() if id_ not in replay.ended}
        replay.ended |= await _answers(browser, group, waiting)
        yield
        if not replay.unanswered or time.monotonic() >= deadline:
            return
        await asyncio.sleep(min(pause, max(0.0, deadline - time.monotonic())))
        pause = min(pause * 1.5, _LONGEST_PAUSE)


async def _answers(
    browser: Browser, group: str, waiting: Mapping[str, DeadLetterEntry]
) -> Mapping[str, DeadLetterEntry]:
    answered: dict[str, DeadLetterEntry] = {}
    for topic in {entry.topic for entry in waiting.values()}:
        pending = pending_requests([record async for record in requests_in(browser, group, topic)])
        done = {id_: entry for id_, entry in waiting.items() if entry.topic == topic and id_ not in pending}
        if not done:
            continue
        dead_letters: dict[str, DeadLetter] = {}
        async for batch in browser.scan(dead_letter_topic(group, topic)):
            fold(ours(batch, group, topic), dead_letters)
        for id_, entry in done.items():
            answered[id_] = DeadLetterEntry(
                topic, dead_letters.get(entry.dead_letter.id, entry.dead_letter), entry.name
            )
    return answered
