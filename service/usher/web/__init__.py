"""The HTTP server: webhooks, health probes and metrics. `build_web` and `WebServer` are what others use."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import traceback
from collections.abc import Mapping
from typing import TYPE_CHECKING

from aiohttp import hdrs, web

from usher.metrics import Metrics
from usher.settings.http import HttpLimits
from usher.web.bodies import UnprovenBodies
from usher.web.bounds import Bounds
from usher.web.connections import LINGER, Connection, Connections, connection_of, connections_within, open_files
from usher.web.health import OK, Vital, health_routes
from usher.web.ingress import Enrich, Ingress, Sink

if TYPE_CHECKING:
    from aiohttp.typedefs import Handler, Middleware
    from structlog.typing import FilteringBoundLogger

__all__ = ["OK", "Bounds", "Enrich", "Ingress", "Sink", "Vital", "WebServer", "build_web"]

_BACKLOG = 4096
"""Connections that the system keeps until they are accepted; beyond it a new one waits for a second and tries again."""
_ACCEPTED_AT_ONCE = 4
"""Connections that are accepted in one turn of the loop: in the next ones it closes others for them, before it is out of open files."""
_READ_AT_ONCE = 64 * 1024

_protocol_logger = logging.getLogger("usher.web.protocol")
"""The logger for aiohttp's own lines. They quote what a stranger sent, headers included, so they are dropped."""
_protocol_logger.addHandler(logging.NullHandler())
_protocol_logger.propagate = False


def build_web(
    *, vital: Vital, metrics: Metrics, logger: FilteringBoundLogger, ingresses: Mapping[str, Ingress] | None = None
) -> web.Application:
    """Build the application: health probes, metrics, and the webhooks by their paths (any other path is 404)."""
    app = web.Application(middlewares=[_closing_early, _without_500(logger)])
    app.add_routes(health_routes(vital, metrics))
    for path, ingress in (ingresses or {}).items():
        app.router.add_post(path, ingress.handle)
    app.on_response_prepare.append(_without_banner)
    return app


class WebServer:
    """Serves an application on a host and port. Port 0 lets the system choose one; `port` has it after `start`.

    Args:
        limits: what callers may hold.
        bounds: where it is noted that they have reached one.
        others: connections that the process has beside them.
        grace: seconds that calls have to end in when it stops.
    """

    def __init__(
        self,
        app: web.Application,
        host: str,
        port: int,
        *,
        limits: HttpLimits,
        bounds: Bounds,
        others: int = 0,
        grace: float = 5.0,
    ) -> None:
        self._host = host
        self._port = port
        self._idle_timeout = limits.idle_timeout
        most = connections_within(limits.connections, open_files(), others)
        self._connections = Connections(
            most, limits.head_timeout, UnprovenBodies(limits.unproven_bytes, bounds), bounds
        )
        self._runner = web.AppRunner(app, access_log=None, handle_signals=False, shutdown_timeout=grace)
        self._listener: asyncio.Server | None = None

    @property
    def port(self) -> int:
        """The port it listens on: the real one once it has started."""
        return self._port

    @property
    def most_connections(self) -> int:
        """How many connections are open at once, at most."""
        return self._connections.most

    async def start(self) -> None:
        """Start to listen.

        Raises:
            OSError: the address can't be used; the text says which.
        """
        await self._runner.setup()
        loop = asyncio.get_running_loop()
        try:
            self._listener = await loop.create_server(
                self._connection, self._host, self._port, backlog=_ACCEPTED_AT_ONCE, reuse_address=os.name == "posix"
            )
            _let_wait(self._listener, _BACKLOG)
        except OSError as refusal:
            await self._runner.cleanup()
            code = refusal.errno or 0
            why = os.strerror(code) if code > 0 else refusal.strerror  # asyncio's own text repeats the address
            raise OSError(
                refusal.errno, f"can't listen on {self._host}:{self._port}: {why}; see USHER_HTTP"
            ) from refusal
        self._port = self._listener.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Stop listening, let the calls that are being answered end within the grace, and close. May be called twice."""
        if self._listener is not None:
            self._listener.close()
        await self._runner.cleanup()

    def _connection(self) -> Connection:
        """Make the protocol of a connection that was accepted."""
        manager = self._runner.server
        assert manager is not None  # noqa: S101 - it is there from `start` on
        return Connection(
            self._connections,
            manager,
            loop=asyncio.get_running_loop(),
            keepalive_timeout=self._idle_timeout,
            logger=_protocol_logger,
            access_log=None,
            auto_decompress=False,  # a signature covers the bytes as sent, and what is not decompressed can't explode
            lingering_time=LINGER,
            read_bufsize=_READ_AT_ONCE,
        )


def _let_wait(listener: asyncio.Server, most: int) -> None:
    """Let the system keep *most* connections until they are accepted: asyncio has one number for that and for `_ACCEPTED_AT_ONCE`."""
    for listening in listener.sockets:
        with socket.fromfd(listening.fileno(), listening.family, listening.type) as same:
            same.listen(most)


@web.middleware
async def _closing_early(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Say with an answer that comes before the end of the body that the connection is closed.

    What is left of the body is thrown away, so a proxy before us must not send another caller's request behind it.
    """
    connection_of(request).begun()
    try:
        response: web.StreamResponse = await handler(request)
    except web.HTTPException as answer:
        _close_after(request, answer)
        raise
    _close_after(request, response)
    return response


def _close_after(request: web.Request, answer: web.StreamResponse) -> None:
    if not request.content.is_eof():
        answer.force_close()


def _without_500(logger: FilteringBoundLogger) -> Middleware:
    """Return a middleware that answers a defect of ours with 503, so that senders try again. It quotes nothing of the request."""

    @web.middleware
    async def guard(request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            return await handler(request)
        except web.HTTPException:
            raise
        except ConnectionError:
            raise  # the client has gone, so no answer can be sent
        except Exception as defect:  # noqa: BLE001 - the last line of defence
            where = traceback.extract_tb(defect.__traceback__)[-1]
            logger.error("web defect", error=type(defect).__name__, where=f"{where.name}:{where.lineno}")  # noqa: TRY400
            return web.json_response({"error": "out of order"}, status=503, headers={"Retry-After": "5"})

    return guard


async def _without_banner(_request: web.Request, response: web.StreamResponse) -> None:
    """Remove the header that names the server and its version."""
    response.headers.popall(hdrs.SERVER, None)
