"""The worker: claims come and go, records are read, the frontier is committed, and all of it ends in good order.

One event loop, no locks but one: between two awaits nothing else moves. docs/parking.md tells the protocol in words; the
rule numbers in comments are those of that page.
"""

from __future__ import annotations

import asyncio
import random
import uuid
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from usher.engine.attempt import Attempts
from usher.engine.driver import Driver
from usher.engine.follow import RetryFollower
from usher.engine.intake import NO_SOURCES, Intake
from usher.engine.lanes import ClaimState
from usher.engine.limits import Limits
from usher.engine.settle import Settler
from usher.eventlog.errors import ClaimLost, LogUnavailable
from usher.eventlog.port import Batch, Claim, EventLog
from usher.metrics import Metrics
from usher.redact import scrub
from usher.systems.source import Source

if TYPE_CHECKING:
    from structlog.typing import FilteringBoundLogger


_SAMPLE = 20
_PART = 200
"""Records that are taken in at a stretch."""


class Worker:
    """Runs handlers on what a log brings. Made of parts that run on any log and any clock (*now*: Unix seconds)."""

    def __init__(
        self,
        event_log: EventLog,
        attempts: Attempts,
        *,
        group: str,
        metrics: Metrics,
        logger: FilteringBoundLogger,
        rng: random.Random,
        limits: Limits,
        sources: Mapping[str, Source] = NO_SOURCES,
    ) -> None:
        self._event_log = event_log
        self._handlers = attempts.router.handlers
        self._metrics = metrics
        self._logger = logger
        self._limits = limits
        self._id = uuid.UUID(int=rng.getrandbits(128)).hex[:12]
        self._intake = Intake(attempts.router, metrics, limits, sources)
        settler = Settler(event_log, group, metrics, logger)
        self._driver = Driver(attempts, settler, limits, metrics, commit=self._commit_one, failed=self._fail)
        self._follower = RetryFollower(
            event_log,
            attempts.router,
            self._intake,
            settler,
            self._driver,
            self._open_claim,
            limits,
            logger,
            at_once=asyncio.Semaphore(limits.replays),
        )
        self._states: dict[Claim, ClaimState] = {}
        self._late: set[asyncio.Task[Any]] = set()
        self._claim_count = 0
        self._committing = asyncio.Lock()
        self._stopping = asyncio.Event()
        self._broken: asyncio.Future[None] | None = None
        self._opened = self._assigned = False
        self._polled = 0.0
        self._record_size = 16_384.0
        """Bytes of a record, as it seems of late: how many fit is guessed before they are read."""

    # What others ask

    @property
    def ready(self) -> bool:
        """Whether the log is open, the first claims are loaded (or there are none for us), and no stop was asked for."""
        return (
            self._opened
            and self._assigned
            and not self._stopping.is_set()
            and all(state.loaded for state in self._states.values())
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
        self._broken = asyncio.get_running_loop().create_future()
        loops: list[asyncio.Task[Any]] = []
        try:
            if not await self._open():
                return
            self._opened = True
            loops = [
                asyncio.create_task(loop()) for loop in (self._poll, self._run_due, self._commit_often, self._measure)
            ]
            stopping = asyncio.create_task(self._stopping.wait())
            waiting: list[asyncio.Future[Any]] = [stopping, self._broken, *loops]
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            stopping.cancel()
            for task in waiting[1:]:
                if task.done():
                    task.result()
        finally:
            self._stopping.set()
            await self.released(list(self._states))
            if self._late:  # what ended within the drain may still be writing that down
                await asyncio.wait(self._late, timeout=1.0)
            for task in (ending := [*loops, *self._late]):
                task.cancel()
            if ending:
                await asyncio.wait(ending, timeout=1.0)  # a handler may refuse to be cancelled

    async def _open(self) -> bool:
        opening = asyncio.create_task(self._event_log.open(self))
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
        if self._stopping.is_set():
            return  # whoever leaves begins nothing: the next owner starts where this claim does
        for claim in claims:
            self._claim_count += 1
            state = ClaimState(claim, f"{self._id}.{self._claim_count}", self._handlers, self._limits.dedupe_window)
            self._states[claim] = state
            state.follower = self._driver.spawn(state, self._follower.follow(state), kept=False)
        self._assigned = True

    async def released(self, claims: Sequence[Claim]) -> None:
        """`Owner.released`: close the gates, drain within the budget, commit, forget (rule 9)."""
        going = [state for claim in claims if (state := self._states.get(claim)) is not None]
        for state in going:
            state.open = False
            self._driver.drop_replays(state)
            self._driver.end_waiting(state)
            if state.releasing is None:
                state.releasing = asyncio.create_task(self._release(state))
        await asyncio.gather(*(state.releasing for state in going if state.releasing is not None))

    async def _release(self, state: ClaimState) -> None:
        if state.follower is not None and not state.loaded:
            state.follower.cancel()  # else it goes on: a stranger's late word has to be answered by who knows what is done
        clock = asyncio.get_running_loop().time
        deadline = clock() + self._limits.drain
        while state.tasks and (left := deadline - clock()) > 0:  # what ends may leave behind others to be parked
            await asyncio.wait(state.tasks, timeout=left)
        state.ours = False  # from here on a tombstone tells of a success: the commit does not know what ends beside it
        if state.loaded:
            await self._commit([state], orderly=True)
        if state.follower is not None:
            state.follower.cancel()
        self._states.pop(state.claim, None)
        self._driver.forget_queued(state)
        if not state.tasks:
            state.table.close()
            return
        self._logger.warning("deliveries outlived their claim", partition=state.claim.partition, count=len(state.tasks))
        late = asyncio.ensure_future(asyncio.gather(*state.tasks, return_exceptions=True))
        late.add_done_callback(lambda _: state.table.close())
        self._late |= state.tasks
        for task in state.tasks:
            task.add_done_callback(self._late.discard)

    async def _open_claim(self, state: ClaimState) -> None:
        """The claim is loaded: write down that a worker began here, then let it be read, and what is due in it run."""
        await self._commit([state])
        if state.releasing is not None:
            return
        state.calm_at = self._driver.now_ms() + int(self._limits.calm_after * 1000)
        if state.ledger.careful:
            self._logger.warning(
                "worker after worker has ended here: deliveries run one at a time for a while",
                topic=state.claim.topic,
                partition=state.claim.partition,
            )
        state.loaded = state.open = True
        self._logger.info(
            "claim loaded",
            topic=state.claim.topic,
            partition=state.claim.partition,
            position=state.position,
            parked=len(state.table),
        )
        self._driver.due_soon.set()

    # Reading

    async def _poll(self) -> None:
        loop = asyncio.get_running_loop()
        while not self._stopping.is_set():
            claims, limit = self._readable()
            try:
                batches = await self._event_log.read(claims, limit, 0.2 if claims else 0.02)
            except LogUnavailable as error:
                self._logger.warning("the event log can't be read, trying again", error=scrub(error))
                await asyncio.sleep(0.5)
                continue
            self._polled = loop.time()
            for batch in batches:
                await self._take_in_parts(batch)
            for state in list(self._states.values()):
                if state.open and state.backlog is not None and self._driver.now_ms() >= state.rests_until:
                    self._take(state, state.backlog)

    async def _take_in_parts(self, batch: Batch) -> None:
        state = self._states.get(batch.claim)
        for part in _parts(batch):
            if state is None or not state.open:
                return  # unread, as far as the next claim is concerned
            self._take(state, part)
            if state.backlog is not None:  # it rests: so does what follows
                left = [record for record in batch.records if record.offset >= state.position]
                state.backlog = Batch(batch.claim, left, batch.next)
                return
            await asyncio.sleep(0)  # decoding is work: the loop has to turn between

    def _take(self, state: ClaimState, batch: Batch) -> None:
        position = state.position
        for todo in self._intake.take(state, batch):
            self._driver.begin(state, todo)
        state.forget_passed()
        if batch.records:
            size = sum(len(record.value or b"") for record in batch.records[-_SAMPLE:]) / min(
                len(batch.records), _SAMPLE
            )
            self._record_size += (max(size, 1.0) - self._record_size) / 4
        if state.table.highest >= position:  # what waited for the position to move may run
            state.table.soonest = 0.0
            self._driver.due_soon.set()
        resting = state.backlog is not None
        self._metrics.resting.labels(state.claim.topic, str(state.claim.partition)).set(resting)
        if resting:
            state.rests_until = self._driver.now_ms() + int(self._limits.undecodable_rest * 1000)
            self._logger.error(
                "partition rests: most of its last records are undecodable; see what writes to it, and in which format",
                topic=state.claim.topic,
                partition=state.claim.partition,
                position=state.position,
                tries_again_in=self._limits.undecodable_rest,
            )

    def _readable(self) -> tuple[list[Claim], int]:
        """The claims that may be read, and how many records: no claim may come to hold more than a Mark can tell."""
        if self._driver.full:
            return [], 0
        limits = self._limits
        ready: list[ClaimState] = []
        room = limits.read
        for state in self._states.values():
            if state.open and state.backlog is None and len(state.ledger) < limits.intake_stops:
                fits = state.ledger.room
                if fits > 0:
                    ready.append(state)
                    room = min(room, fits)
        fullest = max((len(state.ledger) for state in ready), default=0)
        fitting = int(self._driver.space / self._record_size)
        most = min(limits.read, limits.per_claim - fullest, fitting)
        return [state.claim for state in ready], max(1, min(most, room))

    async def _run_due(self) -> None:
        due_soon = self._driver.due_soon
        while True:
            due_soon.clear()
            wait = min((self._driver.start_due(state) for state in self._states.values() if state.open), default=1.0)
            try:
                async with asyncio.timeout(wait):
                    await due_soon.wait()
            except TimeoutError:
                pass

    # Committing and measuring

    async def _commit_often(self) -> None:
        while True:
            await asyncio.sleep(self._limits.commit_every)
            loaded = [state for state in self._states.values() if state.loaded]
            for state in loaded:
                if self._driver.now_ms() >= state.calm_at:
                    state.ledger.calm()
            await self._commit(loaded)

    async def _commit_one(self, state: ClaimState) -> bool:
        return await self._commit([state])

    async def _commit(self, states: Sequence[ClaimState], *, orderly: bool = False) -> bool:
        """Whether the log has taken what is new, or nothing is."""
        async with self._committing:
            positions = {s.claim: s.ledger.snapshot(orderly=orderly) for s in states if s.ours or orderly}
            changed = {
                s.claim: positions[s.claim]
                for s in states
                if s.claim in positions and s.committed != positions[s.claim]
            }
            if not changed:
                return True
            try:
                await self._event_log.commit(changed)
            except (ClaimLost, LogUnavailable) as error:
                self._metrics.commit_failures.inc()
                self._logger.warning("commit refused", error=scrub(error))
                return False
            for state in states:
                state.committed = changed.get(state.claim, state.committed)
            return True

    async def _measure(self) -> None:
        while True:
            states = [state for state in self._states.values() if state.open]
            self._metrics.claims.set(len(states))
            self._metrics.in_flight.set(self._driver.records)
            now = self._driver.now_ms()
            overdue = [due for state in states if (due := state.table.oldest_due(state.position)) is not None]
            self._metrics.oldest_due_age.set(max(0.0, (now - min(overdue, default=now)) / 1000))
            try:
                ends = await self._event_log.ends([state.claim for state in states])
            except (LogUnavailable, ClaimLost):
                ends = {}
            self._metrics.partitions(
                {state.claim.topic_partition: len(state.table) for state in states},
                {
                    state.claim.topic_partition: max(0, ends.get(state.claim, state.position) - state.position)
                    for state in states
                },
            )
            await asyncio.sleep(1.0)

    def _fail(self, error: BaseException) -> None:
        """A defect of ours: stop rather than go on with a state that nobody understands."""
        if self._broken is not None and not self._broken.done():
            self._broken.set_exception(error)


def _parts(batch: Batch) -> Iterator[Batch]:
    records = batch.records
    if len(records) <= _PART:
        yield batch
        return
    for start in range(0, len(records), _PART):
        part = records[start : start + _PART]
        following = records[start + _PART].offset if start + _PART < len(records) else batch.next
        yield Batch(batch.claim, part, following)
