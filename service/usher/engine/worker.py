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
from usher.engine.driver import Driver, Limits
from usher.engine.intake import NO_SOURCES, Intake
from usher.engine.lanes import Shard
from usher.engine.port import Batch, Claim, ClaimLost, EventLog, LogUnavailable
from usher.engine.settle import Settler
from usher.engine.tail import Tail
from usher.metrics import Metrics
from usher.redact import scrub
from usher.sources import Source

if TYPE_CHECKING:
    from structlog.typing import FilteringBoundLogger


_SAMPLE = 20
_PART = 200
"""Records that are taken in at a stretch."""


class Worker:
    """Runs handlers on what a log brings. Made of parts that run on any log and any clock (*now*: Unix seconds)."""

    def __init__(
        self,
        log: EventLog,
        attempts: Attempts,
        *,
        group: str,
        metrics: Metrics,
        logger: FilteringBoundLogger,
        rng: random.Random,
        limits: Limits,
        sources: Mapping[str, Source] = NO_SOURCES,
    ) -> None:
        self._log = log
        self._handlers = attempts.router.handlers
        self._metrics = metrics
        self._logger = logger
        self._limits = limits
        self._id = uuid.UUID(int=rng.getrandbits(128)).hex[:12]
        self._intake = Intake(attempts.router, metrics, limits, sources)
        settler = Settler(log, group, metrics, logger)
        self._driver = Driver(attempts, settler, limits, metrics, commit=self._commit_one, failed=self._fail)
        self._tail = Tail(log, attempts.router, self._intake, settler, self._driver, self._open_claim, limits, logger)
        self._shards: dict[Claim, Shard] = {}
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
            await self.released(list(self._shards))
            if self._late:  # what ended within the drain may still be writing that down
                await asyncio.wait(self._late, timeout=1.0)
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
        if self._stopping.is_set():
            return  # whoever leaves begins nothing: the next owner starts where this claim does
        for claim in claims:
            self._claim_count += 1
            shard = Shard(claim, f"{self._id}.{self._claim_count}", self._handlers, self._limits.dedupe_window)
            self._shards[claim] = shard
            shard.tail = self._driver.spawn(shard, self._tail.follow(shard), kept=False)
        self._assigned = True

    async def released(self, claims: Sequence[Claim]) -> None:
        """`Owner.released`: close the gates, drain within the budget, commit, forget (rule 9)."""
        going = [shard for claim in claims if (shard := self._shards.get(claim)) is not None]
        for shard in going:
            shard.open = False
            self._driver.drop_replays(shard)
            if shard.releasing is None:
                shard.releasing = asyncio.create_task(self._release(shard))
        await asyncio.gather(*(shard.releasing for shard in going if shard.releasing is not None))

    async def _release(self, shard: Shard) -> None:
        if shard.tail is not None and not shard.loaded:
            shard.tail.cancel()  # else it goes on: a stranger's late word has to be answered by who knows what is done
        clock = asyncio.get_running_loop().time
        deadline = clock() + self._limits.drain
        while shard.tasks and (left := deadline - clock()) > 0:  # what ends may leave behind others to be parked
            await asyncio.wait(shard.tasks, timeout=left)
        shard.ours = False  # from here on a tombstone tells of a success: the commit does not know what ends beside it
        if shard.loaded:
            await self._commit([shard], orderly=True)
        if shard.tail is not None:
            shard.tail.cancel()
        self._shards.pop(shard.claim, None)
        self._driver.forget_queued(shard)
        if not shard.tasks:
            shard.table.close()
            return
        self._logger.warning("deliveries outlived their claim", partition=shard.claim.partition, count=len(shard.tasks))
        late = asyncio.ensure_future(asyncio.gather(*shard.tasks, return_exceptions=True))
        late.add_done_callback(lambda _: shard.table.close())
        self._late |= shard.tasks
        for task in shard.tasks:
            task.add_done_callback(self._late.discard)

    async def _open_claim(self, shard: Shard) -> None:
        """The claim is loaded: write down that a worker began here, then let it be read, and what is due in it run."""
        await self._commit([shard])
        if shard.releasing is not None:
            return
        shard.calm_at = self._driver.now_ms() + int(self._limits.calm_after * 1000)
        if shard.ledger.careful:
            self._logger.warning(
                "worker after worker has ended here: deliveries run one at a time for a while",
                topic=shard.claim.topic,
                partition=shard.claim.partition,
            )
        shard.loaded = shard.open = True
        self._logger.info(
            "claim loaded",
            topic=shard.claim.topic,
            partition=shard.claim.partition,
            position=shard.position,
            parked=len(shard.table),
        )
        self._driver.due_soon.set()

    # Reading

    async def _poll(self) -> None:
        loop = asyncio.get_running_loop()
        while not self._stopping.is_set():
            claims, limit = self._readable()
            try:
                batches = await self._log.read(claims, limit, 0.2 if claims else 0.02)
            except LogUnavailable as error:
                self._logger.warning("the log can't be read, trying again", error=scrub(error))
                await asyncio.sleep(0.5)
                continue
            self._polled = loop.time()
            for batch in batches:
                await self._take_in_parts(batch)
            for shard in list(self._shards.values()):
                if shard.open and shard.backlog is not None and self._driver.now_ms() >= shard.rests_until:
                    self._take(shard, shard.backlog)

    async def _take_in_parts(self, batch: Batch) -> None:
        shard = self._shards.get(batch.claim)
        for part in _parts(batch):
            if shard is None or not shard.open:
                return  # unread, as far as the next claim is concerned
            self._take(shard, part)
            if shard.backlog is not None:  # it rests: so does what follows
                left = [record for record in batch.records if record.offset >= shard.position]
                shard.backlog = Batch(batch.claim, left, batch.next)
                return
            await asyncio.sleep(0)  # decoding is work: the loop has to turn between

    def _take(self, shard: Shard, batch: Batch) -> None:
        position = shard.position
        for todo in self._intake.take(shard, batch):
            self._driver.begin(shard, todo)
        shard.forget_passed()
        if batch.records:
            size = sum(len(record.value or b"") for record in batch.records[-_SAMPLE:]) / min(
                len(batch.records), _SAMPLE
            )
            self._record_size += (max(size, 1.0) - self._record_size) / 4
        if shard.table.highest >= position:  # what waited for the position to move may run
            shard.table.soonest = 0.0
            self._driver.due_soon.set()
        resting = shard.backlog is not None
        self._metrics.resting.labels(shard.claim.topic, str(shard.claim.partition)).set(resting)
        if resting:
            shard.rests_until = self._driver.now_ms() + int(self._limits.undecodable_rest * 1000)
            self._logger.error(
                "partition rests: most of its last records are undecodable; see what writes to it, and in which format",
                topic=shard.claim.topic,
                partition=shard.claim.partition,
                position=shard.position,
                tries_again_in=self._limits.undecodable_rest,
            )

    def _readable(self) -> tuple[list[Claim], int]:
        """The claims that may be read, and how many records: no claim may come to hold more than a Mark can tell."""
        if self._driver.full:
            return [], 0
        limits = self._limits
        ready: list[Shard] = []
        room = limits.read
        for shard in self._shards.values():
            if shard.open and shard.backlog is None and len(shard.ledger) < limits.intake_stops:
                fits = shard.ledger.room
                if fits > 0:
                    ready.append(shard)
                    room = min(room, fits)
        fullest = max((len(shard.ledger) for shard in ready), default=0)
        fitting = int(self._driver.space / self._record_size)
        most = min(limits.read, limits.per_claim - fullest, fitting)
        return [shard.claim for shard in ready], max(1, min(most, room))

    async def _run_due(self) -> None:
        due_soon = self._driver.due_soon
        while True:
            due_soon.clear()
            wait = min((self._driver.start_due(shard) for shard in self._shards.values() if shard.open), default=1.0)
            try:
                async with asyncio.timeout(wait):
                    await due_soon.wait()
            except TimeoutError:
                pass

    # Committing and measuring

    async def _commit_often(self) -> None:
        while True:
            await asyncio.sleep(self._limits.commit_every)
            loaded = [shard for shard in self._shards.values() if shard.loaded]
            for shard in loaded:
                if self._driver.now_ms() >= shard.calm_at:
                    shard.ledger.calm()
            await self._commit(loaded)

    async def _commit_one(self, shard: Shard) -> bool:
        return await self._commit([shard])

    async def _commit(self, shards: Sequence[Shard], *, orderly: bool = False) -> bool:
        """Whether the log has taken what is new, or nothing is."""
        async with self._committing:
            positions = {s.claim: s.ledger.snapshot(orderly=orderly) for s in shards if s.ours or orderly}
            changed = {
                s.claim: positions[s.claim]
                for s in shards
                if s.claim in positions and s.committed != positions[s.claim]
            }
            if not changed:
                return True
            try:
                await self._log.commit(changed)
            except (ClaimLost, LogUnavailable) as error:
                self._metrics.commit_failures.inc()
                self._logger.warning("commit refused", error=scrub(error))
                return False
            for shard in shards:
                shard.committed = changed.get(shard.claim, shard.committed)
            return True

    async def _measure(self) -> None:
        while True:
            shards = [shard for shard in self._shards.values() if shard.open]
            self._metrics.claims.set(len(shards))
            self._metrics.in_flight.set(self._driver.records)
            now = self._driver.now_ms()
            overdue = [due for shard in shards if (due := shard.table.oldest_due(shard.position)) is not None]
            self._metrics.oldest_due_age.set(max(0.0, (now - min(overdue, default=now)) / 1000))
            try:
                ends = await self._log.ends([shard.claim for shard in shards])
            except (LogUnavailable, ClaimLost):
                ends = {}
            self._metrics.partitions(
                {shard.claim.place: len(shard.table) for shard in shards},
                {shard.claim.place: max(0, ends.get(shard.claim, shard.position) - shard.position) for shard in shards},
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
