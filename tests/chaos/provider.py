"""The provider double: it fails as the plan says, and sees when each request of each worker begins and ends."""

from __future__ import annotations

import asyncio
import random
import socket
import struct
import time
from dataclasses import dataclass
from typing import Literal

from aiohttp import web

Result = Literal["accepted", "refused", "failed"]

MOODS = {"well": 700, "early": 190, "busy": 60, "slow": 25, "reset": 15, "drop": 5, "hang": 5}
"""How often it does what. ``early`` takes the message before it answers, ``drop`` does and never answers."""


@dataclass(slots=True, eq=False)
class Attempt:
    """One request. Times are of `time.monotonic`.

    *settled* is when the provider accepted the message or refused it for good. *ended*: the answer went out, or the
    connection was gone. Not *answered*: the worker can't know what became of it.
    """

    handler: str
    user: str
    sequence: int
    event: str
    pid: int
    began: float
    ended: float | None = None
    settled: float | None = None
    result: Result = "failed"
    answered: bool = False

    @property
    def lane(self) -> tuple[str, str]:
        return self.handler, self.user


class Provider:
    """An async context manager. *refused* are the events that get a 422, *never* those that always get a 503.

    *down*: everything gets a 503. *healthy*: nothing fails but these; else it does as chance picks from *moods*.
    """

    def __init__(self, rng: random.Random) -> None:
        self.url = ""
        self.attempts: list[Attempt] = []
        self.refused: set[str] = set()
        self.never: set[str] = set()
        self.moods = dict(MOODS)
        self.down = False
        self.healthy = False
        self._rng = rng
        self._runner: web.AppRunner | None = None

    def in_flight(self, pid: int) -> int:
        """How many requests of a process are under way."""
        return sum(attempt.pid == pid and attempt.ended is None for attempt in self.attempts[-2_000:])

    async def __aenter__(self) -> Provider:
        app = web.Application()
        app.router.add_post("/", self._serve)
        # A handler is cancelled when its client is gone: that is how the end of a killed worker's request is seen.
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1, handler_cancellation=True)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.url = "http://{}:{}/".format(*self._runner.addresses[0][:2])
        return self

    async def __aexit__(self, *exc: object) -> None:
        if self._runner is not None:
            await self._runner.cleanup()

    async def _serve(self, http: web.Request) -> web.Response:
        began = time.monotonic()
        request = await http.json()
        request.pop("attempt")
        attempt = Attempt(**request, began=began)
        self.attempts.append(attempt)
        try:
            return await self._decide(http, attempt)
        finally:
            attempt.ended = time.monotonic()

    async def _decide(self, http: web.Request, attempt: Attempt) -> web.Response:
        mood = self._mood()
        if mood == "hang":
            await asyncio.sleep(60)
        if mood == "early":  # the message is taken before the answer is on its way
            self._settle(attempt)
        await asyncio.sleep(self._rng.uniform(0.3, 2.0) if mood == "slow" else self._rng.uniform(0.02, 0.2))
        if mood == "reset":
            _reset(http)
            return web.Response(status=500)
        if mood == "busy" or attempt.event in self.never:
            attempt.answered = True
            return web.Response(status=503)
        self._settle(attempt)
        if mood == "drop":
            _reset(http)
            return web.Response(status=500)
        attempt.answered = True
        return web.Response(status=422 if attempt.result == "refused" else 200)

    def _mood(self) -> str:
        if self.healthy:
            return "well"
        if self.down:
            return "busy"
        return self._rng.choices(list(self.moods), list(self.moods.values()))[0]

    def _settle(self, attempt: Attempt) -> None:
        if attempt.settled is None and attempt.event not in self.never:
            attempt.settled = time.monotonic()
            attempt.result = "refused" if attempt.event in self.refused else "accepted"


def _reset(http: web.Request) -> None:
    """Close with a TCP reset, as a balancer does that lost its backend."""
    if http.transport is not None:
        connection = http.transport.get_extra_info("socket")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        http.transport.abort()
