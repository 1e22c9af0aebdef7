"""The worker: claims come and go, records become deliveries, lanes run, verdicts are written, the frontier is committed.

One event loop, no locks but one: between two awaits nothing else moves. docs/parking.md tells the protocol in words; the
rule numbers in comments are those of that page.
"""

from __future__ import annotations

import asyncio
import math
import random
import uuid
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from usher.delivery import Delivery
from usher.engine.attempt import Attempts
from usher.engine.intake import Intake, Undecoded
from usher.engine.lanes import Flight, Lane, Shard
from usher.engine.letters import EXPIRED
from usher.engine.port import Claim, ClaimLost, EventLog, LogUnavailable, TooLarge
from usher.engine.settle import Settler
from usher.engine.tail import DROPPED, Tail
from usher.event import Event, Undecodable
from usher.handler import Handler, Router
from usher.metrics import Metrics
from usher.outcome import Dead, Done, Park, RetryPolicy, Verdict, decide
from usher.redact import scrub
from usher.sources import decode

if TYPE_CHECKING:
    from structlog.typing import FilteringBoundLogger


@dataclass(frozen=True, slots=True)
class Limits:
    """What may be in memory, and how long things may take (seconds).

    Intake stops at *fresh* of the process's limits, so that due retries always find room: else a full house of records
    that wait and retries that wait would block each other.
    """

    records: int = 10_000
    size: int = 64 * 1024 * 1024
    fresh: float = 0.9
    per_claim: int = 750
    per_lane: int = 100
    read: int = 2_000
    commit_every: float = 0.5
    drain: float = 20.0
    handler_gone_after: float = 900.0
    dedupe_window: float = 600.0
    dedupe_records: int = 50_000


class Worker:
    """Runs handlers on what a log brings. Made of parts that run on any log and any clock (*now*: Unix seconds)."""

    def __init__(
        self,
        log: EventLog,
        router: Router,
        attempts: Attempts,
        *,
        group: str,
        policy: RetryPolicy,
        metrics: Metrics,
        logger: FilteringBoundLogger,
        now: Callable[[], float],
        rng: random.Random,
        limits: Limits,
    ) -> None:
        self._log = log
        self._router = router
        self._attempts = attempts
        self._policy = policy
        self._metrics = metrics
        self._logger = logger
        self._now = now
        self._rng = rng
        self._limits = limits
        self._id = uuid.UUID(int=rng.getrandbits(128)).hex[:12]
        self._intake = Intake(router, metrics)
        self._settler = Settler(log, group, metrics, logger)
        self._tail = Tail(
            log, router, self._intake, self._settler, self, limits.dedupe_window, limits.dedupe_records, logger
        )
        self._shards: dict[Claim, Shard] = {}
        self._running: dict[str, asyncio.Event] = {}
        self._late: set[asyncio.Task[Any]] = set()
        self._records = self._size = self._claim_count = 0
        self._committing = asyncio.Lock()
        self._stopping = asyncio.Event()
        self._due_soon = asyncio.Event()
        self._failed: asyncio.Future[None] | None = None
        self._opened = self._assigned = False
        self._polled = 0.0
        self._began = now()

    # What others ask

    @property
    def ready(self) -> bool:
        """Whether the log is open, the first claims are loaded (or there are none for us), and no stop was asked for."""
        return (
            self._opened
            and self._assigned
            and not self._stopping.is_set()
            and all(shard.loaded for shard in self._shards.values())
        )

    def silent_for(self) -> float:
        """Seconds since the log was last polled; 0 before the first poll."""
        return asyncio.get_running_loop().time() - self._polled if self._polled else 0.0

    def stop(self) -> None:
        """Ask `run` to end in good order: stop reading, drain, commit, leave."""
        self._stopping.set()

    # The life of the worker

    async def run(self) -> None:
        """Work until `stop` is called. Opens the log and leaves it open.

        Raises what the log raises at opening, and whatever breaks one of the loops.
        """
        self._failed = asyncio.get_running_loop().create_future()
        loops: list[asyncio.Task[Any]] = []
        try:
            if not await self._open():
                return
            self._opened = True
            loops = [
                asyncio.create_task(loop()) for loop in (self._poll, self._run_due, self._commit_often, self._measure)
            ]
            stopping = asyncio.create_task(self._stopping.wait())
            waiting: list[asyncio.Future[Any]] = [stopping, self._failed, *loops]
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            stopping.cancel()
            for task in waiting[1:]:
                if task.done():
                    task.result()
        finally:
            self._stopping.set()
            await self.released(list(self._shards))
            for task in (ending := [*loops, *self._late]):
                task.cancel()
            if ending:
                await asyncio.wait(ending, timeout=1.0)  # a handler may refuse to be cancelled

    async def _open(self) -> bool:
        opening = asyncio.create_task(self._log.open(self))
        stopping = asyncio.create_task(self._stopping.wait())
        await asyncio.wait([opening, stopping], return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        if not opening.done():
            opening.cancel()
            await asyncio.gather(opening, return_exceptions=True)
            return False
        opening.result()
        return True

    # Claims

    async def claimed(self, claims: Sequence[Claim]) -> None:
        """`Owner.claimed`: begin to load each claim; it is read once its table has caught up."""
        for claim in claims:
            self._claim_count += 1
            shard = Shard(claim, f"{self._id}.{self._claim_count}", self._router.handlers, self._limits.dedupe_window)
            self._shards[claim] = shard
            shard.tail = self.spawn(shard, self._tail.follow(shard), kept=False)
        self._assigned = True

    async def released(self, claims: Sequence[Claim]) -> None:
        """`Owner.released`: close the gates, drain within the budget, commit, forget (rule 9)."""
        going = [shard for claim in claims if (shard := self._shards.get(claim)) is not None]
        for shard in going:
            shard.open = False
            for lane in shard.lanes.values():
                while lane.replays:
                    self._drop(shard, lane.replays.popleft())
            if shard.releasing is None:
                shard.releasing = asyncio.create_task(self._release(shard))
        await asyncio.gather(*(shard.releasing for shard in going if shard.releasing is not None))

    async def _release(self, shard: Shard) -> None:
        if shard.tail is not None:
            shard.tail.cancel()
        if shard.tasks:
            await asyncio.wait(shard.tasks, timeout=self._limits.drain)
        if shard.loaded:
            await self._commit([shard], orderly=True)
        shard.ours = False
        self._shards.pop(shard.claim, None)
        for lane in shard.lanes.values():
            for flight in lane.queue:
                self.forget(shard, flight)
        self._late |= shard.tasks
        if shard.tasks:
            self._logger.warning(
                "deliveries outlived their claim", partition=shard.claim.partition, count=len(shard.tasks)
            )
            asyncio.gather(*shard.tasks, return_exceptions=True).add_done_callback(lambda _: shard.table.close())
        else:
            shard.table.close()

    async def opened(self, shard: Shard) -> None:
        """The claim is loaded: write down that a worker began here, then let it be read, and what is due in it run."""
        await self._commit([shard])
        if shard.releasing is not None:
            return
        shard.loaded = shard.open = True
        self._logger.info(
            "claim loaded",
            topic=shard.claim.topic,
            partition=shard.claim.partition,
            position=shard.position,
            parked=len(shard.table),
        )
        self._due_soon.set()

    # Reading

    async def _poll(self) -> None:
        loop = asyncio.get_running_loop()
        while not self._stopping.is_set():
            claims = self._readable()
            try:
                batches = await self._log.read(claims, self._limits.read, 0.2 if claims else 0.02)
            except LogUnavailable as error:
                self._logger.warning("the log can't be read, trying again", error=scrub(error))
                await asyncio.sleep(0.5)
                continue
            self._polled = loop.time()
            for batch in batches:
                shard = self._shards.get(batch.claim)
                if shard is not None and shard.open:
                    for todo in self._intake.take(shard, batch):
                        self._begin(shard, todo)
                    await asyncio.sleep(0)

    def _readable(self) -> list[Claim]:
        limits = self._limits
        if self._records >= limits.records * limits.fresh or self._size >= limits.size * limits.fresh:
            return []
        return [s.claim for s in self._shards.values() if s.open and len(s.ledger) < limits.per_claim]

    def _begin(self, shard: Shard, todo: Flight | Undecoded) -> None:
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

    # Running

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
                self._remember(shard, flight)
                try:
                    await self._fly(shard, lane, flight)
                finally:
                    self._drop(shard, flight)
        finally:
            lane.driven = False
            shard.drop_if_empty(lane)

    async def _fly(self, shard: Shard, lane: Lane, flight: Flight) -> None:
        while (other := self._running.get(lane.key)) is not None:  # of an older claim, or the user is on two partitions
            await other.wait()
        if not shard.open:
            return
        handler = self._router.handlers.get(flight.delivery.handler)
        if handler is None and (patience := self._patience(flight.delivery)) > 0:
            shard.table.postpone(flight.delivery.key, self.now_ms() + math.ceil(min(patience, 60.0) * 1000))
            return
        landed = self._running[lane.key] = asyncio.Event()
        try:
            verdict, flight.delivery = await self._attempt(handler, flight)
        finally:
            del self._running[lane.key]
            landed.set()
        await self._settle(shard, lane, flight, verdict)

    async def _attempt(self, handler: Handler | None, flight: Flight) -> tuple[Verdict, Delivery]:
        delivery = flight.delivery
        if handler is None:
            return _given_up("handler-gone", f"no handler is named {delivery.handler!r} any more"), delivery
        try:
            event = flight.event or decode(delivery.value)
        except Undecodable as error:
            return _given_up("undecodable", str(error)), delivery
        expires_at = self._expires_at(handler, event, delivery)
        if (
            expires_at is not None
            and expires_at < self.now_ms()
            and not (delivery.replay and delivery.replay.even_expired)
        ):
            self._metrics.attempts.labels(handler.name, EXPIRED).inc()
            return _given_up(EXPIRED, f"older than the handler's {handler.expires_after:g} s"), delivery
        ending = await self._attempts.run(handler, event, delivery)
        now = self._now()
        verdict = decide(
            ending.error,
            attempt=delivery.attempt + 1,
            policy=handler.retry or self._policy,
            on_unknown=handler.on_unknown,
            now=now,
            rng=self._rng,
            may_park=delivery.replay is None,
        )
        self._metrics.handler_seconds.labels(handler.name).observe(ending.seconds)
        self._metrics.attempts.labels(handler.name, verdict.label).inc()
        return verdict, _after(delivery, verdict, ending.sent, int(now * 1000))

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
            self._due_soon.set()
            self.park_queue(shard, lane)
            if flight.done_elsewhere:  # said while we were writing: our word came last, and has to be taken back
                await self._settler.done(shard, flight, Done())

    async def _give_up(self, shard: Shard, flight: Flight, verdict: Dead) -> None:
        delivery = flight.delivery
        if delivery.replay is not None and verdict.reason in {EXPIRED, "handler-gone"}:
            await self._settler.note(shard, delivery, "refused", verdict.error)
            return
        await self._settler.bury(shard, flight, verdict, self._expiry_of(delivery, flight.event))

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

    # What is due

    async def _run_due(self) -> None:
        while True:
            self._due_soon.clear()
            now = self.now_ms()
            wait = min((self._start_due(shard, now) for shard in self._shards.values() if shard.open), default=1.0)
            try:
                async with asyncio.timeout(wait):
                    await self._due_soon.wait()
            except TimeoutError:
                pass

    def _start_due(self, shard: Shard, now: int) -> float:
        room = self._limits.records - self._records
        for key, lane_key in shard.table.due(now, shard.position, max(room, 1)):
            lane = shard.lane(lane_key)
            head = shard.table.first(lane_key)
            if head is not None and head.key != key:
                shard.table.postpone(key, None)  # rule 1: only the head has a due time
            self.wake(shard, lane)
            shard.drop_if_empty(lane)
        next_due = shard.table.next_due(now, shard.position)
        return 0.1 if room <= 1 else 1.0 if next_due is None else min(1.0, max(0.001, (next_due - now) / 1000))

    def _patience(self, delivery: Delivery) -> float:
        """Seconds that a delivery still waits for a handler that is not there (it may come with the next deploy)."""
        return 0.0 if delivery.replay else self._began + self._limits.handler_gone_after - self._now()

    # Committing and measuring

    async def _commit_often(self) -> None:
        while True:
            await asyncio.sleep(self._limits.commit_every)
            await self._commit([shard for shard in self._shards.values() if shard.open])

    async def _commit(self, shards: Sequence[Shard], *, orderly: bool = False) -> None:
        async with self._committing:
            positions = {shard.claim: shard.ledger.snapshot(orderly=orderly) for shard in shards if shard.ours}
            changed = {
                s.claim: positions[s.claim]
                for s in shards
                if s.claim in positions and s.committed != positions[s.claim]
            }
            if not changed:
                return
            try:
                await self._log.commit(changed)
            except (ClaimLost, LogUnavailable) as error:
                self._metrics.commit_failures.inc()
                self._logger.warning("commit refused", error=scrub(error))
                return
            for shard in shards:
                shard.committed = changed.get(shard.claim, shard.committed)

    async def _measure(self) -> None:
        while True:
            shards = [shard for shard in self._shards.values() if shard.open]
            self._metrics.claims.set(len(shards))
            self._metrics.in_flight.set(self._records)
            now = self.now_ms()
            overdue = [due for shard in shards if (due := shard.table.oldest_due(shard.position)) is not None]
            self._metrics.oldest_due_age.set(max(0.0, (now - min(overdue, default=now)) / 1000))
            try:
                ends = await self._log.ends([shard.claim for shard in shards])
            except (LogUnavailable, ClaimLost):
                ends = {}
            for shard in shards:
                labels = (shard.claim.topic, str(shard.claim.partition))
                self._metrics.parked.labels(*labels).set(len(shard.table))
                if shard.claim in ends:
                    self._metrics.lag.labels(*labels).set(max(0, ends[shard.claim] - shard.position))
            await asyncio.sleep(1.0)

    # Small things

    def spawn(self, shard: Shard, work: Coroutine[Any, Any, Any], *, kept: bool = True) -> asyncio.Task[Any]:
        task = asyncio.create_task(work)
        if kept:
            shard.tasks.add(task)
            task.add_done_callback(shard.tasks.discard)
        task.add_done_callback(self._notice)
        return task

    def _notice(self, task: asyncio.Task[Any]) -> None:
        self._late.discard(task)
        if (
            not task.cancelled()
            and (error := task.exception()) is not None
            and self._failed
            and not self._failed.done()
        ):
            self._failed.set_exception(error)

    def _remember(self, shard: Shard, flight: Flight) -> None:
        if shard.flights.setdefault(flight.delivery.key, flight) is flight and not flight.counted:
            flight.counted = True
            self._records += 1
            self._size += flight.delivery.size

    def _drop(self, shard: Shard, flight: Flight) -> None:
        self.forget(shard, flight)
        if flight.ended is not None:
            flight.ended(DROPPED)  # no news to one that has ended

    def forget(self, shard: Shard, flight: Flight) -> None:
        if flight.counted:
            flight.counted = False
            self._records -= 1
            self._size -= flight.delivery.size
        if shard.flights.get(flight.delivery.key) is flight:
            del shard.flights[flight.delivery.key]

    def now_ms(self) -> int:
        return int(self._now() * 1000)

    def _expiry_of(self, delivery: Delivery, event: Event | None) -> int | None:
        handler = self._router.handlers.get(delivery.handler)
        if handler is None:
            return None
        try:
            return self._expires_at(handler, event or decode(delivery.value), delivery)
        except Undecodable:
            return None

    @staticmethod
    def _expires_at(handler: Handler, event: Event, delivery: Delivery) -> int | None:
        if handler.expires_after is None:
            return None
        stamp = event.context.timestamp
        happened = stamp * 1000 if stamp is not None else delivery.origin.timestamp
        return int(happened + handler.expires_after * 1000)


def _given_up(reason: str, error: str) -> Dead:
    return Dead(reason, reason, scrub(error), "")


def _after(delivery: Delivery, verdict: Verdict, sent: bool, now: int) -> Delivery:
    """The delivery as its attempt has left it."""
    if isinstance(verdict, Done):
        return delivery
    due = math.ceil(verdict.due * 1000) if isinstance(verdict, Park) else None
    attempt = verdict.attempt if isinstance(verdict, Park) else delivery.attempt + 1
    failed = delivery.failed(attempt=attempt, due=due, now=now, error=verdict.error, error_type=verdict.error_type)
    return replace(failed, sent=sent or delivery.sent)
