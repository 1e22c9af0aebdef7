"""The feed of Authgear's audit log: it decides which part of the log to read next.

An entry has the time of its event, in whole seconds. It is written when the event's transaction is done, and the API reads a
copy of that database. So each look begins some minutes before the newest known entry. Pages are numbered by offset, and
entries of one second have no order. So each page begins at the last second of the page before; repeats are known by their ids.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

from usher.systems.authgear.api import AuthgearApi, activity_type
from usher.systems.authgear.event_types import RAW_TYPES
from usher.systems.authgear.source import NAME, AuthgearSource
from usher.systems.feed import FeedPage, moment_in_cursor, reading_cursor
from usher.systems.source import Arrival, undecoded

OVERLAP = 300.0
"""Seconds before the newest known entry at which a look begins."""
_AHEAD = 3600.0
"""Seconds by which an entry may be ahead of our own clock: an entry with a wrong time must not make us skip all others."""
PAGE = 100
"""Entries in a page; Authgear may give fewer."""


@dataclass(frozen=True, slots=True)
class _AuditPosition:
    """The position of the feed, in Unix seconds.

    *begin* is when it began, *newest* the time of the newest entry that was brought. Within a look of several pages *at* is
    where the next page begins, *looked* when the look began, and *after* is the API's own cursor if a page holds entries of
    one second only. What is written between two pages may belong before the first: *newest* is not later than *looked* then.
    """

    begin: float
    newest: float
    at: float | None = None
    looked: float | None = None
    after: str | None = None

    @property
    def earliest(self) -> float:
        """The earliest time of an entry that a look may bring; never earlier than that of an earlier position."""
        return max(self.begin, self.newest - OVERLAP)

    @property
    def start(self) -> float:
        """The beginning of the next page."""
        return self.earliest if self.at is None else self.at

    def dump(self) -> bytes:
        return json.dumps([self.begin, self.newest, self.at, self.looked, self.after]).encode()

    @classmethod
    def load(cls, cursor: bytes, now: float) -> _AuditPosition:
        """Read a cursor, at *now* (Unix seconds).

        Raises:
            Reject: it is no cursor of ours.
        """
        with reading_cursor("the audit log"):
            *times, after = json.loads(cursor)
            begin, newest, *within = (None if time is None else moment_in_cursor(time, now) for time in times)
            at, looked = [*within, None][:2]  # an earlier version kept no *looked*
            if begin is None or newest is None or not isinstance(after, str | None):
                raise ValueError("no position of ours")
            return cls(begin, newest, at, looked, after)

    def brought(self, times: Sequence[float]) -> float:
        """Return *newest* once entries of these *times* are brought, too."""
        latest = max([self.newest, *times])
        return latest if self.looked is None else max(self.newest, min(latest, self.looked))


class AuthgearAuditFeed:
    """The feed of one project's audit log.

    Args:
        api: the project's client.
        app_id: the project's id.
        source: makes arrivals of the entries, as of the webhook's bodies.
        types: event types, canonical or raw.
        every: seconds between looks.
        now: gives Unix seconds; used only if the API does not say its own time.
    """

    def __init__(
        self,
        api: AuthgearApi,
        app_id: str,
        source: AuthgearSource,
        types: Sequence[str],
        every: float,
        *,
        now: Callable[[], float] = time.time,
    ) -> None:
        self.name, self.every = f"{NAME}/{app_id}/audit-log", every
        self._api, self._app_id, self._source, self._now = api, app_id, source, now
        self._types = activity_types(types)

    async def page(self, cursor: bytes | None) -> FeedPage:
        """`Feed.page`. The feed begins at the time of Authgear's own clock, if its answer says it."""
        if cursor is None:
            begin = _moment_of(await self._api.logs(_iso(self._now()), self._types, first=1), self._now)
            return FeedPage((), _AuditPosition(begin, begin).dump())
        position = _AuditPosition.load(cursor, self._now())
        found = await self._api.logs(_iso(position.start), self._types, first=PAGE, after=position.after)
        arrivals = [self._arrival(edge["node"]) for edge in found.edges if isinstance(edge.get("node"), dict)]
        times = [at for edge in found.edges if (at := _time_of(edge)) is not None and at <= self._now() + _AHEAD]
        if not found.more:
            return FeedPage(arrivals, _AuditPosition(position.begin, position.brought(times)).dump())
        if position.looked is None:
            position = replace(position, looked=self._now())
        return FeedPage(arrivals, _within(position, times, found.edges[-1].get("cursor")).dump(), more=True)

    def since(self, cursor: bytes) -> float:
        return _AuditPosition.load(cursor, self._now()).earliest

    async def close(self) -> None:
        """Do nothing: no connection is kept open."""

    def _arrival(self, node: Mapping[str, Any]) -> Arrival:
        data = node.get("data")
        if not isinstance(data, dict):
            return undecoded(NAME, self._app_id, dict(node), "an entry of the audit log without the event in it")
        return self._source.arrival(data)


def activity_types(types: Sequence[str]) -> list[str]:
    """Spell event types, canonical or raw, as the API does."""
    return list(dict.fromkeys(activity_type(RAW_TYPES.get(name, name)) for name in types))


def _within(position: _AuditPosition, times: Sequence[float], after: Any) -> _AuditPosition:
    """Return where the look continues after a page with entries of these *times*; *after* is the API's cursor of its last one."""
    newest, last = position.brought(times), max(times, default=position.start)
    if last > position.start:
        return replace(position, newest=newest, at=last, after=None)
    return replace(position, newest=newest, at=position.start, after=after if isinstance(after, str) else None)


def _time_of(edge: Mapping[str, Any]) -> float | None:
    node = edge.get("node")
    try:
        return datetime.fromisoformat(node["createdAt"]).timestamp() if isinstance(node, dict) else None
    except (LookupError, TypeError, ValueError):
        return None


def _moment_of(answer: Any, now: Callable[[], float]) -> float:
    try:
        return parsedate_to_datetime(answer.date).timestamp()
    except (TypeError, ValueError):
        return float(int(now()))


def _iso(moment: float) -> str:
    return datetime.fromtimestamp(moment, UTC).isoformat().replace("+00:00", "Z")
