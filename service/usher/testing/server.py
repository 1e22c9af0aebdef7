"""A loopback server that fails as it is told. Hides its start and stop, and how a request goes wrong on the wire.

What the fakes have in common: `script` says what is to go wrong, `answered` how each request went.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Literal, Self

from aiohttp import web

Serve = Callable[[web.Request], Awaitable[web.StreamResponse]]
_MAX_BODY = 32 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Fault:
    """What to do with a request instead of the right thing.

    *how*: ``answer`` with *status*; ``hang`` without an answer; ``reset`` the connection, nothing accepted; ``drop``:
    do what is asked, then reset. *body* None: none, or what the fake knows to say for that status.
    """

    how: Literal["answer", "hang", "reset", "drop"]
    status: int = 0
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes | None = None


HANG = Fault("hang")
RESET = Fault("reset")
DROP = Fault("drop")


def answer(status: int, *, body: bytes | None = None, headers: Iterable[tuple[str, str]] = ()) -> Fault:
    """Answer with *status* and accept nothing."""
    return Fault("answer", status, tuple(headers), body)


def cut(http: web.Request) -> None:
    """Close with a TCP reset, as a balancer does that lost its backend."""
    if http.transport is not None:
        connection = http.transport.get_extra_info("socket")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        http.transport.abort()


class LoopbackServer(ABC):
    """An async context manager: what serves while it is open, at `url`.

    Args:
        slow: seconds before each answer; may be changed at any time.
        port: on 127.0.0.1; 0 lets the system choose.
    """

    def __init__(self, *, slow: float = 0.0, port: int = 0) -> None:
        self.url = ""
        self.slow = slow
        self.answered: list[int | str] = []
        """The status of each request, or how it went without one."""
        self._port = port
        self._script: deque[Fault] = deque()
        self._changed = asyncio.Condition()
        self._closing = asyncio.Event()
        self._runner: web.AppRunner | None = None

    def script(self, *faults: Fault) -> None:
        """What to do with the next requests, one each, before anything else is looked at."""
        self._script.extend(faults)

    async def wait(self, condition: Callable[[], object]) -> None:
        """Return once *condition* holds; it is asked when a request has come, and when it has been dealt with."""
        async with self._changed:
            await self._changed.wait_for(condition)

    async def wait_answered(self, count: int) -> None:
        """Return once at least *count* requests have been dealt with (a hanging one: has come)."""
        await self.wait(lambda: len(self.answered) >= count)

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

    # For those that build on it.

    @abstractmethod
    def _add_routes(self, router: web.UrlDispatcher) -> None:
        """Say what is served."""

    def _arrived(self, http: web.Request) -> None:  # noqa: B027 a hook: most have nothing to note
        """Called for each request that has come, whatever becomes of it."""

    def _served(self, act: Serve) -> Serve:
        """*act* as a route, with the faults that are asked for."""

        async def serve(http: web.Request) -> web.StreamResponse:
            await http.read()
            fault = await self._next_fault(http)
            if fault is None or fault.how == "drop":
                response = await act(http)
            else:
                response = web.Response(status=fault.status or 500, headers=dict(fault.headers), body=fault.body or b"")
            await self._settle(http, fault, response.status)
            return response

        return serve

    async def _next_fault(self, http: web.Request) -> Fault | None:
        """What the script has for a request that has come."""
        await asyncio.sleep(self.slow)
        self._arrived(http)
        await self._wake()
        return self._script.popleft() if self._script else None

    async def _settle(self, http: web.Request, fault: Fault | None, status: int) -> None:
        """Write down how a request went; where it gets no answer, let it hang and cut it off."""
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
    """How a request went: the status, or the fault's name where it got none."""
    return status if fault is None or fault.how == "answer" else fault.how
