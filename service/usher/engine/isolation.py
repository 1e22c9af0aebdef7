"""Isolation: after bad starts the deliveries in doubt run in small rounds, and the others beside each other.

Hides who has to wait for whom. A round has nothing beside it, and goes first. A commit says beforehand whose round it is, so
that the next worker knows it: of a round that ended a worker each delivery runs alone there.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

from usher.engine.attempt import Attempts
from usher.engine.claim_state import ClaimState
from usher.engine.commits import Commits
from usher.engine.dead_letters import CRASHED
from usher.engine.lanes import InFlight
from usher.engine.ledger import group_of
from usher.outcome import Dead, Verdict

_FEW = 32
"""So many deliveries in doubt run alone, one after the other. Of more, those of one group (1 of 64) run beside each other."""


@dataclass(frozen=True, slots=True, eq=False)
class Suspect:
    """A delivery in doubt that waits for its round."""

    state: ClaimState
    key: str


Suspects = dict[Suspect, None]
"""Kept in the order in which they came, so that a schedule of the simulation replays exactly."""


class Isolation:
    """Lets either one round of suspects run, or many others beside each other."""

    def __init__(self, attempts: Attempts, commits: Commits) -> None:
        self._attempts = attempts
        self._commits = commits
        self._committing = asyncio.Lock()
        self._waiting: Suspects = {}
        self._round: Suspects = {}
        self._begun = False
        self._named: dict[ClaimState, None] = {}
        """The claims whose Marks may name suspects of a round that is over."""
        self._beside = 0
        self._changed = asyncio.Event()

    async def attempt(self, state: ClaimState, in_flight: InFlight) -> Verdict | None:
        """Try a delivery. What may have run when a worker ended runs in a round, and a commit says first which one it is.

        None: there was no attempt, because the claim is closed or the delivery is done elsewhere.
        """
        ledger, offset, key = state.ledger, in_flight.delivery.offset, in_flight.delivery.key
        if not in_flight.parked and in_flight.outcome is None and not ledger.in_doubt(offset):
            async with self._beside_others():
                if not await self._covered(state, offset):
                    return None
                return await self._try(in_flight)
        if ledger.condemned(key):
            return Dead(CRASHED, CRASHED, "three times the worker ended while this delivery ran alone", "")
        async with self._in_a_round(Suspect(state, key)):
            return await self._try(in_flight) if state.open else None

    async def _try(self, in_flight: InFlight) -> Verdict | None:
        if in_flight.done_elsewhere:  # a tombstone may have come while it waited for its turn
            return None
        verdict, in_flight.delivery = await self._attempts.make(in_flight)
        return verdict

    async def _covered(self, state: ClaimState, offset: int) -> bool:
        """Wait until a commit says that *offset* was read: one for all that wait. Returns whether the claim is still open."""
        while state.open and not state.ledger.covered(offset):
            async with self._committing:
                if state.ledger.covered(offset) or await self._commits.commit([state]):
                    break
                await asyncio.sleep(1)  # those that wait do not ask a log at once that has just refused
        return state.open

    @contextlib.asynccontextmanager
    async def _in_a_round(self, suspect: Suspect) -> AsyncIterator[None]:
        """Run in a round, with nothing beside it."""
        self._waiting[suspect] = None
        try:
            while not self._runs(suspect):  # a round that was chosen may be given up before it begins
                await self._until(lambda: self._runs(suspect) or not self._round)
                if not self._round:
                    await self._begin_round(suspect)
            yield
            if len(self._round) == 1 and not self._waiting:  # otherwise the next round commits for both
                self._name({})
                if await self._commits.commit(list(self._named)):
                    self._named = {}
        finally:
            self._waiting.pop(suspect, None)
            self._round.pop(suspect, None)
            self._begun = self._begun and bool(self._round)
            self._ring()

    def _runs(self, suspect: Suspect) -> bool:
        return self._begun and suspect in self._round

    async def _begin_round(self, first: Suspect) -> None:
        """Choose who runs beside *first*, and write it down once nothing runs any more."""
        self._round = self._beside_in_round(first)
        for suspect in self._round:
            del self._waiting[suspect]
        try:
            await self._until(lambda: not self._beside)
            while any(suspect.state.open for suspect in self._round):
                states = dict.fromkeys(suspect.state for suspect in self._round)
                self._name(self._round)
                if await self._commits.commit([*(states | self._named)]):
                    self._named = states
                    break
                self._named |= states
                await asyncio.sleep(1)
        except BaseException:  # its claim goes: another one may begin
            self._waiting |= self._round
            self._round = {}
            raise
        self._begun = True
        self._ring()

    def _beside_in_round(self, first: Suspect) -> Suspects:
        if len(self._waiting) <= _FEW or first.state.ledger.accused(first.key):
            return {first: None}
        group = group_of(first.key)
        return {
            suspect: None
            for suspect in self._waiting
            if group_of(suspect.key) == group and not suspect.state.ledger.accused(suspect.key)
        }

    def _name(self, suspects: Suspects) -> None:
        """Let the next Marks name these and no others."""
        for state in self._named:
            state.ledger.name(None)
        for suspect in suspects:
            suspect.state.ledger.name(suspect.key, alone=len(suspects) == 1)

    @contextlib.asynccontextmanager
    async def _beside_others(self) -> AsyncIterator[None]:
        """Run beside others, once no round runs or waits to."""
        await self._until(lambda: not self._waiting and not self._round)
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
