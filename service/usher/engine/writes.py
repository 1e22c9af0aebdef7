"""The records of a group that are written: durably, until the event log has acknowledged them or the claim is gone. Hides every outage."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

from usher.delivery import OUR_HEADERS, Delivery, Headers, Unreadable
from usher.delivery.headers import ORIGINAL_GROUP, STUB, WRITER, delivery_headers, owner_headers
from usher.engine.claim_state import ClaimState
from usher.engine.dead_letters import request_key
from usher.eventlog.errors import LogUnavailable, TooLarge
from usher.eventlog.port import EventLog
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

    def refused(self, error: Exception) -> None:
        """Log that the event log takes no writes, and who asks tries again."""
        self._outage.log(self.logger, error)

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

        return await self.durable(state, write, failure=True)

    async def unpark(self, state: ClaimState, delivery: Delivery) -> bool:
        """Write the tombstone of *delivery*."""
        owner = owner_headers(self.group, delivery.origin.topic, delivery.origin.topic_id)
        headers = [*owner, (WRITER, state.writer)]
        write = partial(self.event_log.unpark, state.claim, delivery.key, headers)
        return await self.durable(state, write, least=True)

    async def answer(self, state: ClaimState, request_id: str) -> bool:
        """Write the tombstone of an operator's request: it has been carried out."""
        headers = owner_headers(self.group, state.claim.topic, state.claim.topic_id)
        write = partial(self.event_log.unpark, state.claim, request_key(request_id), headers)
        return await self.durable(state, write, least=True)

    async def bury(self, state: ClaimState, key: bytes | None, value: bytes | None, headers: Headers) -> bool:
        """Append to the dead-letter topic. A record that is too large, or can't be read, becomes a stub that names the original."""
        if isinstance(value, Unreadable):
            value, headers = b"", [*headers, (STUB, b"can't be read: see the original topic, partition and offset")]
        try:
            write = partial(self.event_log.bury, state.claim, key, value, headers)
            return await self.durable(state, write, failure=value is not None)
        except TooLarge:
            ours = [pair for pair in headers if pair[0].startswith(OUR_HEADERS)]
            stub = [(name, text) for name, text in ours if len(text) <= _STUB_HEADER]
            stub.append((STUB, b"too large to be copied: see the original topic, partition and offset"))
            write = partial(self.event_log.bury, state.claim, None, b"", stub)
            return await self.durable(state, write, failure=True, least=True)

    async def durable(
        self, state: ClaimState, write: Callable[[], Awaitable[None]], *, failure: bool = False, least: bool = False
    ) -> bool:
        """Write until it is acknowledged. What says of a *failure* is not tried again once the claim is gone.

        *least*: less can't be said, so a topic that has no room for it has to be mended first. Else it raises `TooLarge`.
        """
        pause = _FIRST_PAUSE
        while True:
            try:
                await write()
            except (LogUnavailable, TooLarge) as error:
                if isinstance(error, TooLarge) and not least:
                    raise
                if not state.ours:
                    return False
                self.refused(error)
                await asyncio.sleep(pause)
                if not state.ours and failure:
                    return False  # rule 9: the claim was lost meanwhile
                pause = min(pause * 2, _LONGEST_PAUSE)
            else:
                return True
