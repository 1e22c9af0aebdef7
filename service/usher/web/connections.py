"""The connections of callers: how many there may be, which one is closed for another, and what each may bring without a proof."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

try:
    import resource
except ImportError:  # there are no such limits on Windows
    resource = None  # type: ignore[assignment]

from aiohttp import web

from usher.web.bodies import UnprovenBodies
from usher.web.bounds import Bound, Bounds, Crowded

RESERVE = 32
"""Connections of those allowed that no proven request may occupy: they are for health checks, and for closing the oldest one."""
LINGER = 1.0
"""Seconds in which the rest of a refused body is read and thrown away, so that the sender gets the answer and no reset."""
_LEAST = 2 * RESERVE
_FREE_FILES = 16
"""Open files that connections leave to the others, whatever else the process has open."""
_MEASURE_EVERY = 1.0
_MOST_AT_ONCE = 640 * 1024
"""Bytes that a connection may bring for one request without a proof: the largest body that is signed, and its head."""
_MOST_THROWN_AWAY = 16 * 1024 * 1024
"""Bytes beyond that are taken from the wire and not looked at, so that the sender hears the refusal and no reset."""
_THROWN_AWAY_A_SECOND = 32 * 1024 * 1024
"""Bytes that all connections together throw away: what strangers send must not cost the time in which health is answered."""
_ELSEWHERE = 64
"""Open files that a worker needs beside its connections: the event log, the temporary folder, the loop, libraries."""


def open_files() -> int | None:
    """Return how many files this process may open (``ulimit -n``); None: there is no limit, or it is not known."""
    if resource is None:
        return None
    most, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return None if most == resource.RLIM_INFINITY else most


def connections_within(wanted: int, files: int | None, others: int) -> int:
    """Return how many connections may be open: *wanted*, or what *files* leaves beside *others* connections of ours."""
    if files is not None:
        wanted = min(wanted, max(files - _ELSEWHERE - others, files // 4))
    return max(wanted, _LEAST)


class Connections:
    """All open connections, those first that have waited longest since they came, brought a head, or had a proven request answered.

    Args:
        most: so many are open at once, at least twice `RESERVE`.
        head_timeout: seconds that a new connection has for its first request's head.
        bodies: reads what comes by them.
    """

    def __init__(self, most: int, head_timeout: float, bodies: UnprovenBodies, bounds: Bounds) -> None:
        self.most, self.head_timeout, self.bodies = most, head_timeout, bodies
        self._bounds = bounds
        self._files = open_files()
        self._room, self._measured_at = most, float("-inf")
        self._waiting: OrderedDict[Connection, None] = OrderedDict()
        self._proven: set[Connection] = set()
        self._thrown_away, self._second = 0, float("-inf")

    def opened(self, connection: Connection) -> None:
        self._waiting[connection] = None
        if len(self._waiting) + len(self._proven) > self._measured() and len(self._waiting) > 1:
            oldest, _ = self._waiting.popitem(last=False)
            self.give_up(oldest, "connections")

    def closed(self, connection: Connection) -> None:
        self._waiting.pop(connection, None)
        self._proven.discard(connection)

    def begun(self, connection: Connection) -> None:
        """Note that *connection* has brought the head of a request: a sender does not pay for how long it was idle before."""
        if connection in self._waiting:
            self._waiting.move_to_end(connection)

    def give_up(self, connection: Connection, bound: Bound) -> None:
        """Close *connection*, by which or for which a bound was reached."""
        connection.drop()
        self._bounds.reached(bound)

    def throw_away(self, size: int) -> bool:
        """Count *size* bytes that nobody reads. Returns whether more may be taken from the wire in this second."""
        now = time.monotonic()
        if now - self._second >= 1.0:
            self._thrown_away, self._second = 0, now
        self._thrown_away += size
        return self._thrown_away < _THROWN_AWAY_A_SECOND

    @contextmanager
    def proven(self, connection: Connection) -> Iterator[None]:
        """Keep *connection* open while its request, whose sender is proven, is being answered.

        Raises:
            Crowded: too many are.
        """
        room = self._measured()
        if len(self._proven) >= max(room - RESERVE, room // 2):
            self._bounds.reached("requests")
            raise Crowded
        if connection in self._waiting:  # else it has been closed meanwhile
            del self._waiting[connection]
            self._proven.add(connection)
        try:
            yield
        finally:
            if connection in self._proven:
                self._proven.remove(connection)
                self._waiting[connection] = None

    def _measured(self) -> int:
        """How many connections there may be now: fewer than `most` where other things have the files open that were meant for them."""
        now = time.monotonic()
        if self._files is not None and now - self._measured_at >= _MEASURE_EVERY:
            self._measured_at = now
            with suppress(OSError):  # there is no such folder, or no descriptor is left to look into it
                others = sum(1 for _ in Path("/dev/fd").iterdir()) - len(self._waiting) - len(self._proven)
                self._room = min(self.most, max(self._files - _FREE_FILES - others, 1))
        return self._room


class Connection(web.RequestHandler):
    """One connection of a caller. It closes where the head of its first request takes too long, and where too much comes unproven."""

    __slots__ = ("_all", "_late", "_torn", "_unproven")

    def __init__(self, connections: Connections, manager: web.Server, **options: Any) -> None:
        super().__init__(manager, **options)
        self._all = connections
        self._late: asyncio.TimerHandle | None = None
        self._unproven: int | None = 0
        """Bytes since the head of the request; None: what comes is proven."""
        self._torn = False
        """Whether bytes were thrown away: where the next request would begin is not known any more."""

    @property
    def bodies(self) -> UnprovenBodies:
        """What reads its bodies."""
        return self._all.bodies

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._late = self._loop.call_later(self._all.head_timeout, self._all.give_up, self, "head")
        self._all.opened(self)

    def data_received(self, data: bytes) -> None:
        if self._unproven is not None:
            self._unproven += len(data)
            if self._torn or self._unproven > _MOST_AT_ONCE:
                self._throw_away(self._unproven, len(data))
                return
        super().data_received(data)

    def _throw_away(self, brought: int, size: int) -> None:
        """Leave the *size* bytes that have just come unread, and close the connection soon."""
        if not self._torn:
            self._torn = True
            self._cancel_late()
            self._late = self._loop.call_later(LINGER, self._all.give_up, self, "unproven-bytes")
        elif brought > _MOST_THROWN_AWAY:
            self._all.give_up(self, "unproven-bytes")
            return
        if not self._all.throw_away(size) and isinstance(self.transport, asyncio.ReadTransport):
            self.transport.pause_reading()  # until it is closed

    def connection_lost(self, exc: BaseException | None) -> None:
        self._cancel_late()
        self._all.closed(self)
        super().connection_lost(exc)

    def drop(self) -> None:
        """Close at once. Answers that the caller does not take would keep the socket open: they are thrown away."""
        transport = self.transport
        self.force_close()
        if transport is not None and transport.get_write_buffer_size():
            transport.abort()

    async def shutdown(self, timeout: float | None = 15.0) -> None:  # noqa: ASYNC109 - aiohttp's own
        """End within *timeout* also where the caller does not take its answer: else that is waited for twice."""
        late = None if timeout is None else self._loop.call_later(timeout, self._drop_untaken)
        try:
            await super().shutdown(timeout)
        finally:
            if late is not None:
                late.cancel()

    def _drop_untaken(self) -> None:
        if self.transport is not None and self.transport.get_write_buffer_size():
            self.drop()

    def begun(self) -> None:
        """Note that the head of a request is there."""
        self._all.begun(self)
        if not self._torn:
            self._cancel_late()
            self._unproven = 0

    @contextmanager
    def proven(self) -> Iterator[None]:
        """Note that the sender of the request is proven: within, the connection is kept and takes any number of bytes.

        Raises:
            Crowded: there are too many such requests.
        """
        with self._all.proven(self):
            self._unproven = None
            try:
                yield
            finally:
                self._unproven = 0

    def _cancel_late(self) -> None:
        if self._late is not None:
            self._late.cancel()
            self._late = None


def connection_of(request: web.Request) -> Connection:
    """Return the connection that *request* came by."""
    connection = request.protocol
    assert isinstance(connection, Connection)  # noqa: S101 - `usher.web.WebServer` makes no others
    return connection
