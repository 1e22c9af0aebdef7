"""The reader: polls the event log and takes in what it brings. Hides which claims may be read, how far, and which rest."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from usher.engine.claim_state import ClaimState
from usher.engine.claims import Claims
from usher.engine.driver import Driver
from usher.engine.intake import Intake
from usher.engine.limits import Limits
from usher.eventlog.errors import LogUnavailable
from usher.eventlog.port import Batch, Claim, EventLog
from usher.metrics import Metrics
from usher.redact import scrub

if TYPE_CHECKING:
    from structlog.typing import FilteringBoundLogger

_SAMPLE = 20
_PART = 200
"""How many records are taken in at a stretch."""


@dataclass(eq=False, slots=True)
class Reader:
    """Reads the open claims of a worker."""

    event_log: EventLog
    claims: Claims
    intake: Intake
    driver: Driver
    limits: Limits
    metrics: Metrics
    logger: FilteringBoundLogger
    polled: float = field(default=0.0, init=False)
    """When the event log was last polled, by the clock of the loop; 0 before the first poll."""
    _record_size: float = field(default=16_384.0, init=False)
    """How many bytes a record has lately: before a read it is a guess how many fit."""

    async def poll(self) -> None:
        """Read once, and take in what came."""
        claims, limit = self._readable()
        try:
            batches = await self.event_log.read(claims, limit, 0.2 if claims else 0.02)
        except LogUnavailable as error:
            self.logger.warning("the event log can't be read, trying again", error=scrub(error))
            await asyncio.sleep(0.5)
            return
        self.polled = asyncio.get_running_loop().time()
        for batch in batches:
            await self._take_in_parts(batch)
        for state in self.claims.open:
            if state.backlog is not None and self.polled >= state.rests_until and state.table.usable:
                self._take(state, state.backlog)

    def _readable(self) -> tuple[list[Claim], int]:
        """Return the claims that may be read, and how many records: their Marks must have room for all of them."""
        if self.driver.full:
            return [], 0
        limits = self.limits
        ready: list[ClaimState] = []
        room = limits.read
        unfiled = self._most_unfiled()
        for state in self.claims.open:
            if state.backlog is not None or not state.table.usable or len(state.unfiled.receipts) >= unfiled:
                continue
            if len(state.ledger) < limits.intake_stops:
                fits = state.ledger.room
                if fits > 0:
                    ready.append(state)
                    room = min(room, fits)
        fullest = max((len(state.ledger) for state in ready), default=0)
        fitting = int(self.driver.space / self._record_size)
        most = min(limits.read, limits.per_claim - fullest, fitting)
        return [state.claim for state in ready], max(1, min(most, room))

    def _most_unfiled(self) -> int:
        """Return from how many receipts on, which wait to be filed, a claim is not read: once all have too many, those with their share."""
        waiting = [len(state.unfiled.receipts) for state in self.claims.open]
        most = self.limits.unfiled
        return most if sum(waiting) < most else max(1, most // len(waiting))

    async def _take_in_parts(self, batch: Batch) -> None:
        state = self.claims.states.get(batch.claim)
        while state is not None and state.open:  # else the next owner reads it
            if not state.table.usable:
                state.backlog = batch
                return
            part, following = batch.cut(_PART)
            self._take(state, part)
            if state.backlog is not None:  # the partition rests: so do the parts that follow
                taken = len(part.records) - len(state.backlog.records)
                state.backlog = batch.cut(taken)[1]
                return
            await asyncio.sleep(0)  # decoding takes time: other tasks must run in between
            if not following.records:
                return
            batch = following

    def _take(self, state: ClaimState, batch: Batch) -> None:
        position = state.position
        for in_flight in self.intake.take(state, batch):
            self.driver.begin(state, in_flight)
        state.forget_passed()
        if batch.records:
            size = sum(len(record.value or b"") for record in batch.records[-_SAMPLE:]) / min(
                len(batch.records), _SAMPLE
            )
            self._record_size += (max(size, 1.0) - self._record_size) / 4
        if state.table.highest >= position:  # rule 7: deliveries that waited for the position to move may run
            state.table.soonest = 0.0
            self.driver.due_soon.set()
        resting = state.backlog is not None and state.table.usable
        self.metrics.resting.labels(state.claim.topic, str(state.claim.partition)).set(resting)
        if resting:
            state.rests_until = asyncio.get_running_loop().time() + self.limits.undecodable_rest
            self.logger.error(
                "partition rests: most of its last records are undecodable; see what writes to it, and in which format",
                topic=state.claim.topic,
                partition=state.claim.partition,
                position=state.position,
                tries_again_in=self.limits.undecodable_rest,
            )
