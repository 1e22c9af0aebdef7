"""The worker: puts the parts of the engine together, runs their loops, and ends all of it in good order.

There is one event loop: between two awaits nothing else moves. docs/parking.md describes the protocol; the rule numbers in
comments are those of that page.
"""

from __future__ import annotations

import asyncio
import random
import uuid
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from usher.engine.attempt import Attempts
from usher.engine.claims import Claims
from usher.engine.commits import Commits
from usher.engine.driver import Driver
from usher.engine.follow import RetryFollower
from usher.engine.intake import NO_SOURCES, Intake
from usher.engine.limits import Limits
from usher.engine.measures import Measures
from usher.engine.reading import Reader
from usher.engine.receipts import FindKeys, Receipts
from usher.engine.replays import Replays
from usher.engine.settle import Settler
from usher.engine.writes import Writes
from usher.eventlog.port import EventLog
from usher.metrics import Metrics
from usher.systems.source import Source

if TYPE_CHECKING:
    from structlog.typing import FilteringBoundLogger


class Worker:
    """Runs handlers on what an event log brings. Its parts run on any event log and any clock."""

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
        find_keys: FindKeys | None = None,
    ) -> None:
        """*find_keys* finds the keys of receipts; None: there are no receipts."""
        self.event_log = event_log
        self.metrics = metrics
        self._limits = limits
        router, writes = attempts.router, Writes(event_log, logger, group)
        self.receipts = Receipts(writes, router.handlers, metrics, attempts.now, find_keys)
        self._commits = Commits(event_log, self.receipts, metrics, logger)
        settler = Settler(writes, self.receipts, attempts, group, metrics, logger)
        self.driver = Driver(attempts, settler, self._commits, limits)
        self._intake = intake = Intake(router, metrics, limits, attempts.now, sources)
        replays = Replays(router, self.driver, settler, writes, asyncio.Semaphore(limits.replays))
        follower = RetryFollower(event_log, intake, self.driver, replays, settler, limits, logger)
        handlers, writer = router.handlers, uuid.UUID(int=rng.getrandbits(128)).hex[:12]
        parts = (event_log, follower, self.driver, self._commits, self.receipts)
        self.claims = Claims(*parts, handlers, writer, limits, logger, self._fail)
        self._reader = Reader(event_log, self.claims, intake, self.driver, limits, metrics, logger)
        self.measures = Measures(event_log, self.claims, self.driver, metrics, logger)
        self._stopping = asyncio.Event()
        self._broken: asyncio.Future[None] | None = None
        self._opened = False

    @property
    def ready(self) -> bool:
        """Whether the event log is open, the first claims are loaded (or there are none), and no stop was asked for."""
        return self._opened and self.claims.assigned and not self._stopping.is_set() and not self.claims.loading

    def silent_for(self) -> float:
        """Return the seconds since the event log was last polled; 0 before the first poll."""
        return asyncio.get_running_loop().time() - self._reader.polled if self._reader.polled else 0.0

    def stop(self) -> None:
        """Ask `run` to end in good order: stop reading, drain, commit, leave."""
        self._stopping.set()
        self.claims.leaving = True

    async def run(self) -> None:
        """Work until `stop` is called. Opens the event log, and leaves it open.

        Raises what the event log raises when it is opened, and any error that breaks one of the loops.
        """
        self._broken = asyncio.get_running_loop().create_future()
        loops: list[asyncio.Task[Any]] = []
        try:
            if not await self._open():
                return
            self._opened = True
            loops = [
                asyncio.create_task(loop())
                for loop in (self._read, self._run_due, self._commit_often, self.measures.run)
            ]
            stopping = asyncio.create_task(self._stopping.wait())
            waiting: list[asyncio.Future[Any]] = [stopping, self._broken, *loops]
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            stopping.cancel()
            for task in waiting[1:]:
                if task.done():
                    task.result()
        finally:
            self.stop()
            await self.claims.released(list(self.claims.states))
            late = self.claims.late
            if late:  # what ended within the drain may still be writing
                await asyncio.wait(late, timeout=1.0)
            for task in (ending := [*loops, *late]):
                task.cancel()
            if ending:
                await asyncio.wait(ending, timeout=1.0)  # a handler may refuse to be cancelled

    async def _open(self) -> bool:
        opening = asyncio.create_task(self.event_log.open(self.claims, self._intake.sieve))
        stopping = asyncio.create_task(self._stopping.wait())
        await asyncio.wait([opening, stopping], return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        if not opening.done():
            opening.cancel()
            await asyncio.gather(opening, return_exceptions=True)
            return False
        opening.result()
        return True

    # The loops

    async def _read(self) -> None:
        while not self._stopping.is_set():
            await self._reader.poll()

    async def _run_due(self) -> None:
        due_soon = self.driver.due_soon
        while True:
            due_soon.clear()
            wait = min((self.driver.start_due(state) for state in self.claims.open), default=1.0)
            try:
                async with asyncio.timeout(wait):
                    await due_soon.wait()
            except TimeoutError:
                pass

    async def _commit_often(self) -> None:
        while True:
            await asyncio.sleep(self._limits.commit_every)
            loaded = self.claims.loaded
            for state in loaded:
                if asyncio.get_running_loop().time() >= state.calm_at and not state.ledger.doubtful:
                    state.ledger.calm()
            await self._commits.commit(loaded)

    def _fail(self, error: BaseException) -> None:
        """Stop: an error of ours means that the state can't be trusted any more."""
        if self._broken is not None and not self._broken.done():
            self._broken.set_exception(error)
