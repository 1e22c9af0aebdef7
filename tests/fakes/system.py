"""The base of the loopback identity systems: routes that check the script of faults."""

from __future__ import annotations

from abc import ABC
from collections.abc import Awaitable, Callable

from aiohttp import web

from usher.testing.server import Fault, LoopbackServer

Serve = Callable[[web.Request], Awaitable[web.StreamResponse]]


class FakeSystem(LoopbackServer, ABC):
    """Serves an identity system's API on loopback, as an async context manager."""

    async def wait_answered(self, count: int) -> None:
        """Return once at least *count* requests were answered or failed (one that hangs counts when it has come)."""
        await self.wait(lambda: len(self.answered) >= count)

    def _arrived(self, http: web.Request) -> None:
        """Do something for each request that has come, before any fault."""

    def _served(self, act: Serve) -> Serve:
        """Make a route of *act*, with the faults of the script."""

        async def serve(http: web.Request) -> web.StreamResponse:
            await http.read()
            fault = await self._next_fault()
            self._arrived(http)
            if fault is None or fault.how == "drop":
                response = await act(http)
            else:
                response = _failed(fault)
            await self._settle(http, fault, response.status)
            return response

        return serve


def _failed(fault: Fault) -> web.Response:
    return web.Response(status=fault.status or 500, headers=dict(fault.headers), body=fault.body or b"")
