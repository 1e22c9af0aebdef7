"""Isolation: after bad starts the deliveries in doubt run alone, and the others beside each other.

Hides who has to wait for whom. Attempts *alone* have nothing beside them, and go first.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable

from usher.engine.attempt import Attempts
from usher.engine.claim_state import ClaimState
from usher.engine.commits import Commits
from usher.engine.dead_letters import CRASHED
from usher.engine.lanes import InFlight
from usher.outcome import Dead, Verdict


class Isolation:
    """Lets either one attempt run alone, or many beside each other."""

    def __init__(self, attempts: Attempts, commits: Commits) -> None:
        self._attempts = attempts
        self._commits = commits
        self._turn = asyncio.Lock()
        self._committing = asyncio.Lock()
        self._alone = 0
        self._beside = 0
        self._changed = asyncio.Event()

    async def attempt(self, state: ClaimState, in_flight: InFlight) -> Verdict | None:
        """Try a delivery. What may have run when a worker ended runs alone, and a commit says first which one it is.

        None: there was no attempt, because the claim is closed or the delivery is done elsewhere.
        """
        ledger, offset = state.ledger, in_flight.delivery.offset
        if not in_flight.parked and in_flight.outcome is None and not ledger.in_doubt(offset):
            async with self._beside_others():
                if not await self._commit_until(state, lambda: ledger.covered(offset)):
                    return None
                return await self._try(in_flight)
        async with self._by_itself():
            if not ledger.suspect(in_flight.delivery.key):
                return Dead(CRASHED, CRASHED, "twice the worker ended while this delivery ran alone", "")
            if not await self._commit_until(state):
                return None
            verdict = await self._try(in_flight)
            ledger.suspect(None)
            if self._alone == 1:  # otherwise the next one to run alone commits for both
                await self._commits.commit([state])
            return verdict

    async def _try(self, in_flight: InFlight) -> Verdict | None:
        if in_flight.done_elsewhere:  # a tombstone may have come while it waited for its turn
            return None
        verdict, in_flight.delivery = await self._attempts.make(in_flight)
        return verdict

    async def _commit_until(self, state: ClaimState, covered: Callable[[], bool] = lambda: False) -> bool:
        """Commit until that succeeds, or *covered* is true. Returns whether the claim is still open.

        One commit covers all that wait for one.
        """
        while state.open and not covered():
            async with self._committing:
                if covered() or await self._commits.commit([state]):
                    break
            await asyncio.sleep(1)
        return state.open

    @contextlib.asynccontextmanager
    async def _by_itself(self) -> AsyncIterator[None]:
        """Run with nothing beside it."""
        self._alone += 1
        try:
            async with self._turn:
                await self._until(lambda: not self._beside)
                yield
        finally:
            self._alone -= 1
            self._ring()

    @contextlib.asynccontextmanager
    async def _beside_others(self) -> AsyncIterator[None]:
        """Run beside others, once none runs alone or waits to."""
        await self._until(lambda: not self._alone)
        self._beside += 1
        try:
            yield
        finally:
            self._beside -= 1
            self._ring()

    async def _until(self, condition: Callable[[], bool]) -> None:
        while not condition():
            await self._changed.wait()

    def _ring(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()
