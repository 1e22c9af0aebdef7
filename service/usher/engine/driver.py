"""The driver: deliveries enter lanes, heads run, verdicts are carried out, and what is due is started.

Hides which delivery is where at any moment, and how much of them is in memory.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Coroutine
from functools import partial
from typing import TYPE_CHECKING, Any

from usher.delivery import Delivery
from usher.engine.attempt import Attempts
from usher.engine.dead_letters import CRASHED, EXPIRED, HANDLER_GONE
from usher.engine.intake import Undecoded
from usher.engine.lanes import ClaimState, InFlight, Lane
from usher.engine.limits import Limits
from usher.engine.settle import Settler
from usher.eventlog.errors import TooLarge
from usher.outcome import Dead, Done, Park, Verdict
from usher.redact import scrub

if TYPE_CHECKING:
    from usher.metrics import Metrics


DROPPED = "dropped"
"""What a replay is told that never ran because its claim went away: the next owner finds the request again."""
_DUE_AT_ONCE = 300
"""Due deliveries that are started in one turn of the loop: more would hold it up."""


class Driver:
    """Runs what is in the lanes of all claims.

    *commit* writes down where a claim is and says whether that worked; *failed* is told of an exception nobody expected.
    """

    def __init__(
        self,
        attempts: Attempts,
        settler: Settler,
        limits: Limits,
        metrics: Metrics,
        *,
        commit: Callable[[ClaimState], Awaitable[bool]],
        failed: Callable[[BaseException], None],
    ) -> None:
        self._attempts = attempts
        self._settler = settler
        self._limits = limits
        self._metrics = metrics
        self._commit = commit
        self._failed = failed
        self._alone = asyncio.Lock()
        self._running: dict[str, asyncio.Future[str | None]] = {}
        """The attempt that runs in a lane, of whatever claim; its result is the key of the delivery that it did, if it did."""
        self._began = attempts.now()
        self._size = 0
        self.records = 0
        self.due_soon = asyncio.Event()

    @property
    def full(self) -> bool:
        """Whether no fresh records should be read for now."""
        limits = self._limits
        return self.records >= limits.records * limits.fresh or self._size >= limits.size * limits.fresh

    @property
    def space(self) -> float:
        """Bytes that fresh records may still take."""
        return self._limits.size * self._limits.fresh - self._size

    def begin(self, state: ClaimState, todo: InFlight | Undecoded) -> None:
        """Take in what a record amounts to."""
        if isinstance(todo, Undecoded):
            self.spawn(state, self._settler.bury_record(state, todo.record, todo.reason))
            return
        lane = state.lane(todo.delivery.lane_key)
        self._remember(state, todo)
        if lane.parking or len(lane.queue) >= self._limits.per_lane or state.table.holds_lane(lane.key):
            self._park_behind(state, lane, todo)  # rule 3
        else:
            lane.queue.append(todo)
            self.wake(state, lane)

    def begin_replay(self, state: ClaimState, in_flight: InFlight) -> None:
        """Queue an operator's replay: it goes before what its lane has."""
        lane = state.lane(in_flight.delivery.lane_key)
        self._remember(state, in_flight)
        lane.replays.append(in_flight)
        self.wake(state, lane)

    def wake(self, state: ClaimState, lane: Lane) -> None:
        """Something changed in the lane: its head may be able to run."""
        if state.open and not lane.driven:
            lane.driven = True
            self.spawn(state, self._drive(state, lane))

    async def _drive(self, state: ClaimState, lane: Lane) -> None:
        try:
            while state.open and (in_flight := state.next_in(lane, self.now_ms())) is not None:
                if not in_flight.counted:  # it comes from the parking table
                    self._remember(state, in_flight)
                try:
                    await self._fly(state, lane, in_flight)
                finally:
                    self._drop(state, in_flight)
        finally:
            lane.driven = False
            state.drop_if_empty(lane)

    async def _fly(self, state: ClaimState, lane: Lane, in_flight: InFlight) -> None:
        delivery = in_flight.delivery
        while (other := self._running.get(lane.key)) is not None:  # of an older claim, or the user is on two partitions
            await asyncio.wait([other])
            if other.result() == delivery.key:  # done, by an attempt that outlived its claim
                await self._settle(state, lane, in_flight, Done())
                return
        if in_flight.done_elsewhere:
            await self._settle(state, lane, in_flight, Done())
            return
        if not state.open:
            return
        if in_flight.parked and (patience := self._patience(delivery)) > 0:
            state.table.postpone(delivery.key, self.now_ms() + math.ceil(min(patience, 60.0) * 1000))
            return
        landed = self._running[lane.key] = asyncio.get_running_loop().create_future()
        done = None
        try:
            if state.ledger.careful:
                verdict = await self._try_alone(state, in_flight)
            else:
                verdict, in_flight.delivery = await self._attempts.make(in_flight)
            if isinstance(verdict, Done):
                done = delivery.key
            if verdict is not None:
                await self._settle(state, lane, in_flight, verdict)
        finally:
            del self._running[lane.key]
            landed.set_result(done)

    async def _try_alone(self, state: ClaimState, in_flight: InFlight) -> Verdict | None:
        """Worker after worker has died here: run nothing beside this delivery, and write down first which one it is."""
        ledger = state.ledger
        async with self._alone:
            if not ledger.suspect(in_flight.delivery.key):
                return Dead(CRASHED, CRASHED, "twice the worker ended while this delivery ran alone", "")
            while state.open and not await self._commit(state):  # noqa: ASYNC110 - tried again, not waited for
                await asyncio.sleep(1)
            if not state.open:
                return None
            verdict: Verdict = Done()
            if not in_flight.done_elsewhere:  # said while it waited for its turn
                verdict, in_flight.delivery = await self._attempts.make(in_flight)
            ledger.suspect(None)
            await self._commit(state)
            return verdict

    async def _settle(self, state: ClaimState, lane: Lane, in_flight: InFlight, verdict: Verdict) -> None:
        if not state.ours and not isinstance(verdict, Done):
            return  # rule 9
        if isinstance(verdict, Park):
            try:
                await self._park_head(state, lane, in_flight, verdict)
            except TooLarge as error:
                verdict = Dead("too-large", verdict.label, scrub(error), verdict.error_type)
        if isinstance(verdict, Dead):
            await self._give_up(state, in_flight, verdict)
        elif isinstance(verdict, Done):
            await self._settler.done(state, in_flight, verdict)
        if in_flight.ended is not None:
            in_flight.ended(verdict.label)
            self._metrics.replays.labels(
                in_flight.delivery.handler, "replayed" if isinstance(verdict, Done) else "failed"
            ).inc()

    async def _park_head(self, state: ClaimState, lane: Lane, in_flight: InFlight, verdict: Park) -> None:
        delivery = in_flight.delivery
        if in_flight.done_elsewhere:
            state.table.remove(delivery.key)
            state.ledger.settle(delivery.offset, delivery.handler)
            return
        lane.parking.add(delivery.offset)
        try:
            parked = await self._settler.park(state, in_flight, delivery)
        finally:
            lane.parking.discard(delivery.offset)
        if parked:
            self._settler.parked_line(delivery, verdict)
            self.due_soon.set()
            if state.ours:  # rule 9: what is queued is the next owner's by now
                self.park_queue(state, lane)
            if in_flight.done_elsewhere:  # said while we were writing: our word came last, and has to be taken back
                await self._settler.done(state, in_flight, Done())

    async def _give_up(self, state: ClaimState, in_flight: InFlight, verdict: Dead) -> None:
        delivery = in_flight.delivery
        if delivery.replay is not None and verdict.reason in {EXPIRED, HANDLER_GONE}:
            await self._settler.note(state, delivery, "refused", verdict.error)
            return
        await self._settler.bury(state, in_flight, verdict, self._attempts.expiry_of(in_flight))

    def park_queue(self, state: ClaimState, lane: Lane) -> None:
        """Something of the lane is parked: what is queued behind it is parked too, in order (rule 3)."""
        while lane.queue:
            self._park_behind(state, lane, lane.queue.popleft())

    def _park_behind(self, state: ClaimState, lane: Lane, in_flight: InFlight) -> None:
        lane.parking.add(in_flight.delivery.offset)
        self.spawn(state, self._park_quietly(state, lane, in_flight))

    async def _park_quietly(self, state: ClaimState, lane: Lane, in_flight: InFlight) -> None:
        try:
            if await self._settler.park(state, in_flight, in_flight.delivery) and in_flight.done_elsewhere:
                await self._settler.done(state, in_flight, Done())
        except TooLarge as error:
            await self._give_up(
                state, in_flight, Dead("too-large", "failed", scrub(error), "usher.eventlog.errors.TooLarge")
            )
        finally:
            lane.parking.discard(in_flight.delivery.offset)
            self.forget(state, in_flight)
            self.wake(state, lane)

    def start_due(self, state: ClaimState) -> float:
        """Wake the lanes whose head is due; the seconds until there may be more to do."""
        now = self.now_ms()
        if state.table.soonest > now:
            return (state.table.soonest - now) / 1000
        room = min(self._limits.records - self.records, _DUE_AT_ONCE)
        space = self._limits.size - self._size
        due = state.table.due(now, state.position, room) if room > 0 else []
        for number, (key, lane_key, size) in enumerate(due):
            space -= size
            if space < 0 and (self.records or number):
                break  # what is on disk stays there until there is room; but one is always taken up
            lane = state.lane(lane_key)
            head = state.table.first(lane_key)
            if head is not None and head.key != key:
                state.table.postpone(key, None)  # rule 1: only the head has a due time
            self.wake(state, lane)
            state.drop_if_empty(lane)
        if room <= 0 or space < 0:
            return 0.1
        if len(due) == room:
            return 0.005  # the rest in a moment: the loop has to turn between
        next_due = state.table.next_due(now, state.position)
        state.table.soonest = now + 1000 if next_due is None else min(next_due, now + 1000)
        return max(0.001, (state.table.soonest - now) / 1000)

    def _patience(self, delivery: Delivery) -> float:
        """Seconds that a parked delivery still waits where its handler is not there: it may come with the next deploy."""
        if delivery.replay is not None or self._attempts.knows(delivery.handler):
            return 0.0
        return self._began + self._limits.handler_gone_after - self._attempts.now()

    # What is in memory

    def spawn(self, state: ClaimState, work: Coroutine[Any, Any, Any], *, kept: bool = True) -> asyncio.Task[Any]:
        """Start a task on behalf of a claim; *kept*: the claim is not let go before it has ended."""
        task = asyncio.create_task(work)
        if kept:
            state.tasks.add(task)
        task.add_done_callback(partial(self._ended, state))
        return task

    def _ended(self, state: ClaimState, task: asyncio.Task[Any]) -> None:
        state.tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._failed(error)

    def _remember(self, state: ClaimState, in_flight: InFlight) -> None:
        if state.in_flight.setdefault(in_flight.delivery.key, in_flight) is in_flight and not in_flight.counted:
            in_flight.counted = True
            self.records += 1
            self._size += in_flight.delivery.size

    def _drop(self, state: ClaimState, in_flight: InFlight) -> None:
        self.forget(state, in_flight)
        if in_flight.ended is not None:
            in_flight.ended(DROPPED)  # no news to one that has ended

    def drop_replays(self, state: ClaimState) -> None:
        """Tell the replays that have not begun that they will not: the next owner finds the requests again."""
        for lane in state.lanes.values():
            while lane.replays:
                self._drop(state, lane.replays.popleft())

    def end_waiting(self, state: ClaimState) -> None:
        """End the attempts whose message waits for its turn: nothing of it has left, and the next owner makes them."""
        for in_flight in state.in_flight.values():
            if in_flight.limit is not None:
                in_flight.limit.end_waiting()

    def forget_queued(self, state: ClaimState) -> None:
        """What is queued is not run any more: it is undone in the commit."""
        for lane in state.lanes.values():
            for in_flight in lane.queue:
                self.forget(state, in_flight)

    def forget(self, state: ClaimState, in_flight: InFlight) -> None:
        """The flight has ended, or was taken over: it no longer counts."""
        if in_flight.counted:
            in_flight.counted = False
            self.records -= 1
            self._size -= in_flight.delivery.size
        if state.in_flight.get(in_flight.delivery.key) is in_flight:
            del state.in_flight[in_flight.delivery.key]

    def now_ms(self) -> int:
        """Unix milliseconds."""
        return int(self._attempts.now() * 1000)
