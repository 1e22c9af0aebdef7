"""The durable writes of a claim: each is tried again until the event log has acknowledged it, or the claim is gone."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from usher.delivery import OUR_HEADERS, Delivery, Headers
from usher.engine.claim_state import ClaimState
from usher.engine.dead_letters import request_key
from usher.eventlog.errors import LogUnavailable, TooLarge
from usher.eventlog.port import EventLog
from usher.headers import ORIGINAL_GROUP, STUB, WRITER, delivery_headers, owner_headers
from usher.redact import scrub

if TYPE_CHECKING:
    from structlog.typing import FilteringBoundLogger

_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 2.0
_STUB_HEADER = 2048
"""How many bytes a header may have in a stub. A longer one is the key of a producer, and made the dead letter too large."""


class _Outage:
    """Logs that writes are refused: one line a second, not one for each of the hundreds that wait."""

    def __init__(self) -> None:
        self._logged_at, self._refused = float("-inf"), 0

    def log(self, logger: FilteringBoundLogger, error: Exception) -> None:
        self._refused += 1
        now = asyncio.get_running_loop().time()
        if now - self._logged_at >= 1.0:
            logger.warning("the event log takes no writes, trying again", error=scrub(error), refused=self._refused)
            self._logged_at, self._refused = now, 0


@dataclass(frozen=True, slots=True)
class Writes:
    """Writes the records of *group* durably. Each method returns whether the event log has acknowledged it. If not, the claim is gone."""

    event_log: EventLog
    logger: FilteringBoundLogger
    group: str
    _outage: _Outage = field(default_factory=_Outage, init=False)

    async def park(self, state: ClaimState, delivery: Delivery) -> bool:
        """Write the park record of *delivery*.

        Raises:
            TooLarge: it fits into the source topic but, with its headers, not into the retry topic.
        """
        headers = [*delivery_headers(delivery), (ORIGINAL_GROUP, self.group.encode()), (WRITER, state.writer)]

        async def write() -> None:
            try:
                await self.event_log.park(state.claim, delivery.key, delivery.value, headers)
            except LogUnavailable:
                state.doubtful.add(delivery.key)
                raise

        return await self._durable(state, write)

    async def unpark(self, state: ClaimState, delivery: Delivery) -> bool:
        """Write the tombstone of *delivery*."""
        owner = owner_headers(self.group, delivery.origin.topic, delivery.origin.topic_id)
        headers = [*owner, (WRITER, state.writer)]
        return await self._durable(state, lambda: self.event_log.unpark(state.claim, delivery.key, headers))

    async def answer(self, state: ClaimState, request_id: str) -> bool:
        """Write the tombstone of an operator's request: it has been carried out."""
        headers = owner_headers(self.group, state.claim.topic, state.claim.topic_id)
        return await self._durable(state, lambda: self.event_log.unpark(state.claim, request_key(request_id), headers))

    async def bury(self, state: ClaimState, key: bytes | None, value: bytes | None, headers: Headers) -> bool:
        """Append to the dead-letter topic. A record that is too large becomes a stub that says where the original is."""
        try:
            return await self._durable(state, lambda: self.event_log.bury(state.claim, key, value, headers))
        except TooLarge:
            ours = [pair for pair in headers if pair[0].startswith(OUR_HEADERS)]
            stub = [(name, text) for name, text in ours if len(text) <= _STUB_HEADER]
            stub.append((STUB, b"too large to be copied: see the original topic, partition and offset"))
            return await self._durable(state, lambda: self.event_log.bury(state.claim, None, b"", stub))

    async def _durable(self, state: ClaimState, write: Callable[[], Awaitable[None]]) -> bool:
        pause = _FIRST_PAUSE
        while True:
            try:
                await write()
            except LogUnavailable as error:
                if not state.ours:
                    return False
                self._outage.log(self.logger, error)
                await asyncio.sleep(pause)
                pause = min(pause * 2, _LONGEST_PAUSE)
            else:
                return True
