"""The driver: deliveries enter their lanes, heads run, and parked deliveries start when they are due.

Hides which delivery is where at any moment, and how much of them is in memory. `usher.engine.settle` decides what becomes of a
delivery after its attempt.
"""

from __future__ import annotations

import asyncio
import math

from usher.delivery import Delivery
from usher.engine.attempt import Attempts
from usher.engine.claim_state import ClaimState
from usher.engine.commits import Commits
from usher.engine.dead_letters import UNDECODABLE
from usher.engine.index_file import IndexLost
from usher.engine.isolation import Isolation
from usher.engine.lanes import DROPPED, InFlight, Lane
from usher.engine.limits import Limits
from usher.engine.settle import Behind, Settler
from usher.outcome import Dead, Done, Park, Verdict

_DUE_AT_ONCE = 300
"""How many due deliveries are started in one turn of the loop: more would delay everything else."""


class Driver:
    """Runs the deliveries in the lanes of all claims."""

    def __init__(self, attempts: Attempts, settler: Settler, commits: Commits, limits: Limits) -> None:
        self._attempts = attempts
        self.now = attempts.now
        self._settler = settler
        self._limits = limits
        self._isolation = Isolation(attempts, commits)
        self._running: dict[str, InFlight] = {}
        """What runs in a lane, of any claim."""
        self._began = asyncio.get_running_loop().time()
        self.due_soon = asyncio.Event()
        self.records = 0
        """How many deliveries are in memory."""
        self.size = 0
        """How many bytes they take."""

    def begin(self, state: ClaimState, in_flight: InFlight) -> None:
        """Take in a fresh delivery: into the queue of its lane, or parked behind what the lane has parked."""
        delivery = in_flight.delivery
        if not delivery.handler:  # its bytes are no event
            verdict = Dead(UNDECODABLE, UNDECODABLE, delivery.error, delivery.error_type)
            state.spawn(self._settler.settle(state, in_flight, verdict))
            return
        lane = state.lane(delivery.lane_key)
        self._remember(state, in_flight)
        if lane.parking or len(lane.queue) >= self._limits.per_lane or self._holds(state, lane):
            self._park_behind(state, lane, in_flight)  # rule 3
        else:
            lane.queue.append(in_flight)
            self.wake(state, lane)

    def begin_replay(self, state: ClaimState, in_flight: InFlight) -> None:
        """Queue an operator's replay: it runs before everything else in its lane."""
        lane = state.lane(in_flight.delivery.lane_key)
        self._remember(state, in_flight)
        lane.replays.append(in_flight)
        self.wake(state, lane)

    def wake(self, state: ClaimState, lane: Lane) -> None:
        """Run the lane, where it does not run already: its head may be able to."""
        if state.open and state.table.usable and not lane.driven:
            lane.driven = True
            state.spawn(self._drive(state, lane))

    async def _drive(self, state: ClaimState, lane: Lane) -> None:
        """Run the heads of a lane, one after the other, until there is none that may run.

        What nothing stands before goes straight through: the attempt is all that is waited for.
        """
        try:
            while (in_flight := self._take_head(state, lane)) is not None:
                try:
                    if self._is_free(lane, in_flight) or await self._may_run(state, lane, in_flight):
                        self._running[lane.key] = in_flight
                        if state.ledger.careful:
                            verdict = await self._isolation.attempt(state, in_flight)
                        else:
                            verdict, in_flight.delivery = await self._attempts.make(in_flight)
                        in_flight.done = isinstance(verdict, Done) or (verdict is None and in_flight.done_elsewhere)
                        if not self._settler.settle_at_once(state, in_flight, verdict):
                            await self._settle_head(state, lane, in_flight, verdict)
                finally:
                    self._leave(state, lane, in_flight)
        finally:
            lane.driven = False
            state.drop_if_empty(lane)

    def _take_head(self, state: ClaimState, lane: Lane) -> InFlight | None:
        if not state.open or not state.table.usable:
            return None
        try:
            in_flight = lane.take_head(state.table, state.ledger.position, self.now_ms)
        except IndexLost:
            return None
        if in_flight is not None and in_flight.place is None:  # it comes from the parking table
            self._remember(state, in_flight)
        return in_flight

    def _is_free(self, lane: Lane, in_flight: InFlight) -> bool:
        """Whether nothing has to be asked before it runs: it is fresh, and nothing runs in its lane."""
        special = in_flight.parked or in_flight.done_elsewhere or in_flight.outcome is not None
        return not special and lane.key not in self._running

    async def _may_run(self, state: ClaimState, lane: Lane, in_flight: InFlight) -> bool:
        """Wait until a head may run. Returns whether it is to: else it is done elsewhere, or waits longer."""
        delivery = in_flight.delivery
        while (other := self._running.get(lane.key)) is not None:  # of an older claim, or the user is on two partitions
            await asyncio.wait([other.left()])
            if other.done and other.delivery.key == delivery.key:  # by an attempt that outlived its claim
                in_flight.done_elsewhere = True
                break
        if in_flight.done_elsewhere:
            await self._settler.done_elsewhere(state, in_flight)
            return False
        if not state.open or state.answered(in_flight):
            return False
        if in_flight.parked and (patience := self._patience(delivery)) > 0:
            now = self.now_ms()
            state.table.postpone(delivery.key, now + math.ceil(min(patience, 60.0) * 1000), now)
            return False
        return True

    def _leave(self, state: ClaimState, lane: Lane, in_flight: InFlight) -> None:
        """Let go of a head: it has run, or is not to run now."""
        self.forget(state, in_flight)
        if self._running.get(lane.key) is in_flight:
            del self._running[lane.key]
            if in_flight.leaving is not None:
                in_flight.leaving.set_result(None)
        if in_flight.outcome is not None:
            self._drop(state, in_flight)

    async def _settle_head(self, state: ClaimState, lane: Lane, in_flight: InFlight, verdict: Verdict | None) -> None:
        if verdict is None:  # there was no attempt
            if in_flight.done_elsewhere:
                await self._settler.done_elsewhere(state, in_flight)
            return
        if not isinstance(verdict, Park):
            await self._settler.settle(state, in_flight, verdict)
            return
        lane.parking.add(in_flight.delivery.offset)
        try:
            parked = await self._settler.settle(state, in_flight, verdict)
        finally:
            lane.parking.discard(in_flight.delivery.offset)
        if parked:
            self.due_soon.set()
            self.park_queue(state, lane)

    def hand_over(self, state: ClaimState) -> None:
        """Park everything that is in flight and is not being settled: nobody can read it again."""
        for in_flight in state.in_flight.values():
            delivery = in_flight.delivery
            if not in_flight.settling and delivery.offset not in state.lane(delivery.lane_key).parking:
                in_flight.keeping = state.spawn(self._settler.keep(state, in_flight))

    def park_queue(self, state: ClaimState, lane: Lane) -> None:
        """Park the queue of a lane, in order: something of the lane is parked (rule 3)."""
        while lane.queue:
            self._park_behind(state, lane, lane.queue.pop(0))

    def _park_behind(self, state: ClaimState, lane: Lane, in_flight: InFlight) -> None:
        lane.parking.add(in_flight.delivery.offset)
        state.spawn(self._settle_behind(state, lane, in_flight))

    async def _settle_behind(self, state: ClaimState, lane: Lane, in_flight: InFlight) -> None:
        try:
            await self._settler.settle(state, in_flight, Behind())
        finally:
            lane.parking.discard(in_flight.delivery.offset)
            self.forget(state, in_flight)
            self.wake(state, lane)

    def start_due(self, state: ClaimState) -> float:
        """Wake the lanes whose head is due. Returns the seconds until there may be more to do: one at most.

        For the clock may be set: how long it is until a due time has to be asked of it again.
        """
        try:
            return self._start_due(state) if state.table.usable else 1.0
        except IndexLost:
            return 1.0

    def _start_due(self, state: ClaimState) -> float:
        now = self.now_ms()
        state.table.distrust(now)
        if state.table.soonest > now:
            return (state.table.soonest - now) / 1000
        room = min(self._limits.records - self.records, _DUE_AT_ONCE)
        space = self._limits.size - self.size
        due = state.table.due(now, state.position, room) if room > 0 else []
        for number, (key, lane_key, size) in enumerate(due):
            space -= size
            if space < 0 and (self.records or number):
                break  # the rest stays on disk until there is room; but one is always started
            lane = state.lane(lane_key)
            head = state.table.first(lane_key)
            if head is not None and head.key != key:
                state.table.postpone(key, None, now)  # rule 1: only the head has a due time
            self.wake(state, lane)
            state.drop_if_empty(lane)
        if room <= 0 or space < 0:
            return 0.1
        if len(due) == room:
            return 0.005  # the rest in a moment: other tasks must run in between
        next_due = state.table.next_due(now, state.position)
        state.table.soonest = now + 1000 if next_due is None else min(next_due, now + 1000)
        return max(0.001, (state.table.soonest - now) / 1000)

    def _patience(self, delivery: Delivery) -> float:
        """Return the seconds that a parked delivery still waits for a handler that is missing: the next deploy may have it."""
        if delivery.replay is not None or delivery.handler in self._attempts.router.handlers:
            return 0.0
        return self._began + self._limits.handler_gone_after - asyncio.get_running_loop().time()

    @staticmethod
    def _holds(state: ClaimState, lane: Lane) -> bool:
        try:
            return state.table.holds_lane(lane.key)
        except IndexLost:  # then it waits in its queue until there is a new one: see `go_on`
            return False

    def go_on(self, state: ClaimState) -> None:
        """Go on with a new parking table: what was queued behind what is parked is parked too (rule 3), and all heads run.

        Raises:
            IndexLost
        """
        for lane in list(state.lanes.values()):
            first = state.table.first(lane.key)
            behind = [each for each in lane.queue if first is not None and each.delivery.offset > first.offset]
            for in_flight in behind:
                lane.queue.remove(in_flight)
                self._park_behind(state, lane, in_flight)
            self.wake(state, lane)
            state.drop_if_empty(lane)
        self.due_soon.set()

    # When a claim goes

    def drop_replays(self, state: ClaimState) -> None:
        """Drop the replays that have not begun: the next owner finds the requests again."""
        for lane in state.lanes.values():
            while lane.replays:
                self._drop(state, lane.replays.pop(0))

    def forget_queued(self, state: ClaimState) -> None:
        """Forget the deliveries that are queued: they do not run any more, and the commit says that they are undone."""
        for lane in state.lanes.values():
            for in_flight in lane.queue:
                self.forget(state, in_flight)

    def _drop(self, state: ClaimState, in_flight: InFlight) -> None:
        self.forget(state, in_flight)
        if in_flight.outcome is not None and not in_flight.outcome.done():
            in_flight.outcome.set_result(DROPPED)

    # What is in memory

    @property
    def full(self) -> bool:
        """Whether no fresh records should be read for now."""
        limits = self._limits
        return self.records >= limits.records * limits.fresh or self.size >= limits.size * limits.fresh

    @property
    def space(self) -> float:
        """How many bytes fresh records may still take."""
        return self._limits.size * self._limits.fresh - self.size

    def _remember(self, state: ClaimState, in_flight: InFlight) -> None:
        if state.enter(in_flight):
            self.records += 1
            self.size += in_flight.delivery.size

    def forget(self, state: ClaimState, in_flight: InFlight) -> None:
        """Count a delivery no more: it has ended, or was handed over."""
        if in_flight.place is not None:
            del state.in_flight[in_flight.place]
            in_flight.place = None
            self.records -= 1
            self.size -= in_flight.delivery.size

    def now_ms(self) -> int:
        """Return the time in Unix milliseconds."""
        return int(self.now() * 1000)
