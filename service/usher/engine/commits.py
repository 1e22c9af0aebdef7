"""Commits: write down how far claims are. Hides that there is one at a time, of what has changed only."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from usher.engine.claim_state import ClaimState
from usher.eventlog.errors import ClaimLost, LogUnavailable
from usher.eventlog.port import EventLog
from usher.metrics import Metrics
from usher.redact import scrub

if TYPE_CHECKING:
    from structlog.typing import FilteringBoundLogger


@dataclass(frozen=True, slots=True)
class Commits:
    """Commits the frontier and the Mark of claims."""

    event_log: EventLog
    metrics: Metrics
    logger: FilteringBoundLogger
    _turn: asyncio.Lock = field(default_factory=asyncio.Lock, init=False)

    async def commit(self, states: Sequence[ClaimState], *, orderly: bool = False) -> bool:
        """Commit what has changed. Returns whether the event log has taken it, or nothing has changed.

        *orderly*: the claims are being released, so that this is their last commit, and their start does not count.
        """
        async with self._turn:
            positions = {s.claim: s.ledger.snapshot(orderly=orderly) for s in states if s.ours or orderly}
            changed = {
                s.claim: positions[s.claim]
                for s in states
                if s.claim in positions and s.committed != positions[s.claim]
            }
            if not changed:
                return True
            try:
                await self.event_log.commit(changed)
            except (ClaimLost, LogUnavailable) as error:
                self.metrics.commit_failures.inc()
                self.logger.warning("commit refused", error=scrub(error))
                return False
            for state in states:
                state.committed = changed.get(state.claim, state.committed)
            return True
