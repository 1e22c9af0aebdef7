"""Replays: an operator's request to run a dead letter once more, from the request to its answer (rule 10)."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace

from usher.delivery import Delivery
from usher.engine.claim_state import ClaimState
from usher.engine.dead_letters import EXPIRED, HANDLER_GONE, UNDECODABLE, not_an_event
from usher.engine.driver import Driver
from usher.engine.intake import deliveries_of
from usher.engine.lanes import DROPPED, InFlight
from usher.engine.settle import Settler
from usher.engine.writes import Writes
from usher.event import Undecodable
from usher.handler import Router
from usher.outcome import Dead, Done
from usher.systems.peek import peek


@dataclass(frozen=True, slots=True)
class Replays:
    """Carries out the requests in the retry partitions of all claims. Each replay runs with one of *at_once*."""

    router: Router
    driver: Driver
    settler: Settler
    writes: Writes
    at_once: asyncio.Semaphore

    def take(self, state: ClaimState, request_id: str, request: Delivery | None) -> None:
        """Take in a request. It is carried out at once, or when the claim is loaded. None: it has been answered."""
        if request is None:
            state.requests.pop(request_id, None)
        elif request_id not in state.requests and request.replay is not None:
            state.requests[request_id] = request
            if state.loaded:
                self._carry_out(state, request_id, request)

    def begin(self, state: ClaimState) -> None:
        """Carry out the requests that came while the claim was being loaded, and not those that are under way."""
        begun = set(state.replayed)
        for request_id, request in list(state.requests.items()):
            if request.replay is not None and request.replay.dead_letter not in begun:
                self._carry_out(state, request_id, request)

    def _carry_out(self, state: ClaimState, request_id: str, request: Delivery) -> None:
        """Start a replay, unless the dead letter is being replayed, or was: two operators may ask for the same."""
        dead_letter = request.replay.dead_letter if request.replay else ""
        if dead_letter in state.replayed:
            state.spawn(self.writes.answer(state, request_id))
            return
        state.replayed.add(dead_letter)
        state.spawn(self._replay(state, request))

    async def _replay(self, state: ClaimState, request: Delivery) -> None:
        """Run a request, and answer it once the log has what became of it."""
        if request.replay is None:
            return
        async with self.at_once:
            if not state.open:
                return
            outcomes = await self._run(state, request)
        if {EXPIRED, HANDLER_GONE} & set(outcomes):
            state.replayed.discard(request.replay.dead_letter)  # refused: an operator may ask for it again
        if DROPPED not in outcomes and await self.writes.answer(state, request.replay.id):
            state.requests.pop(request.replay.id, None)

    async def _run(self, state: ClaimState, request: Delivery) -> Sequence[str]:
        """Run the delivery that failed; or, for bytes that no handler has seen, one for each handler. Returns the outcomes."""
        if request.handler:
            found = [InFlight(request)]
        else:
            try:
                event = peek(request.value)
            except Undecodable as error:
                again = not_an_event(request, str(error))
                verdict = Dead(UNDECODABLE, UNDECODABLE, again.error, again.error_type)
                return [await self._settle(state, again, verdict)]
            handlers = self.router.match(event)
            if not handlers:
                nobody = f"no handler runs for it: {self.router.why_filtered(event)}"
                return [await self._settle(state, request, Done(reason=nobody))]
            found = deliveries_of(event, request.origin, request.value, handlers)
            for in_flight in found:
                in_flight.delivery = replace(in_flight.delivery, replay=request.replay, replays=request.replays)
        for in_flight in found:
            in_flight.outcome = asyncio.get_running_loop().create_future()
            self.driver.begin_replay(state, in_flight)
        return await asyncio.gather(*(in_flight.outcome for in_flight in found if in_flight.outcome is not None))

    async def _settle(self, state: ClaimState, request: Delivery, verdict: Done | Dead) -> str:
        """Settle a request for which no handler runs. Returns its outcome."""
        outcome: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        await self.settler.settle(state, InFlight(request, outcome=outcome), verdict)
        return outcome.result() if outcome.done() else DROPPED  # the claim has gone
