"""The feeds of Auth0: the Events API, which is a stream without an end, and the tenant logs, page by page.

Hides how a position in each is kept. A cursor is a small JSON document that also holds the time of its position.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Collection, Iterator, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

import aiohttp

from usher.event import Undecodable
from usher.outcome import Reject, Retry
from usher.systems.auth0.api import Auth0Api
from usher.systems.auth0.source import Auth0Source
from usher.systems.canonical import moment, text
from usher.systems.document import dump, parse
from usher.systems.feed import FeedPage, moment_in_cursor, reading_cursor
from usher.systems.source import Arrival, undecoded

_EVENT_TYPES = ("user.created", "user.updated", "user.deleted")
_REOPEN = 2.0
"""Seconds until a stream that Auth0 has closed is opened again, as Auth0 asks for."""
_SILENCE = 90.0
"""Seconds without even a heartbeat after which a stream counts as dead."""
_LARGEST = 4 * 1024 * 1024
"""Bytes of one message of the stream."""
_LATE = 600.0
"""Seconds by which an event may come after later ones: Auth0 promises no order."""
_OVERLAP = 30.0
"""Seconds of the logs that are read again, since entries become visible a little out of order."""
_TAKE = 100
"""Log entries of a page: the most that Auth0 gives."""


class StreamMessage(NamedTuple):
    """One message of a stream of server-sent events."""

    event: str
    id: str
    data: str


class FeedPosition(NamedTuple):
    """The position of a feed: *at* is the earliest time of what comes next, *start* is Auth0's own name for the position.

    *next* is how far reading has come beyond *start*, while there are more pages, and *began* when the first of them was read
    (Unix seconds): what becomes visible later may belong before what *next* has passed.
    """

    at: float
    start: str | None = None
    next: str | None = None
    began: float | None = None

    def cursor(self) -> bytes:
        return dump({name: value for name, value in self._asdict().items() if value is not None})


def _position(cursor: bytes, now: float) -> FeedPosition:
    with reading_cursor("Auth0"):
        document = parse(cursor)
        at = moment_in_cursor(document["at"], now)
        began = document.get("began")
        began = None if began is None else moment_in_cursor(began, now)
        return FeedPosition(at, text(document.get("start")), text(document.get("next")), began)


class Auth0EventsFeed:
    """The feed of the Events API. A page is one message: Auth0 continues after the offset of the last one that was kept."""

    every = _REOPEN

    def __init__(self, api: Auth0Api, source: Auth0Source, *, now: Callable[[], float] = time.time) -> None:
        self.name = f"auth0/{api.domain}/events"
        self._api, self._source, self._now = api, source, now
        self._response: aiohttp.ClientResponse | None = None
        self._messages: AsyncIterator[StreamMessage] | None = None
        self._at: bytes | None = None
        """The cursor that the open stream continues from."""

    async def page(self, cursor: bytes | None) -> FeedPage:
        if cursor is None:  # kept at once: events before the first message must survive a restart
            await self.close()
            return FeedPage((), FeedPosition(self._now()).cursor(), more=True)
        try:
            if (self._messages is None or cursor != self._at) and not await self._open(cursor):
                return FeedPage((), FeedPosition(_position(cursor, self._now()).at - _LATE).cursor(), more=True)
            message = await self._next()
        except BaseException:
            await self.close()
            raise
        if message is None:
            await self.close()
            return FeedPage((), cursor)
        arrivals, at = self._read(message)
        self._at = FeedPosition(at, message.id).cursor()
        return FeedPage(arrivals, self._at, more=True)

    def since(self, cursor: bytes) -> float:
        return _position(cursor, self._now()).at - _LATE

    async def close(self) -> None:
        if self._response is not None:
            self._response.close()
        self._response = self._messages = self._at = None

    async def _open(self, cursor: bytes) -> bool:
        """Open the stream; false: the offset has expired, and only its time is left to continue from."""
        await self.close()
        position = _position(cursor, self._now())
        start = ("from", position.start) if position.start else ("from_timestamp", _iso(position.at))
        params = [start, *(("event_type", type_) for type_ in _EVENT_TYPES)]
        response = await self._api.events(params, _SILENCE)
        if response.status == 200:
            self._response, self._messages, self._at = response, _messages(response.content), cursor
            return True
        if response.status in (400, 410) and position.start:
            return False
        raise Reject(f"Auth0 gives no events from there ({response.status}); some may be missing")

    async def _next(self) -> StreamMessage | None:
        """Wait for the next message that moves the position; None: the stream has ended, as it does every few minutes."""
        assert self._messages is not None  # noqa: S101
        try:
            async for message in self._messages:
                if message.event == "error":
                    raise Retry("Auth0 ended the stream of events with an error")
                if message.id:
                    return message
        except (aiohttp.ClientError, TimeoutError, OSError) as trouble:
            raise Retry(f"the stream of events was cut: {type(trouble).__name__}") from None
        return None

    def _read(self, message: StreamMessage) -> tuple[Sequence[Arrival], float]:
        """Read the arrivals in a message, and its time."""
        if message.event == "offset-only":
            return (), self._now()
        data = message.data.encode("utf-8", "surrogatepass")
        try:
            found = self._source.of_document(parse(data))
        except Undecodable as refusal:
            found = undecoded(self._source.name, self._api.domain, data, str(refusal))
        event = None if found is None else found.event
        happened = None if event is None else event.context.timestamp
        return (() if found is None else (found,)), _not_after(self._now(), happened)


class Auth0LogsFeed:
    """The feed of the tenant logs, from a checkpoint on. It reads the last half minute of what it has read again.

    *types* are the codes of the entries to bring; ``*`` means all.
    """

    def __init__(
        self,
        api: Auth0Api,
        source: Auth0Source,
        *,
        every: float,
        types: Collection[str],
        now: Callable[[], float] = time.time,
    ) -> None:
        self.name = f"auth0/{api.domain}/logs"
        self.every = every
        self._api, self._source, self._now = api, source, now
        self._types = types

    async def page(self, cursor: bytes | None) -> FeedPage:
        if cursor is None:
            newest = await self._entries({"sort": "date:-1", "per_page": "1", "page": "0"})
            return FeedPage((), self._settled(FeedPosition(self._now()), newest or ()).cursor())
        position = _position(cursor, self._now())
        entries = await self._after(position)
        full = len(entries) >= _TAKE
        began = self._now() if position.began is None else min(position.began, self._now())
        reached = self._settled(position, _until(entries, began - _OVERLAP))
        reached = (
            reached._replace(next=_id(entries[-1]), began=began) if full else reached._replace(next=None, began=None)
        )
        return FeedPage(list(self._arrivals(entries)), reached.cursor(), more=full)

    def since(self, cursor: bytes) -> float:
        return _position(cursor, self._now()).at - _OVERLAP

    async def close(self) -> None:
        """Do nothing: no connection is kept open."""

    def _settled(self, position: FeedPosition, entries: Sequence[dict[str, Any]]) -> FeedPosition:
        """Return the position after *entries*, none of which has to be read again."""
        if not entries:
            return position
        return FeedPosition(_not_after(self._now(), moment(entries[-1].get("date")) or position.at), _id(entries[-1]))

    def _arrivals(self, entries: Sequence[dict[str, Any]]) -> Iterator[Arrival]:
        for entry in entries:
            wanted = "*" in self._types or entry.get("type") in self._types
            if wanted and (found := self._source.of_document(entry)) is not None:
                yield found

    async def _after(self, position: FeedPosition) -> list[dict[str, Any]]:
        """Read the entries after a position; if its checkpoint is gone, those from its time on that Auth0 still has."""
        checkpoint = position.next or position.start
        if checkpoint is not None:
            entries = await self._entries({"from": checkpoint, "take": str(_TAKE)})
            if entries is not None:
                return entries
        since = f"date:[{_iso(position.at - _OVERLAP)} TO *]"
        entries = await self._entries({"q": since, "sort": "date:1", "per_page": str(_TAKE), "page": "0"})
        if entries is None:
            raise Reject("Auth0 gives no log entries from there; some may be missing")
        return entries

    async def _entries(self, params: dict[str, str]) -> list[dict[str, Any]] | None:
        """Read log entries, in the order of their ids; None: Auth0 does not know the position, or refuses the query."""
        answer = await self._api.call("GET", "/api/v2/logs", params=params)
        if answer.status != 200 or not isinstance(answer.document, list):
            return None
        found = [entry for entry in answer.document if isinstance(entry, dict) and _id(entry)]
        return sorted(found, key=lambda entry: (len(_id(entry)), _id(entry)))


def _until(entries: Sequence[dict[str, Any]], latest: float) -> Sequence[dict[str, Any]]:
    """Return the entries before the first one that is younger than *latest*."""
    for index, entry in enumerate(entries):
        if (moment(entry.get("date")) or latest) > latest:
            return entries[:index]
    return entries


def _not_after(now: float, at: float | None) -> float:
    """Return *at*, but *now* if it is unknown or in the future: from a future time on nothing would be found again."""
    return now if at is None else min(at, now)


def _id(entry: dict[str, Any]) -> str:
    return text(entry.get("log_id")) or text(entry.get("_id")) or ""


def _iso(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


async def _messages(content: aiohttp.StreamReader) -> AsyncIterator[StreamMessage]:
    """Read the messages of a stream (WHATWG HTML, 9.2.6); one that is cut off is left out."""
    fields: dict[str, list[str]] = {}
    size = 0
    async for line in _lines(content):
        size += len(line)
        if size > _LARGEST:
            raise aiohttp.ClientPayloadError("a message of the stream is too long")
        if not line:
            if fields:
                yield StreamMessage(_last(fields, "event"), _last(fields, "id"), "\n".join(fields.get("data", ())))
            fields, size = {}, 0
        elif not line.startswith(":"):
            name, _, value = line.partition(":")
            if name != "retry":
                fields.setdefault(name, []).append(value.removeprefix(" "))
        else:
            size -= len(line)  # a comment is not kept


async def _lines(content: aiohttp.StreamReader) -> AsyncIterator[str]:
    buffer = bytearray()
    async for chunk in content.iter_any():
        buffer += chunk
        if (
            b"\n" in chunk
        ):  # else there is no line yet: to look at the whole buffer for each chunk would take longer and longer
            *lines, rest = buffer.split(b"\n")
            for line in lines:
                yield line.removesuffix(b"\r").decode("utf-8", "replace")
            buffer = bytearray(rest)
        if len(buffer) > _LARGEST:
            raise aiohttp.ClientPayloadError("a line of the stream is too long")


def _last(fields: dict[str, list[str]], name: str) -> str:
    return fields[name][-1] if name in fields else ""
