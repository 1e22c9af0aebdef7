"""Health probes and metrics over HTTP, for orchestrators and for Prometheus."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Protocol

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from usher.metrics import Metrics

OK = "ok"
"""The word of a check that found nothing wrong; any other text says what is wrong."""

_PATIENCE = 5.0

_Handler = Callable[[web.Request], Awaitable[web.Response]]


class Vital(Protocol):
    """Knows the state of the service. Both methods return a word for each check by name: `OK`, or what is wrong."""

    async def alive(self) -> Mapping[str, str]:
        """Check that the loop turns and the worker polls. A failure makes orchestrators restart it, so be slow to report one."""

    async def ready(self) -> Mapping[str, str]:
        """Check that it does its work: claims loaded or none to load, the event log writable, not starting, not stopping."""


def health_routes(vital: Vital, metrics: Metrics, patience: float = _PATIENCE) -> list[web.RouteDef]:
    """Return the routes ``/healthz``, ``/readyz`` and ``/metrics``. A check that takes over *patience* seconds has failed."""

    async def expose(_request: web.Request) -> web.Response:
        return web.Response(body=generate_latest(metrics.registry), headers={"Content-Type": CONTENT_TYPE_LATEST})

    return [
        web.get("/healthz", _probe(vital.alive, patience)),
        web.get("/readyz", _probe(vital.ready, patience)),
        web.get("/metrics", expose),
    ]


def _probe(ask: Callable[[], Awaitable[Mapping[str, str]]], patience: float) -> _Handler:
    async def probe(_request: web.Request) -> web.Response:
        try:
            async with asyncio.timeout(patience):
                checks = dict(await ask())
        except Exception as trouble:  # noqa: BLE001 - a check that raises has failed, and the answer names the kind of error
            checks = {"checks": f"could not be made: {type(trouble).__name__}"}
        good = all(word == OK for word in checks.values())
        body = {"status": OK if good else "failing", "checks": checks}
        return web.json_response(body, status=200 if good else 503, headers={"Cache-Control": "no-store"})

    return probe
