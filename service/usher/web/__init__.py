"""The HTTP server: webhooks, health probes and metrics. `build_web` and `WebServer` are what others use."""

from __future__ import annotations

import logging
import os
import traceback
from collections.abc import Mapping
from typing import TYPE_CHECKING

from aiohttp import hdrs, web

from usher.metrics import Metrics
from usher.web.health import OK, Vital, health_routes
from usher.web.ingress import Enrich, Ingress, Sink

if TYPE_CHECKING:
    from aiohttp.typedefs import Handler, Middleware
    from structlog.typing import FilteringBoundLogger

__all__ = ["OK", "Enrich", "Ingress", "WebServer", "Sink", "Vital", "build_web"]

_LINGER = 1.0
"""Seconds in which the rest of a refused body is read and thrown away, so that the sender gets the answer and no reset."""

_protocol_logger = logging.getLogger("usher.web.protocol")
"""The logger for aiohttp's own lines. They quote what a stranger sent, headers included, so they are dropped."""
_protocol_logger.addHandler(logging.NullHandler())
_protocol_logger.propagate = False


def build_web(
    *, vital: Vital, metrics: Metrics, logger: FilteringBoundLogger, ingresses: Mapping[str, Ingress] | None = None
) -> web.Application:
    """Build the application: health probes, metrics, and the webhooks by their paths (any other path is 404)."""
    app = web.Application(middlewares=[_without_500(logger)])
    app.add_routes(health_routes(vital, metrics))
    for path, ingress in (ingresses or {}).items():
        app.router.add_post(path, ingress.handle)
    app.on_response_prepare.append(_without_banner)
    return app


class WebServer:
    """Serves an application on a host and port. Port 0 lets the system choose one; `port` has it after `start`."""

    def __init__(self, app: web.Application, host: str, port: int, *, grace: float = 5.0) -> None:
        self._host = host
        self._port = port
        self._runner = web.AppRunner(
            app,
            access_log=None,
            logger=_protocol_logger,
            handle_signals=False,
            auto_decompress=False,  # a signature covers the bytes as sent, and what is not decompressed can't explode
            lingering_time=_LINGER,
            shutdown_timeout=grace,
        )

    @property
    def port(self) -> int:
        """The port it listens on: the real one once it has started."""
        return self._port

    async def start(self) -> None:
        """Start to listen.

        Raises:
            OSError: the address can't be used; the text says which.
        """
        await self._runner.setup()
        try:
            await web.TCPSite(self._runner, self._host, self._port).start()
        except OSError as refusal:
            await self._runner.cleanup()
            code = refusal.errno or 0
            why = os.strerror(code) if code > 0 else refusal.strerror  # asyncio's own text repeats the address
            raise OSError(
                refusal.errno, f"can't listen on {self._host}:{self._port}: {why}; see USHER_HTTP"
            ) from refusal
        self._port = self._runner.addresses[0][1]

    async def stop(self) -> None:
        """Stop listening, let the calls that are being answered end within the grace, and close. May be called twice."""
        await self._runner.cleanup()


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
