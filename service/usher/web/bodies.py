"""The bodies of callers that are not proven yet: read as they come, within a bound for all of them."""

from __future__ import annotations

import asyncio
from collections import OrderedDict

from aiohttp import StreamReader

from usher.web.bounds import Bounds, Crowded


class UnprovenBodies:
    """Reads bodies whose sender can be proven only by the whole body, at most *most* bytes of all of them at once."""

    def __init__(self, most: int, bounds: Bounds) -> None:
        self._most, self._bounds = most, bounds
        self._sizes: OrderedDict[asyncio.Timeout, int] = OrderedDict()
        self._total = 0

    async def read(self, content: StreamReader, limit: int, patience: float, *, proven: bool) -> bytes | None:
        """Read a body, in *patience* seconds; None: it is larger than *limit* bytes. One whose sender is *proven* is not counted.

        Raises:
            Crowded: there are too many bytes of all bodies, and this body is the oldest.
            TimeoutError: it did not arrive in time.
        """
        body, given_up = bytearray(), False
        try:
            async with asyncio.timeout(patience) as deadline:
                if not proven:
                    self._sizes[deadline] = 0
                try:
                    while len(body) <= limit and (chunk := await content.readany()):
                        body += chunk
                        self._count(deadline, len(chunk))
                finally:
                    given_up = not proven and deadline not in self._sizes
                    self._total -= self._sizes.pop(deadline, 0)
        except TimeoutError:
            if given_up:
                raise Crowded from None
            self._bounds.reached("body")
            raise
        return bytes(body) if len(body) <= limit else None

    def _count(self, deadline: asyncio.Timeout, size: int) -> None:
        if deadline in self._sizes:
            self._sizes[deadline] += size
            self._total += size
        while self._total > self._most:
            oldest, its_size = self._sizes.popitem(last=False)
            self._total -= its_size
            self._bounds.reached("unproven-bytes")
            if oldest is deadline:
                raise Crowded
            if not oldest.expired():
                oldest.reschedule(asyncio.get_running_loop().time())
