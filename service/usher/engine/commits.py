"""Commits: write down how far claims are. Hides that there is one at a time, of what has changed only.

A commit covers what its offset and its Mark call done. So the receipts of that are on the event log first (promise 11).
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from usher.engine.claim_state import ClaimState
from usher.engine.receipts import Receipts
from usher.eventlog.errors import ClaimLost, LogUnavailable, TooLarge
from usher.eventlog.port import EventLog
from usher.metrics import Metrics
from usher.redact import scrub

if TYPE_CHECKING:
    from structlog.typing import FilteringBoundLogger


@dataclass(frozen=True, slots=True)
class Commits:
    """Commits the frontier and the Mark of claims."""

    event_log: EventLog
    receipts: Receipts
    metrics: Metrics
    logger: FilteringBoundLogger
    _turn: asyncio.Lock = field(default_factory=asyncio.Lock, init=False)

    async def commit(self, states: Sequence[ClaimState], *, orderly: bool = False, anyway: bool = False) -> bool:
        """Commit what has changed. Returns whether the event log has taken it, or nothing has changed.

        *orderly*: the claims are being released, so that this is their last commit, and their start does not count.
        *anyway*: commit also what has not changed: the event log says then whether the claims are still ours.
        """
        async with self._turn:
            having = [state for state in states if (state.ours or orderly) and not state.lost]
            positions = {state.claim: state.ledger.snapshot(orderly=orderly) for state in having}
            changed = {
                state.claim: positions[state.claim]
                for state in having
                if anyway or state.committed != positions[state.claim]
            }
            if not changed:
                return True
            # After the snapshot: what ends meanwhile may have its receipt, and is not in this commit.
            covered = [state for state in having if state.claim in changed]
            filed = await asyncio.gather(*map(self._file, covered))
            unfiled = {state.claim: error for state, error in zip(covered, filed, strict=True) if error is not None}
            for claim in unfiled:
                del changed[claim]
            if unfiled:
                self._refused(next(iter(unfiled.values())))
            try:
                if changed:
                    await self.event_log.commit(changed)
            except (ClaimLost, LogUnavailable) as error:
                if isinstance(error, ClaimLost):
                    self._lose(states, error.claims or changed)
                self._refused(error)
                return False
            for state in states:
                if (position := changed.get(state.claim)) is not None:
                    state.committed = position
                    if state.ledger.careful:
                        state.ledger.committed(position)
            return not unfiled

    async def _file(self, state: ClaimState) -> Exception | None:
        """File what has ended in a claim. Returns why no commit may cover it; None: it may."""
        try:
            await self.receipts.file_soon(state)
        except (LogUnavailable, TooLarge) as error:
            return error
        return None

    def _refused(self, error: Exception) -> None:
        self.metrics.commit_failures.inc()
        self.logger.warning("commit refused", error=scrub(error))

    @staticmethod
    def _lose(states: Iterable[ClaimState], lost: Collection[object]) -> None:
        """Let every part of the engine know that these claims are another's (rule 9)."""
        for state in states:
            if state.claim in lost:
                state.lose()
