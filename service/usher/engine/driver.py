"""The driver: deliveries enter lanes, heads run, verdicts are carried out, and what is due is started.

Hides which delivery is where at any moment, and how much of them is in memory.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from usher.delivery import Delivery
from usher.engine.attempt import Attempts
from usher.engine.intake import Undecoded
from usher.engine.lanes import Flight, Lane, Shard
from usher.engine.letters import CRASHED, EXPIRED, HANDLER_GONE
from usher.engine.port import TooLarge
from usher.engine.settle import Settler
from usher.engine.tail import DROPPED
from usher.outcome import Dead, Done, Park, Verdict
from usher.redact import scrub

if TYPE_CHECKING:
    from usher.metrics import Metrics


_DUE_AT_ONCE = 300
"""Due deliveries that are started in one turn of the loop: more would hold it up."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What may be in memory, and how long things may take (seconds).

    Intake stops at *fresh* of the process's limits, so that due retries always find room: else a full house of records
    that wait and retries that wait would block each other. A claim is not read while *intake_stops* of its offsets are
    unsettled, nor so far that there could be more than *per_claim*, or more than its Mark can tell (`Ledger.room`).
    """

    records: int = 10_000
    size: int = 64 * 1024 * 1024
    fresh: float = 0.9
    per_claim: int = 2_400
    intake_stops: int = 1_800
    per_lane: int = 100
    read: int = 2_000
    commit_every: float = 0.5
    drain: float = 20.0
    handler_gone_after: float = 900.0
    calm_after: float = 60.0
    undecodable_ratio: float = 0.5
    undecodable_at_least: int = 20
    undecodable_rest: float = 60.0
    dedupe_window: float = 600.0
    dedupe_records: int = 50_000


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
        commit: Callable[[Shard], Awaitable[bool]],
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

    def begin(self, shard: Shard, todo: Flight | Undecoded) -> None:
        """Take in what a record amounts to."""
        if isinstance(todo, Undecoded):
            self.spawn(shard, self._settler.bury_record(shard, todo.record, todo.reason))
            return
        lane = shard.lane(todo.delivery.lane_key)
        self._remember(shard, todo)
        if lane.parking or len(lane.queue) >= self._limits.per_lane or shard.table.holds_lane(lane.key):
            self._park_behind(shard, lane, todo)  # rule 3
        else:
            lane.queue.append(todo)
            self.wake(shard, lane)

    def begin_replay(self, shard: Shard, flight: Flight) -> None:
        """Queue an operator's replay: it goes before what its lane has."""
        lane = shard.lane(flight.delivery.lane_key)
        self._remember(shard, flight)
        lane.replays.append(flight)
        self.wake(shard, lane)

    def wake(self, shard: Shard, lane: Lane) -> None:
        """Something changed in the lane: its head may be able to run."""
        if shard.open and not lane.driven:
            lane.driven = True
            self.spawn(shard, self._drive(shard, lane))

    async def _drive(self, shard: Shard, lane: Lane) -> None:
        try:
            while shard.open and (flight := shard.next_in(lane, self.now_ms())) is not None:
                if not flight.counted:  # it comes from the parking table
                    self._remember(shard, flight)
                try:
                    await self._fly(shard, lane, flight)
                finally:
                    self._drop(shard, flight)
        finally:
            lane.driven = False
            shard.drop_if_empty(lane)

    async def _fly(self, shard: Shard, lane: Lane, flight: Flight) -> None:
        delivery = flight.delivery
        while (other := self._running.get(lane.key)) is not None:  # of an older claim, or the user is on two partitions
            await asyncio.wait([other])
            if other.result() == delivery.key:  # done, by an attempt that outlived its claim
                await self._settle(shard, lane, flight, Done())
                return
        if flight.done_elsewhere:
            await self._settle(shard, lane, flight, Done())
            return
        if not shard.open:
            return
        if flight.parked and (patience := self._patience(delivery)) > 0:
            shard.table.postpone(delivery.key, self.now_ms() + math.ceil(min(patience, 60.0) * 1000))
            return
        landed = self._running[lane.key] = asyncio.get_running_loop().create_future()
        done = None
        try:
            if shard.ledger.careful:
                verdict = await self._try_alone(shard, flight)
            else:
                verdict, flight.delivery = await self._attempts.make(flight)
            if isinstance(verdict, Done):
                done = delivery.key
            if verdict is not None:
                await self._settle(shard, lane, flight, verdict)
        finally:
            del self._running[lane.key]
            landed.set_result(done)

    async def _try_alone(self, shard: Shard, flight: Flight) -> Verdict | None:
        """Worker after worker has died here: run nothing beside this delivery, and write down first which one it is."""
        ledger = shard.ledger
        async with self._alone:
            if not ledger.suspect(flight.delivery.key):
                return Dead(CRASHED, CRASHED, "twice the worker ended while this delivery ran alone", "")
            while shard.open and not await self._commit(shard):  # noqa: ASYNC110 - tried again, not waited for
                await asyncio.sleep(1)
            if not shard.open:
                return None
            verdict: Verdict = Done()
            if not flight.done_elsewhere:  # said while it waited for its turn
                verdict, flight.delivery = await self._attempts.make(flight)
            ledger.suspect(None)
            await self._commit(shard)
            return verdict

    async def _settle(self, shard: Shard, lane: Lane, flight: Flight, verdict: Verdict) -> None:
        if not shard.ours and not isinstance(verdict, Done):
            return  # rule 9
        if isinstance(verdict, Park):
            try:
                await self._park_head(shard, lane, flight, verdict)
            except TooLarge as error:
                verdict = Dead("too-large", verdict.label, scrub(error), verdict.error_type)
        if isinstance(verdict, Dead):
            await self._give_up(shard, flight, verdict)
        elif isinstance(verdict, Done):
            await self._settler.done(shard, flight, verdict)
        if flight.ended is not None:
            flight.ended(verdict.label)
            self._metrics.replays.labels(
                flight.delivery.handler, "replayed" if isinstance(verdict, Done) else "failed"
            ).inc()

    async def _park_head(self, shard: Shard, lane: Lane, flight: Flight, verdict: Park) -> None:
        delivery = flight.delivery
        if flight.done_elsewhere:
            shard.table.remove(delivery.key)
            shard.ledger.settle(delivery.offset, delivery.handler)
            return
        lane.parking.add(delivery.offset)
        try:
            parked = await self._settler.park(shard, flight, delivery)
        finally:
            lane.parking.discard(delivery.offset)
        if parked:
            self._settler.parked_line(delivery, verdict)
            self.due_soon.set()
            if shard.ours:  # rule 9: what is queued is the next owner's by now
                self.park_queue(shard, lane)
            if flight.done_elsewhere:  # said while we were writing: our word came last, and has to be taken back
                await self._settler.done(shard, flight, Done())

    async def _give_up(self, shard: Shard, flight: Flight, verdict: Dead) -> None:
        delivery = flight.delivery
        if delivery.replay is not None and verdict.reason in {EXPIRED, HANDLER_GONE}:
            await self._settler.note(shard, delivery, "refused", verdict.error)
            return
        await self._settler.bury(shard, flight, verdict, self._attempts.expiry_of(flight))

    def park_queue(self, shard: Shard, lane: Lane) -> None:
        """Something of the lane is parked: what is queued behind it is parked too, in order (rule 3)."""
        while lane.queue:
            self._park_behind(shard, lane, lane.queue.popleft())

    def _park_behind(self, shard: Shard, lane: Lane, flight: Flight) -> None:
        lane.parking.add(flight.delivery.offset)
        self.spawn(shard, self._park_quietly(shard, lane, flight))

    async def _park_quietly(self, shard: Shard, lane: Lane, flight: Flight) -> None:
        try:
            if await self._settler.park(shard, flight, flight.delivery) and flight.done_elsewhere:
                await self._settler.done(shard, flight, Done())
        except TooLarge as error:
            await self._give_up(shard, flight, Dead("too-large", "failed", scrub(error), "usher.engine.port.TooLarge"))
        finally:
            lane.parking.discard(flight.delivery.offset)
            self.forget(shard, flight)
            self.wake(shard, lane)

    def start_due(self, shard: Shard) -> float:
        """Wake the lanes whose head is due; the seconds until there may be more to do."""
        now = self.now_ms()
        if shard.table.soonest > now:
            return (shard.table.soonest - now) / 1000
        room = min(self._limits.records - self.records, _DUE_AT_ONCE)
        space = self._limits.size - self._size
        due = shard.table.due(now, shard.position, room) if room > 0 else []
        for number, (key, lane_key, size) in enumerate(due):
            space -= size
            if space < 0 and (self.records or number):
                break  # what is on disk stays there until there is room; but one is always taken up
            lane = shard.lane(lane_key)
            head = shard.table.first(lane_key)
            if head is not None and head.key != key:
                shard.table.postpone(key, None)  # rule 1: only the head has a due time
            self.wake(shard, lane)
            shard.drop_if_empty(lane)
        if room <= 0 or space < 0:
            return 0.1
        if len(due) == room:
            return 0.005  # the rest in a moment: the loop has to turn between
        next_due = shard.table.next_due(now, shard.position)
        shard.table.soonest = now + 1000 if next_due is None else min(next_due, now + 1000)
        return max(0.001, (shard.table.soonest - now) / 1000)

    def _patience(self, delivery: Delivery) -> float:
        """Seconds that a parked delivery still waits where its handler is not there: it may come with the next deploy."""
        if delivery.replay is not None or self._attempts.knows(delivery.handler):
            return 0.0
        return self._began + self._limits.handler_gone_after - self._attempts.now()

    # What is in memory

    def spawn(self, shard: Shard, work: Coroutine[Any, Any, Any], *, kept: bool = True) -> asyncio.Task[Any]:
        """Start a task on behalf of a claim; *kept*: the claim is not let go before it has ended."""
        task = asyncio.create_task(work)
        if kept:
            shard.tasks.add(task)
        task.add_done_callback(partial(self._ended, shard))
        return task

    def _ended(self, shard: Shard, task: asyncio.Task[Any]) -> None:
        shard.tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._failed(error)

    def _remember(self, shard: Shard, flight: Flight) -> None:
        if shard.flights.setdefault(flight.delivery.key, flight) is flight and not flight.counted:
            flight.counted = True
            self.records += 1
            self._size += flight.delivery.size

    def _drop(self, shard: Shard, flight: Flight) -> None:
        self.forget(shard, flight)
        if flight.ended is not None:
            flight.ended(DROPPED)  # no news to one that has ended

    def drop_replays(self, shard: Shard) -> None:
        """Tell the replays that have not begun that they will not: the next owner finds the requests again."""
        for lane in shard.lanes.values():
            while lane.replays:
                self._drop(shard, lane.replays.popleft())

    def forget_queued(self, shard: Shard) -> None:
        """What is queued is not run any more: it is undone in the commit."""
        for lane in shard.lanes.values():
            for flight in lane.queue:
                self.forget(shard, flight)

    def forget(self, shard: Shard, flight: Flight) -> None:
        """The flight has ended, or was taken over: it no longer counts."""
        if flight.counted:
            flight.counted = False
            self.records -= 1
            self._size -= flight.delivery.size
        if shard.flights.get(flight.delivery.key) is flight:
            del shard.flights[flight.delivery.key]

    def now_ms(self) -> int:
        """Unix milliseconds."""
        return int(self._attempts.now() * 1000)
