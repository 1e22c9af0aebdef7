"""Health and metrics over HTTP: what an orchestrator asks, and what Prometheus scrapes."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Protocol

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from usher.metrics import Metrics

OK = "ok"
"""What a check says when nothing is wrong; anything else says what is."""

_PATIENCE = 5.0

_Handler = Callable[[web.Request], Awaitable[web.Response]]


class Vital(Protocol):
    """What tells how the service is. Both answer with a word for each check by name: `OK`, or what is wrong."""

    async def alive(self) -> Mapping[str, str]:
        """Whether it should be left running: the loop turns, the worker polls. False alarms restart it, so be slow to judge."""

    async def ready(self) -> Mapping[str, str]:
        """Whether it does its work: claims loaded or none to load, the log writable, neither starting nor stopping."""


def health_routes(vital: Vital, metrics: Metrics, patience: float = _PATIENCE) -> list[web.RouteDef]:
    """The routes ``/healthz``, ``/readyz`` and ``/metrics``; checks that take longer than *patience* seconds have failed."""

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
        except Exception as trouble:  # noqa: BLE001 - a check that breaks has failed, and the answer says which kind
            checks = {"checks": f"could not be made: {type(trouble).__name__}"}
        good = all(word == OK for word in checks.values())
        body = {"status": OK if good else "failing", "checks": checks}
        return web.json_response(body, status=200 if good else 503, headers={"Cache-Control": "no-store"})

    return probe
