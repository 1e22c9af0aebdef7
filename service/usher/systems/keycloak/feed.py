"""The feed of a realm's admin events: it brings what administrators did to users, also while Usher was down. It needs no extension.

Keycloak lists events newest first, by number and not by time. So the feed goes back to a known event, and from there page by
page to the newest. It never holds more than a page.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from usher.systems.feed import FeedPage, moment_in_cursor, reading_cursor
from usher.systems.keycloak.api import KeycloakApi
from usher.systems.keycloak.source import KeycloakSource, is_about_a_user

_PAGE, _STEP = 100, 90
"""Events in a page, and from one page to the next: events of one millisecond may change places between two looks."""
_LATE = 120_000
"""Milliseconds by which an event may appear after later events: it appears when its transaction ends."""


class _Walk(NamedTuple):
    """A walk to the newest event that takes several pages, and where it continues if the *cursor* is still the same.

    It *began* at that millisecond: what is written later may belong before what it has passed.
    """

    cursor: bytes
    first: int
    reached: int
    began: int


class KeycloakAdminFeed:
    """The feed of one realm's admin events.

    Args:
        source: reads the events.
        every: seconds between looks.
        now: gives Unix seconds.
    """

    def __init__(
        self, api: KeycloakApi, source: KeycloakSource, *, name: str, every: float, now: Callable[[], float] = time.time
    ) -> None:
        self.name, self.every = name, every
        self._api, self._source, self._now = api, source, now
        self._walk: _Walk | None = None

    async def page(self, cursor: bytes | None) -> FeedPage:
        if cursor is None:
            newest = await self._api.admin_events(0, 1)
            begin = min(_moment(newest[0]), self._present()) if newest else self._present() - _LATE
            return FeedPage((), _cursor(begin, begin))
        begin, end = _read(cursor, self._now())
        known = max(end - _LATE, begin)
        first, reached, began = 0, known, self._present()
        if self._walk is not None and self._walk.cursor == cursor:
            _, first, reached, began = self._walk
        events = await self._api.admin_events(first, _PAGE)
        while len(events) == _PAGE and _moment(events[-1]) > reached:
            first += _STEP
            events = await self._api.admin_events(first, _PAGE)
        latest = max([reached, *(_moment(event) for event in events)])
        following = _cursor(begin, max(end, min(latest, began, self._present())))
        self._walk = _Walk(following, max(first - _STEP, 0), latest, began) if first else None
        about_users = (event for event in events if _moment(event) > known and is_about_a_user(event))
        fresh = sorted(about_users, key=_moment)
        arrivals = [await self._api.recognize(self._source.arrival(event)) for event in fresh]
        return FeedPage(arrivals, following, more=first > 0)

    def _present(self) -> int:
        """Return the time of our clock, in milliseconds: a server of a cluster whose clock is ahead must not hide what others write."""
        return round(self._now() * 1000)

    def since(self, cursor: bytes) -> float:
        begin, end = _read(cursor, self._now())
        return max(end - _LATE, begin) / 1000

    async def close(self) -> None:
        """Do nothing: no connection is kept open."""


def _moment(event: Mapping[str, Any]) -> int:
    moment = event.get("time")
    return moment if isinstance(moment, int) else 0


def _cursor(begin: int, end: int) -> bytes:
    """Write a cursor, in milliseconds of Keycloak's clock. *begin*: only later events are brought. *end*: the latest one seen."""
    return json.dumps({"begin": begin, "end": end}).encode()


def _read(cursor: bytes, now: float) -> tuple[int, int]:
    with reading_cursor("the admin events"):
        document = json.loads(cursor)
        begin, end = (round(moment_in_cursor(document[name] / 1000, now) * 1000) for name in ("begin", "end"))
        return begin, end
