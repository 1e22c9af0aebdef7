"""The pollers: they read from the systems' own logs what no webhook brings, or none brought while Usher was down.

One worker of a group polls. Its position becomes a checkpoint after its events are in the log, so that a crash reads a page
twice and loses none. What the log has already, from a webhook or an earlier page, is not appended again.
"""

from __future__ import annotations

import asyncio
import hashlib
import random
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from usher.event import Undecodable
from usher.eventlog.errors import LeaseLost, LogError, TooLarge
from usher.eventlog.port import EventLog, Lease
from usher.metrics import Metrics
from usher.outcome import Outcome, Reject
from usher.redact import scrub
from usher.systems.decode import decode
from usher.systems.feed import Feed, FeedPage
from usher.systems.source import Arrival, event_key, too_large

if TYPE_CHECKING:
    from structlog.typing import FilteringBoundLogger

_SLOWEST = 300.0
"""Seconds to wait at most between attempts after failures."""
_LEASE_RETRY = 60.0
"""Seconds to wait at most until the lease is asked for again."""
_SKEW = 120.0
"""Seconds by which the clocks of a system and of the log's broker may differ."""

_FRESH = 5.0
"""Seconds in which the topic is not read again: else a backlog of many pages would read it for each page. An event that comes
meanwhile by another way, and is then appended again, lies so close to the first one that the engine knows it by its id."""


class Pollers:
    """The reader of all feeds. It appends what they bring to a topic, while this worker holds the group's lease."""

    def __init__(
        self,
        event_log: EventLog,
        topic: str,
        feeds: Sequence[Feed],
        *,
        metrics: Metrics,
        logger: FilteringBoundLogger,
        rng: random.Random,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._event_log, self._topic, self._feeds = event_log, topic, feeds
        self._metrics, self._logger, self._rng, self._now = metrics, logger, rng, now

    async def run(self) -> None:
        """Poll until cancelled; while another worker holds the lease, wait for it."""
        failures = 0
        while True:
            try:
                async with self._event_log.lease() as lease:
                    failures = 0
                    self._logger.info("polling", feeds=[feed.name for feed in self._feeds])
                    await self._poll_all(lease)
                    self._logger.info("polling has passed to another worker")
            except LeaseLost:
                self._logger.info("polling has passed to another worker")
            except LogError as error:
                failures += 1
                self._logger.warning("polling can't begin, trying again", error=scrub(error))
                await asyncio.sleep(min(2.0**failures, _LEASE_RETRY))

    async def _poll_all(self, lease: Lease) -> None:
        """Poll all feeds until the lease is lost.

        Raises:
            LeaseLost: a feed's position could not be kept because of that.
        """
        polling = [asyncio.create_task(self._poll(feed, lease)) for feed in self._feeds]
        lost = asyncio.create_task(lease.lost())
        try:
            await asyncio.wait([lost, *polling], return_when=asyncio.FIRST_COMPLETED)
            for task in (lost, *polling):
                if task.done():
                    task.result()
        finally:
            for task in (lost, *polling):
                task.cancel()
            await asyncio.gather(lost, *polling, return_exceptions=True)
            await asyncio.gather(*(feed.close() for feed in self._feeds), return_exceptions=True)

    async def _poll(self, feed: Feed, lease: Lease) -> None:
        """Poll one feed for ever. Its failures concern no other feed.

        Raises:
            LeaseLost
        """
        cursor, known, failures = lease.checkpoint(feed.name), KnownEvents(self._event_log, self._topic, self._now), 0
        while True:
            try:
                page = await feed.page(cursor)
                await self._bring(feed, page, known, cursor)
                moved = page.cursor != cursor
                if moved:
                    await lease.keep(feed.name, page.cursor)
            except LeaseLost:
                raise
            except Exception as trouble:  # noqa: BLE001 - what a system answers may surprise its feed
                if isinstance(trouble, Reject):
                    cursor = None
                failures += 1
                known.doubt()
                await self._rest(feed, trouble, failures)
                continue
            cursor, failures = page.cursor, 0
            self._metrics.polled_at.labels(feed.name).set(self._now())
            if not (page.more and moved):
                await asyncio.sleep(feed.every)

    async def _bring(self, feed: Feed, page: FeedPage, known: KnownEvents, cursor: bytes | None) -> None:
        """Append what is not in the log yet.

        Raises:
            LogUnavailable: some of it may be there.
        """
        if not all(arrival in known for arrival in page.arrivals):
            await known.look(self._now() if cursor is None else feed.since(cursor))
        for arrival in page.arrivals:
            outcome = "known" if arrival in known else await self._append(arrival)
            known.add(arrival)
            self._metrics.polled.labels(feed.name, outcome).inc()

    async def _append(self, arrival: Arrival) -> str:
        """Append one arrival; one that the log will never take becomes a stub, else it would hold up all later ones."""
        event = arrival.event
        try:
            await self._event_log.append(self._topic, event_key(event) if event else None, arrival.value)
        except TooLarge:
            await self._event_log.append(self._topic, None, too_large(arrival).value)
            return "undecodable"
        return "stored" if event else "undecodable"

    async def _rest(self, feed: Feed, trouble: Exception, failures: int) -> None:
        asked = getattr(trouble, "after", None)
        backoff = min(max(feed.every, 1.0) * 2.0 ** min(failures, 10), _SLOWEST) * self._rng.uniform(1.0, 1.2)
        wait = backoff if asked is None else max(asked, 1.0)
        # Of an unexpected exception only the kind is logged: its text may quote what a system answered.
        expected = isinstance(trouble, Outcome | LogError)
        error = scrub(trouble) if expected else type(trouble).__name__
        self._metrics.polled.labels(feed.name, "failed").inc()
        if isinstance(trouble, Reject):
            self._logger.warning("polling has lost its position, and continues from now", feed=feed.name, error=error)
        else:
            self._logger.warning("polling failed, trying again", feed=feed.name, error=error, wait=round(wait, 1))
        await asyncio.sleep(wait)


class KnownEvents:
    """The events that are in a topic already, as far back as a feed may reach. Holds a digest for each record, and forgets old ones."""

    def __init__(self, event_log: EventLog, topic: str, now: Callable[[], float]) -> None:
        self._event_log, self._topic, self._now = event_log, topic, now
        self._digests: dict[bytes, float] = {}
        self._back_to = 0.0
        self._seen_to: float | None = None
        self._looked_at = float("-inf")

    def doubt(self) -> None:
        """Have the next look made even if the last one is recent: a write of ours may have arrived although it failed."""
        self._looked_at = float("-inf")

    async def look(self, since: float) -> None:
        """Read what was appended from *since* (Unix seconds) until now, or since the last look; a recent look is enough.

        Raises:
            LogUnavailable
        """
        oldest, now = since - _SKEW, self._now()
        anew = self._seen_to is None or oldest < self._back_to
        if not anew and 0 <= now - self._looked_at < _FRESH:
            return
        latest = oldest if self._seen_to is None else self._seen_to
        start = oldest if anew else latest - _SKEW
        async for records in self._event_log.since(self._topic, start):
            for record in records:
                at = record.timestamp / 1000
                latest = max(latest, min(at, now))  # one from the future must not hide those that come next
                value = record.value or b""
                try:
                    digest = _digest(Arrival(decode(value), value))
                except Undecodable:
                    digest = _digest(Arrival(None, value))
                self._digests[digest] = at
        self._back_to, self._seen_to, self._looked_at = oldest, latest, now
        self._digests = {digest: at for digest, at in self._digests.items() if at >= oldest}

    def add(self, arrival: Arrival) -> None:
        self._digests.setdefault(_digest(arrival), self._now())

    def __contains__(self, arrival: object) -> bool:
        return isinstance(arrival, Arrival) and _digest(arrival) in self._digests


def _digest(arrival: Arrival) -> bytes:
    """Make a digest of the event's uid; of the bytes, if there is no event."""
    about = arrival.value if arrival.event is None else "\0".join(arrival.event.uid).encode("utf-8", "surrogatepass")
    return hashlib.blake2b(about, digest_size=16).digest()
