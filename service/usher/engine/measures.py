"""The measures of a worker: what its gauges show, once a second. Nothing that waits may look as if there were nothing."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from usher.engine.claims import Claims
from usher.engine.driver import Driver
from usher.engine.index_file import IndexLost
from usher.eventlog.errors import ClaimLost, LogUnavailable
from usher.eventlog.port import Claim, EventLog, TopicPartition, has_shrunk
from usher.metrics import Metrics

if TYPE_CHECKING:
    from structlog.typing import FilteringBoundLogger

_EVERY = 1.0
_SAY_AGAIN = 60.0


@dataclass(frozen=True, slots=True)
class Measures:
    """Measures the claims of a worker."""

    event_log: EventLog
    claims: Claims
    driver: Driver
    metrics: Metrics
    logger: FilteringBoundLogger
    _said: dict[TopicPartition, float] = field(default_factory=dict, init=False)

    async def run(self) -> None:
        while True:
            await self.take()
            await asyncio.sleep(_EVERY)

    async def take(self) -> None:
        """Set all gauges. What a claim has parked counts from the moment when its table is known, not when it is read."""
        states = list(self.claims.states.values())
        self.metrics.claims.set(len(self.claims.open))
        self.metrics.in_flight.set(self.driver.records)
        now = self.driver.now_ms()
        # What lies past the position is due as well: it waits for the position to move, and that may stand still.
        with contextlib.suppress(IndexLost):  # the measures stay as they are until there is a new index
            overdue = [due for state in states if (due := state.table.oldest_due(sys.maxsize)) is not None]
            latest = [due for state in states if (due := state.table.latest_due()) is not None]
            self.metrics.oldest_due_age.set(max(0.0, (now - min(overdue, default=now)) / 1000))
            self.metrics.longest_wait.set(max(0.0, (max(latest, default=now) - now) / 1000))
        parked: dict[tuple[str, int], int] = {state.claim.topic_partition: len(state.table) for state in states}
        positions = {state.claim: state.position for state in states}  # before their ends: an end only grows
        lags = await self._lags(positions)
        stopped = self.event_log.stopped()
        self.metrics.partitions(parked, lags, stopped.keys())

    async def _lags(self, positions: Mapping[Claim, int]) -> dict[tuple[str, int], int]:
        """Return how many records of each claim are not read. Where the end is not known a claim is left out."""
        try:
            ends = await self.event_log.ends(list(positions))
        except (LogUnavailable, ClaimLost):
            return {}
        for claim, end in ends.items():
            if has_shrunk(end, positions[claim]):
                self._say_that_it_has_shrunk(claim, end, positions[claim])
        return {claim.topic_partition: end - positions[claim] for claim, end in ends.items()}

    def _say_that_it_has_shrunk(self, claim: Claim, end: int, position: int) -> None:
        now = asyncio.get_running_loop().time()
        if now - self._said.get(claim.topic_partition, -_SAY_AGAIN) >= _SAY_AGAIN:
            self._said[claim.topic_partition] = now
            self.logger.error(
                "a partition ends before what was read of it",
                topic=claim.topic,
                partition=claim.partition,
                position=position,
                end=end,
            )
