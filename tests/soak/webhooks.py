"""Webhooks: events that are posted to the workers as Authgear does, each until a worker has acknowledged it."""

from __future__ import annotations

import asyncio
import random
from collections import Counter

import aiohttp
from tests.chaos.fleet import Fleet
from tests.ingress import sign

from usher.systems.authgear.source import SIGNATURE

SECRET = "the-secret-of-the-soak"
_AGAIN = 0.2
_TIMEOUT = aiohttp.ClientTimeout(total=60)


class Webhooks:
    """Posts to a worker that chance picks. *answers* counts the statuses, and as 0 the calls that got no answer."""

    def __init__(self, fleet: Fleet, rng: random.Random) -> None:
        self.answers: Counter[int] = Counter()
        self._fleet = fleet
        self._rng = rng

    async def post(self, body: bytes) -> None:
        """Post until a worker answers 2xx: to another one after each answer that is not."""
        while not 200 <= await self._once(body) < 300:  # noqa: ASYNC110 - it is another process: we can only ask it
            await asyncio.sleep(_AGAIN)

    async def _once(self, body: bytes) -> int:
        url = self._rng.choice(self._fleet.workers).url
        status = 0
        try:
            if url:
                headers = sign(SIGNATURE, body, SECRET)
                call = self._fleet.http.post(f"{url}/ingest/authgear", data=body, headers=headers, timeout=_TIMEOUT)
                async with call as answer:
                    status = answer.status
        except (aiohttp.ClientError, TimeoutError):
            pass
        self.answers[status] += 1
        return status
