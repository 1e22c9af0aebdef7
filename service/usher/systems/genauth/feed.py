"""The feed of GenAuth's admin audit log: it brings what administrators did to users, also while no webhook reached us.

Entries are found by time. They come late, and no order is promised. So each look goes back a little, and reads all pages of a
period that is over. An entry that comes twice has the same id.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from usher.outcome import Reject
from usher.systems.feed import FeedPage, moment_in_cursor, reading_cursor
from usher.systems.genauth.api import GenAuthApi
from usher.systems.genauth.audit import entry_time, event_of_entry
from usher.systems.source import Arrival, arrival

_LATE = 300.0
"""Seconds by which an entry may come late and the clocks may differ."""
_MOST = 5_000
"""Entries in one look; a period with more is halved, down to one second."""


class GenAuthAuditFeed:
    """The feed of one user pool's admin audit log.

    Args:
        tenant: the user pool, as in ``event.tenant``.
        every: seconds between looks.
        now: gives Unix seconds.
    """

    def __init__(
        self, api: GenAuthApi, *, name: str, tenant: str, every: float, now: Callable[[], float] = time.time
    ) -> None:
        self.name, self.every = name, every
        self._api, self._tenant, self._now = api, tenant, now
        self._looked_at: float | None = None
        """When the last look was that did not fail, by a clock that is never set."""

    async def page(self, cursor: bytes | None) -> FeedPage:
        now, looking_at = self._now(), time.monotonic()
        if cursor is None:
            self._looked_at = looking_at
            return FeedPage((), _cursor(now))
        done = _moment(cursor, now)
        if done > now + _LATE:  # our clock was ahead at the last look, and was set since
            if self._looked_at is None:
                raise Reject("the position that was kept for the audit log is of a time that has not come yet")
            done = now - (looking_at - self._looked_at)
        if done >= now:
            return FeedPage((), cursor)
        end, entries = await self._period(done, now)
        self._looked_at = looking_at  # a look that failed is none
        return FeedPage(events_of(entries, self._tenant), _cursor(end), more=end < now)

    def since(self, cursor: bytes) -> float:
        return _moment(cursor, self._now()) - _LATE

    async def close(self) -> None:
        """Do nothing: no connection is kept open."""

    async def _period(self, done: float, end: float) -> tuple[float, Sequence[Any]]:
        """Read all entries from shortly before *done* until *end*, or until an earlier end, which is returned too."""
        start = done - _LATE
        while (entries := await self._api.audits(start, end, most=_MOST if end - done > 1.0 else None)) is None:
            end = done + (end - done) / 2
        return end, entries


def events_of(entries: Iterable[Any], tenant: str) -> list[Arrival]:
    """Make the arrivals of the entries that are events, in the order in which they happened."""
    ordered = sorted(
        (entry for entry in entries if isinstance(entry, dict)), key=lambda entry: entry_time(entry) or 0.0
    )
    found = (event_of_entry(entry, tenant) for entry in ordered)
    return [arrival(event) for event in found if event is not None]


def _cursor(moment: float) -> bytes:
    return f"{moment:.3f}".encode()


def _moment(cursor: bytes, now: float) -> float:
    with reading_cursor("the audit log"):
        return moment_in_cursor(cursor.decode("ascii"), now)
