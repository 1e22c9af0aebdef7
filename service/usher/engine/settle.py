"""What a verdict writes, in which order, and what is true once it is written.

The order is the protocol: a source offset is settled only when the log has acknowledged what replaces it; a dead letter
comes before its tombstone; a claim that is gone writes nothing but the news of a success.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from usher.delivery import WRITER, Delivery, Record
from usher.engine.dead_letters import (
    UNDECODABLE,
    State,
    dead_letter_headers,
    request_key,
    state_headers,
    undecodable,
)
from usher.engine.lanes import ClaimState, InFlight
from usher.eventlog.errors import LogUnavailable, TooLarge
from usher.eventlog.port import EventLog
from usher.metrics import Metrics
from usher.outcome import Dead, Done, Park
from usher.redact import scrub

if TYPE_CHECKING:
    from structlog.typing import FilteringBoundLogger

_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 2.0
_STUB = "usher-stub"
_STUB_HEADER = 2048
"""Bytes of a header that a stub keeps: what is longer is a producer's key, and was what made the letter too large."""


class _Outage:
    """Says that writes are refused: a line a second, not one for each of the hundreds that wait."""

    def __init__(self) -> None:
        self._told_at, self._refused = float("-inf"), 0

    def tell(self, logger: FilteringBoundLogger, error: Exception) -> None:
        self._refused += 1
        now = asyncio.get_running_loop().time()
        if now - self._told_at >= 1.0:
            logger.warning("the event log takes no writes, trying again", error=scrub(error), refused=self._refused)
            self._told_at, self._refused = now, 0


@dataclass(frozen=True, slots=True)
class Settler:
    """Writes verdicts down. Each method returns whether the log has acknowledged it: if not, the claim is gone."""

    event_log: EventLog
    group: str
    metrics: Metrics
    logger: FilteringBoundLogger
    _outage: _Outage = field(default_factory=_Outage, init=False)

    async def done(self, state: ClaimState, in_flight: InFlight, verdict: Done) -> bool:
        """Never parked: no write at all. Parked, or the claim is gone: a tombstone, so that nobody runs it again."""
        delivery = in_flight.delivery
        if delivery.replay is not None:
            return await self.note(state, delivery, "replayed", verdict.reason)
        if not in_flight.parked and state.ours:
            state.ledger.settle(delivery.offset, delivery.handler)
            return True
        return await self._tombstone(state, delivery)

    async def park(self, state: ClaimState, in_flight: InFlight, parked: Delivery) -> bool:
        """Park a delivery as *parked* says: with a due time after a failure, without one behind another.

        Raises:
            TooLarge: it fits into the source topic but, with its headers, not into the retry topic.
        """
        headers = [*parked.headers(), (WRITER, state.writer)]

        async def write() -> None:
            try:
                await self.event_log.park(state.claim, parked.key, parked.value, headers)
            except LogUnavailable:
                state.doubtful.add(parked.key)
                raise

        if not await self._durable(state, write):
            return False
        in_flight.parked = True
        if state.ours:
            state.table.put(parked)
            state.ledger.settle(parked.offset, parked.handler)
        return True

    async def bury(self, state: ClaimState, in_flight: InFlight, verdict: Dead, expires_at: int | None) -> bool:
        """The dead letter, then (where it was parked) the tombstone."""
        delivery = in_flight.delivery
        headers = dead_letter_headers(delivery, reason=verdict.reason, group=self.group, expires_at=expires_at)
        if not await self._bury(state, delivery.origin.key, delivery.value, headers):
            return False
        self.metrics.dead_letters.labels(delivery.handler, verdict.reason).inc()
        self._line(delivery, "dead-lettered", reason=verdict.reason, error=verdict.error)
        if delivery.replay is not None:
            return True
        if in_flight.parked:
            return await self._tombstone(state, delivery)
        state.ledger.settle(delivery.offset, delivery.handler)
        return True

    async def bury_record(self, state: ClaimState, record: Record, reason: str) -> bool:
        """The dead letter of bytes that are no event."""
        delivery = replace(undecodable(record), error=scrub(reason), error_type="usher.event.Undecodable")
        headers = dead_letter_headers(delivery, reason=UNDECODABLE, group=self.group, expires_at=None)
        if not await self._bury(state, record.key, record.value, headers):
            return False
        self.metrics.dead_letters.labels("", UNDECODABLE).inc()
        self._line(delivery, "dead-lettered", reason=UNDECODABLE, error=delivery.error)
        state.ledger.settle(record.offset, "")
        return True

    async def note(self, state: ClaimState, delivery: Delivery, became: State, note: str = "") -> bool:
        """Say in the dead-letter topic what became of the letter that *delivery* replays."""
        replay = delivery.replay
        if replay is None:
            return True
        headers = state_headers(replay.dead_letter, became, note=scrub(note), replay=replay.id)
        return await self._bury(state, None, None, headers)

    async def answer(self, state: ClaimState, request_id: str) -> bool:
        """Take an operator's request out of the retry topic: it has been carried out."""
        return await self._durable(state, lambda: self.event_log.unpark(state.claim, request_key(request_id)))

    async def answer_stranger(self, state: ClaimState, delivery: Delivery) -> None:
        """A late write of another worker about what is done for good: take it back."""
        headers = [(WRITER, state.writer)]
        await self._durable(state, lambda: self.event_log.unpark(state.claim, delivery.key, headers))

    def parked_line(self, delivery: Delivery, verdict: Park) -> None:
        due = datetime.fromtimestamp((delivery.due or 0) / 1000, UTC).isoformat(timespec="milliseconds")
        self._line(delivery, "parked", outcome=verdict.label, error=verdict.error, due=due)

    def _line(self, delivery: Delivery, what: str, **more: object) -> None:
        origin = delivery.origin
        self.logger.info(
            what,
            event_id=delivery.uid.id,
            handler=delivery.handler,
            attempt=delivery.attempt,
            topic=origin.topic,
            partition=origin.partition,
            offset=origin.offset,
            **more,
        )

    async def _tombstone(self, state: ClaimState, delivery: Delivery) -> bool:
        headers = [(WRITER, state.writer)]
        if not await self._durable(state, lambda: self.event_log.unpark(state.claim, delivery.key, headers)):
            return False
        if state.ours:
            state.table.remove(delivery.key)
            state.ledger.settle(delivery.offset, delivery.handler)
        return True

    async def _bury(
        self, state: ClaimState, key: bytes | None, value: bytes | None, headers: Sequence[tuple[str, bytes]]
    ) -> bool:
        try:
            return await self._durable(state, lambda: self.event_log.bury(state.claim, key, value, headers))
        except TooLarge:  # the headers were too much: what is left is the place where the original lies
            ours = [pair for pair in headers if pair[0].startswith(("usher-", "kafka_dlt-"))]
            stub = [(name, text) for name, text in ours if len(text) <= _STUB_HEADER]
            stub.append((_STUB, b"too large to be copied: see the original topic, partition and offset"))
            return await self._durable(state, lambda: self.event_log.bury(state.claim, None, b"", stub))

    async def _durable(self, state: ClaimState, write: Callable[[], Awaitable[None]]) -> bool:
        pause = _FIRST_PAUSE
        while True:
            try:
                await write()
            except LogUnavailable as error:
                if not state.ours:
                    return False
                self._outage.tell(self.logger, error)
                await asyncio.sleep(pause)
                pause = min(pause * 2, _LONGEST_PAUSE)
            else:
                return True
