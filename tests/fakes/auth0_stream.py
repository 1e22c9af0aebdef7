"""The stream of events of the loopback Auth0: offsets, heartbeats, and the ways in which it ends."""

from __future__ import annotations

import asyncio
import json
from typing import Any, Literal

from aiohttp import web

from usher.testing.server import cut

Ending = Literal["close", "error", "cut"]


class EventStream:
    """Everything that was published, for any number of readers. *opened* has the query of each reader."""

    def __init__(self) -> None:
        self.opened: list[dict[str, str]] = []
        self._published: list[tuple[str, dict[str, Any] | None]] = []
        self._expired: set[str] = set()
        self._endings: list[Ending] = []
        self._changed = asyncio.Condition()

    async def publish(self, event: dict[str, Any] | None) -> str:
        """Put an event on the stream, or with None only an offset. Return the offset."""
        async with self._changed:
            offset = f"offset{len(self._published) + 1:06}=="
            self._published.append((offset, event))
            self._changed.notify_all()
        return offset

    async def end(self, how: Ending = "close") -> None:
        """End the open streams: as Auth0 does every few minutes, with an error message, or in the middle of a message."""
        async with self._changed:
            self._endings.append(how)
            self._changed.notify_all()

    def expire(self) -> None:
        """Refuse all offsets that were given out: 410."""
        self._expired.update(offset for offset, _ in self._published)

    async def wait_opened(self, count: int) -> None:
        """Return once the stream was opened *count* times."""
        async with self._changed:
            await self._changed.wait_for(lambda: len(self.opened) >= count)

    def knows(self, http: web.Request) -> bool:
        """Say whether the stream can still be read from the offset that is asked for."""
        return self._asked_for(http) not in self._expired

    async def serve(self, http: web.Request) -> web.StreamResponse:
        """Send what comes after the offset that is asked for, until the stream ends."""
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(http)
        await response.write(b":connected\n\nretry: 2000\n\n")
        offset, endings = self._asked_for(http), len(self._endings)
        sent = next((at for at, (known, _) in enumerate(self._published, 1) if known == offset), 0)
        async with self._changed:
            self.opened.append(dict(http.query))
            self._changed.notify_all()
        while len(self._endings) == endings:
            for known, event in self._published[sent:]:
                if _wanted(event, http.query.getall("event_type", []), http.query.get("from_timestamp", "")):
                    await response.write(_message(known, event))
            sent = len(self._published)
            async with self._changed:
                if sent == len(self._published) and len(self._endings) == endings:
                    await self._changed.wait()
        return await _end(http, response, self._endings[-1])

    @staticmethod
    def _asked_for(http: web.Request) -> str | None:
        return http.headers.get("Last-Event-ID") or http.query.get("from")


def _wanted(event: dict[str, Any] | None, types: list[str], since: str) -> bool:
    return event is None or ((not types or event["type"] in types) and str(event["time"]) >= since)


def _message(offset: str, event: dict[str, Any] | None) -> bytes:
    name = "offset-only" if event is None else event["type"]
    data = json.dumps({"offset": offset} if event is None else {"offset": offset, "event": event})
    return f": heartbeat\n\nevent: {name}\nid: {offset}\ndata: {data}\n\n".encode()


async def _end(http: web.Request, response: web.StreamResponse, how: Ending) -> web.StreamResponse:
    if how == "error":
        await response.write(b'event: error\ndata: {"error":"internal_error"}\n\n')
    if how == "cut":
        await response.write(b'event: user.created\nid: half\ndata: {"offset":"half","event":{"id":')
        cut(http)
    return response
