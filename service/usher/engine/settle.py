"""What a verdict does: which records are written, in which order, and where a delivery ends. Hides how a write gets to the event log.

The order is the protocol. A source offset is settled only when the event log has acknowledged what replaces it. A dead letter
comes before its tombstone. A claim that is gone writes nothing but its late successes (rule 9).
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING

from usher.delivery import OUR_HEADERS, Delivery, Headers, Replay, Unreadable
from usher.delivery.headers import ORIGINAL_GROUP, STUB, WRITER, delivery_headers, owner_headers
from usher.engine.attempt import Attempts
from usher.engine.claim_state import ClaimState
from usher.engine.dead_letters import (
    EXPIRED,
    HANDLER_GONE,
    TOO_LARGE,
    State,
    dead_letter_headers,
    request_key,
    state_headers,
)
from usher.engine.lanes import InFlight
from usher.eventlog.errors import LogUnavailable, TooLarge
from usher.eventlog.port import EventLog
from usher.metrics import Metrics
from usher.outcome import Dead, Done, Park, Verdict
from usher.redact import scrub

if TYPE_CHECKING:
    from structlog.typing import FilteringBoundLogger

_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 2.0
_STUB_HEADER = 2048
"""How many bytes a header may have in a stub. A longer one is the key of a producer, and made the dead letter too large."""
_REFUSED = (EXPIRED, HANDLER_GONE)
"""For these reasons a replay is refused: its dead letter stays open."""


class Behind:
    """The verdict on a delivery that waits behind an earlier one of its lane: park it, without an attempt or a due time (rule 3)."""

    label = "failed"
    error_type = f"{TooLarge.__module__}.{TooLarge.__qualname__}"
    """Its label and its error where it can't be parked."""


@dataclass(frozen=True, slots=True)
class Settler:
    """Carries out verdicts: the one place that decides what becomes of a delivery."""

    writes: Writes
    attempts: Attempts
    group: str
    metrics: Metrics
    logger: FilteringBoundLogger

    async def settle(self, state: ClaimState, in_flight: InFlight, verdict: Verdict | Behind) -> bool:
        """Carry out *verdict*. Returns whether the delivery is parked now, so that its lane has to wait for it."""
        in_flight.settling = True
        if in_flight.keeping is not None:
            await in_flight.keeping
        if not state.ours and not isinstance(verdict, Done):
            return False  # rule 9: the new owner has the delivery
        parked = False
        if isinstance(verdict, Park | Behind):
            try:
                parked = await self._park(state, in_flight, verdict)
            except TooLarge as error:
                verdict = Dead(TOO_LARGE, verdict.label, scrub(error), verdict.error_type)
        if isinstance(verdict, Dead):
            await self._give_up(state, in_flight, verdict)
        elif isinstance(verdict, Done):
            await self._done(state, in_flight, verdict)
        if in_flight.outcome is not None:
            self._end_replay(in_flight.delivery, in_flight.outcome, verdict)
        return parked

    async def done_elsewhere(self, state: ClaimState, in_flight: InFlight) -> None:
        """Let go of a delivery that another attempt or another worker has ended: it does not end here a second time."""
        if in_flight.keeping is not None:
            await in_flight.keeping
        if in_flight.outcome is None:
            await self._let_go(state, in_flight.delivery, tombstone=in_flight.parked or not state.ours)
        else:  # a replay: its dead letter still has to get its state
            await self.settle(state, in_flight, Done())

    async def keep(self, state: ClaimState, in_flight: InFlight) -> None:
        """Park a delivery that is queued or runs: its topic is gone, so the next owner could not read it. Its end waits for this."""
        if in_flight.parked or in_flight.outcome is not None:
            return
        with contextlib.suppress(TooLarge):  # if it fails, it becomes a dead letter
            in_flight.parked = await self.writes.park(state, in_flight.delivery)

    def ended(self, delivery: Delivery, verdict: Done | Dead) -> None:
        """Record that *delivery* has ended: done, skipped, dead or replayed. Each end of a delivery comes through here.

        It is called when nothing can change the end any more, and before the delivery is let go: before its tombstone is
        written, and (with no await in between) before its offset is settled. So no commit can cover an end that was not here.
        A crash may repeat an end together with its delivery.
        """
        if isinstance(verdict, Dead):
            self.metrics.dead_letters.labels(delivery.handler, verdict.reason).inc()
            self._line(delivery, "dead-lettered", reason=verdict.reason, error=verdict.error)

    async def _done(self, state: ClaimState, in_flight: InFlight, verdict: Done) -> None:
        """Rule 4. Never parked: no record at all. Parked, or the claim is gone: a tombstone, so that no worker runs it again."""
        delivery = in_flight.delivery
        self.ended(delivery, verdict)
        if delivery.replay is not None:
            await self._set_state(state, delivery.replay, "replayed", verdict.reason)
        else:
            await self._let_go(state, delivery, tombstone=in_flight.parked or not state.ours)

    async def _park(self, state: ClaimState, in_flight: InFlight, verdict: Park | Behind) -> bool:
        """Rules 2 and 3. Returns whether it is parked now: its offset is settled once the event log has acknowledged that.

        Raises:
            TooLarge
        """
        delivery = in_flight.delivery
        if in_flight.done_elsewhere:  # a tombstone came during the attempt: nothing has to be written
            state.table.remove(delivery.key)
            state.ledger.settle(delivery.offset, delivery.handler)
            return False
        if not await self.writes.park(state, delivery):
            return False
        in_flight.parked = True
        if state.ours:
            state.table.put(delivery)
            state.ledger.settle(delivery.offset, delivery.handler)
        if isinstance(verdict, Park):
            due = datetime.fromtimestamp((delivery.due or 0) / 1000, UTC).isoformat(timespec="milliseconds")
            self._line(delivery, "parked", outcome=verdict.label, error=verdict.error, due=due)
            self._warn_of(delivery, verdict, due)
        if in_flight.done_elsewhere:  # a tombstone came during the write: take our record back, which came last
            await self._let_go(state, delivery, tombstone=True)
            return False
        return True

    def _warn_of(self, delivery: Delivery, verdict: Park, due: str) -> None:
        """Say that a lane waits longer than any of our policies lets it: somebody else has asked for that."""
        began = delivery.due if delivery.failed_at is None else delivery.failed_at
        wait = ((delivery.due or 0) - (began or 0)) / 1000
        if verdict.label != "held" and wait > self.attempts.longest_wait(delivery.handler) + 1:
            self._line(delivery, "a wait longer than any retry policy has", "warning", wait=round(wait), due=due)

    async def _give_up(self, state: ClaimState, in_flight: InFlight, verdict: Dead) -> None:
        """Rules 4 and 10: the dead letter, then (where it was parked) the tombstone. A replay may be refused instead."""
        delivery = in_flight.delivery
        if delivery.replay is not None and verdict.reason in _REFUSED:
            await self._set_state(state, delivery.replay, "refused", verdict.error)
            return
        expires_at = self.attempts.expiry_of(in_flight)
        headers = dead_letter_headers(delivery, reason=verdict.reason, group=self.group, expires_at=expires_at)
        if not await self.writes.bury(state, delivery.origin.key, delivery.value, headers):
            return
        self.ended(delivery, verdict)
        if delivery.replay is None:
            await self._let_go(state, delivery, tombstone=in_flight.parked)

    async def _let_go(self, state: ClaimState, delivery: Delivery, *, tombstone: bool) -> None:
        """Settle the offset of a delivery that has ended, after its *tombstone* where it needs one."""
        if tombstone:
            if not await self.writes.unpark(state, delivery) or not state.ours:
                return
            state.table.remove(delivery.key)
            if delivery.earlier:
                state.done_earlier.add(delivery.key)
        state.ledger.settle(delivery.offset, delivery.handler)

    async def _set_state(self, state: ClaimState, replay: Replay, became: State, note: str) -> None:
        """Write in the dead-letter topic what became of the dead letter of *replay*."""
        headers = state_headers(
            replay.dead_letter,
            became,
            group=self.group,
            topic=state.claim.topic,
            note=scrub(note),
            replay=replay.id,
        )
        await self.writes.bury(state, None, None, headers)

    def _end_replay(self, delivery: Delivery, outcome: asyncio.Future[str], verdict: Verdict | Behind) -> None:
        self.metrics.replays.labels(delivery.handler, "replayed" if isinstance(verdict, Done) else "failed").inc()
        if not outcome.done():
            outcome.set_result(verdict.label)

    def _line(self, delivery: Delivery, what: str, level: str = "info", **more: object) -> None:
        origin = delivery.origin
        getattr(self.logger, level)(
            what,
            event_id=delivery.uid.id,
            handler=delivery.handler,
            attempt=delivery.attempt,
            topic=origin.topic,
            partition=origin.partition,
            offset=origin.offset,
            **more,
        )


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

        return await self._durable(state, write, failure=True)

    async def unpark(self, state: ClaimState, delivery: Delivery) -> bool:
        """Write the tombstone of *delivery*."""
        owner = owner_headers(self.group, delivery.origin.topic, delivery.origin.topic_id)
        headers = [*owner, (WRITER, state.writer)]
        write = partial(self.event_log.unpark, state.claim, delivery.key, headers)
        return await self._durable(state, write, least=True)

    async def answer(self, state: ClaimState, request_id: str) -> bool:
        """Write the tombstone of an operator's request: it has been carried out."""
        headers = owner_headers(self.group, state.claim.topic, state.claim.topic_id)
        write = partial(self.event_log.unpark, state.claim, request_key(request_id), headers)
        return await self._durable(state, write, least=True)

    async def bury(self, state: ClaimState, key: bytes | None, value: bytes | None, headers: Headers) -> bool:
        """Append to the dead-letter topic. A record that is too large, or can't be read, becomes a stub that names the original."""
        if isinstance(value, Unreadable):
            value, headers = b"", [*headers, (STUB, b"can't be read: see the original topic, partition and offset")]
        try:
            write = partial(self.event_log.bury, state.claim, key, value, headers)
            return await self._durable(state, write, failure=value is not None)
        except TooLarge:
            ours = [pair for pair in headers if pair[0].startswith(OUR_HEADERS)]
            stub = [(name, text) for name, text in ours if len(text) <= _STUB_HEADER]
            stub.append((STUB, b"too large to be copied: see the original topic, partition and offset"))
            write = partial(self.event_log.bury, state.claim, None, b"", stub)
            return await self._durable(state, write, failure=True, least=True)

    async def _durable(
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
                self._outage.log(self.logger, error)
                await asyncio.sleep(pause)
                if not state.ours and failure:
                    return False  # rule 9: the claim was lost meanwhile
                pause = min(pause * 2, _LONGEST_PAUSE)
            else:
                return True
