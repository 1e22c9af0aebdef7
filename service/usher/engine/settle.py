"""What a verdict does: which records are written, in which order, and where a delivery ends.

The order is the protocol. A source offset is settled only when the event log has acknowledged what replaces it. A dead letter
comes before its tombstone. A claim that is gone writes nothing but its late successes (rule 9).
"""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from usher.delivery import Delivery, Replay
from usher.engine.attempt import Attempts
from usher.engine.claim_state import ClaimState
from usher.engine.dead_letters import (
    EXPIRED,
    HANDLER_GONE,
    TOO_LARGE,
    State,
    dead_letter_headers,
    state_headers,
)
from usher.engine.lanes import InFlight
from usher.engine.receipts import Receipts
from usher.engine.writes import Writes
from usher.eventlog.errors import TooLarge
from usher.metrics import Metrics
from usher.outcome import Dead, Done, Park, Verdict
from usher.redact import scrub

if TYPE_CHECKING:
    from structlog.typing import FilteringBoundLogger

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
    receipts: Receipts
    attempts: Attempts
    group: str
    metrics: Metrics
    logger: FilteringBoundLogger

    async def settle(self, state: ClaimState, in_flight: InFlight, verdict: Verdict | Behind) -> bool:
        """Carry out *verdict*. Returns whether the delivery is parked now, so that its lane has to wait for it."""
        in_flight.settling = True
        if in_flight.keeping is not None:
            await in_flight.keeping
        if in_flight.accepted is not None and not isinstance(verdict, Done):  # the attempt has failed after that
            self.receipts.sent(state, in_flight)
            await self.receipts.filed(state)
        if not state.ours and not isinstance(verdict, Done):
            return False  # rule 9: the new owner has the delivery
        parked, ended = False, False
        if isinstance(verdict, Park | Behind):
            try:
                parked = await self._park(state, in_flight, verdict)
            except TooLarge as error:
                verdict = Dead(TOO_LARGE, verdict.label, scrub(error), verdict.error_type)
        if isinstance(verdict, Dead):
            ended = await self._give_up(state, in_flight, verdict)
        elif isinstance(verdict, Done):
            ended = await self._done(state, in_flight, verdict)
        if in_flight.outcome is not None and ended:  # else the next owner finds the request again
            self._end_replay(in_flight.delivery, in_flight.outcome, verdict)
        return parked

    def settle_at_once(self, state: ClaimState, in_flight: InFlight, verdict: Verdict | None) -> bool:
        """Settle a delivery that is done and needs no record: most do not. Returns whether this is one; else `settle` it."""
        if not isinstance(verdict, Done) or in_flight.outcome is not None or in_flight.keeping is not None:
            return False
        if _needs_tombstone(state, in_flight):
            return False
        self.ended(state, in_flight, verdict)
        state.ledger.settle(in_flight.delivery.offset, in_flight.delivery.handler)
        return True

    async def done_elsewhere(self, state: ClaimState, in_flight: InFlight) -> None:
        """Let go of a delivery that another attempt or another worker has ended: it does not end here a second time."""
        if in_flight.keeping is not None:
            await in_flight.keeping
        if in_flight.outcome is None:
            await self._let_go(state, in_flight.delivery, tombstone=_needs_tombstone(state, in_flight))
        else:  # a replay: its dead letter still has to get its state
            await self.settle(state, in_flight, Done())

    async def keep(self, state: ClaimState, in_flight: InFlight) -> None:
        """Park a delivery that is queued or runs: its topic is gone, so the next owner could not read it. Its end waits for this."""
        if in_flight.parked or in_flight.outcome is not None:
            return
        with contextlib.suppress(TooLarge):  # if it fails, it becomes a dead letter
            in_flight.parked = await self.writes.park(state, in_flight.delivery)

    def ended(self, state: ClaimState, in_flight: InFlight, verdict: Done | Dead) -> None:
        """Record that a delivery has ended: done, skipped, dead or replayed. Each end of a delivery comes through here.

        It is called when nothing can change the end any more, and before the delivery is let go: before its tombstone is
        written, and (with no await in between) before its offset is settled. So no commit can cover an end that was not here.
        A crash may repeat an end together with its delivery.
        """
        delivery = in_flight.delivery
        self.receipts.ended(state, in_flight, verdict)
        if isinstance(verdict, Dead):
            self.metrics.dead_letters.labels(delivery.handler, verdict.reason).inc()
            self._line(delivery, "dead-lettered", reason=verdict.reason, error=verdict.error)

    async def _done(self, state: ClaimState, in_flight: InFlight, verdict: Done) -> bool:
        """Rules 4 and 10: a tombstone where it needs one; of a replay, what became of its dead letter. Returns whether that is written."""
        delivery = in_flight.delivery
        self.ended(state, in_flight, verdict)
        if delivery.replay is None:
            return await self._let_go(state, delivery, tombstone=_needs_tombstone(state, in_flight))
        filed = await self.receipts.filed(state)
        return filed and await self._set_state(state, delivery.replay, "replayed", verdict.reason)

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

    async def _give_up(self, state: ClaimState, in_flight: InFlight, verdict: Dead) -> bool:
        """Rules 4 and 10: the dead letter, then (where it was parked) the tombstone. A replay may be refused. Returns as `_done`."""
        delivery = in_flight.delivery
        if delivery.replay is not None and verdict.reason in _REFUSED:
            return await self._set_state(state, delivery.replay, "refused", verdict.error)
        expires_at = self.attempts.expiry_of(in_flight)
        headers = dead_letter_headers(delivery, reason=verdict.reason, group=self.group, expires_at=expires_at)
        if not await self.writes.bury(state, delivery.origin.key, delivery.value, headers):
            return False
        self.ended(state, in_flight, verdict)
        if delivery.replay is None:
            return await self._let_go(state, delivery, tombstone=in_flight.parked)
        return await self.receipts.filed(state)

    async def _let_go(self, state: ClaimState, delivery: Delivery, *, tombstone: bool) -> bool:
        """Settle the offset of what has ended, after its receipt and its *tombstone* where it needs one. Returns whether it is."""
        if tombstone:
            if not await self.tombstone(state, delivery) or not state.ours:
                return False
            state.table.remove(delivery.key)
            if delivery.earlier:
                state.done_earlier.add(delivery.key)
        state.ledger.settle(delivery.offset, delivery.handler)
        return True

    async def tombstone(self, state: ClaimState, delivery: Delivery) -> bool:
        """Write the tombstone of a delivery that has ended, once its receipt is filed. Returns whether it is written."""
        return await self.receipts.filed(state) and await self.writes.unpark(state, delivery)

    async def _set_state(self, state: ClaimState, replay: Replay, became: State, note: str) -> bool:
        """Write in the dead-letter topic what became of the dead letter of *replay*. Returns whether it is written."""
        headers = state_headers(
            replay.dead_letter,
            became,
            group=self.group,
            topic=state.claim.topic,
            note=scrub(note),
            replay=replay.id,
        )
        return await self.writes.bury(state, None, None, headers)

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


def _needs_tombstone(state: ClaimState, in_flight: InFlight) -> bool:
    """Rule 4. Never parked: no record at all. Parked, or the claim is gone: a tombstone, so that no worker runs it again."""
    return in_flight.parked or not state.ours
