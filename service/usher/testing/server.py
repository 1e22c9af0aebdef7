"""A loopback server that fails on demand: the base of fakes. Hides its start and stop, and how a request fails on the wire.

All fakes share this: `script` sets which faults come next, `answered` lists how each request ended.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal, Self

from aiohttp import web

_MAX_BODY = 32 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Fault:
    """A way to fail at a request.

    *how*: ``answer`` with *status*; ``hang`` without an answer; ``reset`` the connection and accept nothing; ``drop``: do
    what is asked, then reset the connection. *body* None: no body, or what the real API would write for that status.
    """

    how: Literal["answer", "hang", "reset", "drop"]
    status: int = 0
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes | None = None


HANG = Fault("hang")
RESET = Fault("reset")
DROP = Fault("drop")


def answer(status: int, *, body: bytes | None = None, headers: Iterable[tuple[str, str]] = ()) -> Fault:
    """Return the fault that answers with *status* and accepts nothing."""
    return Fault("answer", status, tuple(headers), body)


def cut(http: web.Request) -> None:
    """Close with a TCP reset, as a load balancer does when it loses its backend."""
    if http.transport is not None:
        connection = http.transport.get_extra_info("socket")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        http.transport.abort()


class LoopbackServer(ABC):
    """Serves at `url` while it is open, as an async context manager.

    Args:
        slow: seconds before each answer; may be changed at any time.
        port: on 127.0.0.1; 0 lets the system choose.
    """

    def __init__(self, *, slow: float = 0.0, port: int = 0) -> None:
        self.slow = slow
        self.url = ""
        self.answered: list[int | str] = []
        """The status of each request, or the fault that left it without an answer."""
        self._port = port
        self._script: deque[Fault] = deque()
        self._changed = asyncio.Condition()
        self._closing = asyncio.Event()
        self._runner: web.AppRunner | None = None

    def script(self, *faults: Fault) -> None:
        """Set the faults of the next requests, one for each request. They come before anything else is checked."""
        self._script.extend(faults)

    async def wait(self, condition: Callable[[], object]) -> None:
        """Return once *condition* holds; it is checked when a request has come, and when it was answered or failed."""
        async with self._changed:
            await self._changed.wait_for(condition)

    async def __aenter__(self) -> Self:
        app = web.Application(client_max_size=_MAX_BODY)
        self._add_routes(app.router)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self._port).start()
        host, port = self._runner.addresses[0][:2]
        self.url = f"http://{host}:{port}"
        return self

    async def __aexit__(self, *exc: object) -> None:
        self._closing.set()
        if self._runner is not None:
            await self._runner.cleanup()

    # For subclasses.

    @abstractmethod
    def _add_routes(self, router: web.UrlDispatcher) -> None:
        """Add the routes that are served."""

    async def _next_fault(self) -> Fault | None:
        """Return the fault that the script has for a request that has come, when it is time to answer."""
        await self._wake()
        await asyncio.sleep(self.slow)
        return self._script.popleft() if self._script else None

    async def _settle(self, http: web.Request, fault: Fault | None, status: int) -> None:
        """Record how a request ended; if it gets no answer, let it hang and reset its connection."""
        self.answered.append(went(fault, status))
        await self._wake()
        if fault is not None and fault.how == "hang":
            await self._closing.wait()
        if fault is not None and fault.how != "answer":
            cut(http)

    async def _wake(self) -> None:
        async with self._changed:
            self._changed.notify_all()


def went(fault: Fault | None, status: int) -> int | str:
    """Return how a request ended: its status, or the fault's name if it got no answer."""
    return status if fault is None or fault.how == "answer" else fault.how
