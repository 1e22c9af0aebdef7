"""The claims of a worker: each is loaded, opened, and released in good order.

Hides how long a claim takes from its assignment to its first delivery, and from the call to release it to its end.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from usher.engine.claim_state import ClaimState
from usher.engine.commits import Commits
from usher.engine.dedupe import Recent
from usher.engine.driver import Driver
from usher.engine.follow import RetryFollower
from usher.engine.index_file import IndexLost, index_trouble
from usher.engine.limits import Limits
from usher.engine.parking_table import ParkingTable
from usher.engine.receipts import Receipts
from usher.eventlog.port import Claim, EventLog

if TYPE_CHECKING:
    from structlog.typing import FilteringBoundLogger


_FIRST_PAUSE, _LONGEST_PAUSE = 1.0, 10.0


class _IndexOutage:
    """Logs that the indexes of parked deliveries can't be written: one line at once, then one a minute."""

    def __init__(self) -> None:
        self._logged_at: float | None = None

    def log(self, logger: FilteringBoundLogger, error: IndexLost) -> None:
        now = asyncio.get_running_loop().time()
        if self._logged_at is None or now - self._logged_at >= 60.0:
            hint = "parked deliveries wait; free some of its space, or let TMPDIR name another folder on a disk"
            logger.warning("the temporary folder can't be used, trying again", error=str(error), hint=hint)
            self._logged_at = now

    def over(self, logger: FilteringBoundLogger) -> None:
        if self._logged_at is not None:
            self._logged_at = None
            logger.info("the temporary folder can be used again")


@dataclass(eq=False, slots=True)
class Claims:
    """The `Owner` of a worker's claims. *writer* names the worker in records; *failed* is for errors that nothing expects."""

    event_log: EventLog
    follower: RetryFollower
    driver: Driver
    commits: Commits
    receipts: Receipts
    handlers: Collection[str]
    writer: str
    limits: Limits
    logger: FilteringBoundLogger
    failed: Callable[[BaseException], None]
    states: dict[Claim, ClaimState] = field(default_factory=dict, init=False)
    late: set[asyncio.Task[Any]] = field(default_factory=set, init=False)
    """The tasks that outlived their claims."""
    assigned: bool = field(default=False, init=False)
    """Whether the event log has said which claims are ours, and has not taken them back."""
    leaving: bool = field(default=False, init=False)
    """Set when the worker stops: no claim begins after that."""
    _outage: _IndexOutage = field(default_factory=_IndexOutage, init=False)
    _assignments: int = field(default=0, init=False)
    _count: int = field(default=0, init=False)

    @property
    def open(self) -> list[ClaimState]:
        return [state for state in self.states.values() if state.open]

    @property
    def loaded(self) -> list[ClaimState]:
        return [state for state in self.states.values() if state.loaded]

    @property
    def loading(self) -> list[Claim]:
        """The claims whose parking table is not there yet, or not there any more."""
        return [claim for claim, state in self.states.items() if not (state.loaded and state.table.usable)]

    @property
    def receipts_trouble(self) -> str:
        """Why the receipts of a claim can't be filed; empty while all can, as far as is known."""
        return next((state.unfiled.trouble for state in self.states.values() if state.unfiled.trouble), "")

    async def claimed(self, claims: Sequence[Claim]) -> None:
        """`Owner.claimed`: begin to load each claim. It is read once its parking table is loaded."""
        if self.leaving:
            return  # nothing begins any more: the next owner starts where this claim does
        for claim in claims:
            self._count += 1
            writer = f"{self.writer}.{self._count}"
            recent = Recent(self.limits.dedupe_window, self.driver.now)
            state = ClaimState(claim, writer.encode(), frozenset(self.handlers), recent, self.failed)
            self.states[claim] = state
            state.follower = state.spawn(self._follow(state), kept=False)
        self._assignments += 1
        self.assigned = True

    async def _follow(self, state: ClaimState) -> None:
        """Load the claim, open it, and follow its retry partition until cancelled. Anew with each loss of the index."""
        pause = _FIRST_PAUSE
        while True:
            try:
                await self._follow_once(state)
            except IndexLost as error:
                self._outage.log(self.logger, error)
            else:
                return  # the event log is closed
            await asyncio.sleep(pause)
            pause = min(pause * 2, _LONGEST_PAUSE)
            state.table.close()
            state.table = ParkingTable()

    async def _follow_once(self, state: ClaimState) -> None:
        """Load the claim, open it, and follow its retry partition.

        Raises:
            IndexLost: begin again with a new parking table.
        """
        if trouble := index_trouble():
            raise IndexLost(trouble)
        async with contextlib.aclosing(self.event_log.parked(state.claim)) as stream:
            await self.follower.load(state, stream)
            await self._open(state)
            self._outage.over(self.logger)
            listening = asyncio.ensure_future(self.follower.listen(state, stream))
            losing = asyncio.ensure_future(state.table.file.lost())
            try:
                await asyncio.wait([listening, losing], return_when=asyncio.FIRST_COMPLETED)
                if not listening.done():
                    raise IndexLost(state.table.file.why_lost)
                listening.result()
            finally:
                listening.cancel()
                losing.cancel()
                await asyncio.wait([listening, losing])  # the stream can't be closed while it is listened to

    async def _open(self, state: ClaimState) -> None:
        """Commit that a worker began here; then let the claim be read, and its due deliveries run.

        Raises:
            IndexLost
        """
        if state.loaded:
            self.driver.go_on(state)
            return
        await self.receipts.begin(state)
        await self.commits.commit([state])
        if state.releasing is not None or state.lost:
            return
        state.calm_at = asyncio.get_running_loop().time() + self.limits.calm_after
        if state.ledger.careful:
            self.logger.warning(
                "worker after worker has ended here: deliveries run one at a time for a while",
                topic=state.claim.topic,
                partition=state.claim.partition,
            )
        state.loaded = state.open = True
        self.logger.info(
            "claim loaded",
            topic=state.claim.topic,
            partition=state.claim.partition,
            position=state.position,
            parked=len(state.table),
        )
        self.driver.due_soon.set()

    async def remade(self, claims: Sequence[Claim]) -> None:
        """`Owner.remade`: park all that was read and is not done, in order: what runs, and what is queued behind it."""
        for state in (self.states[claim] for claim in claims if claim in self.states):
            self.driver.hand_over(state)

    async def released(self, claims: Sequence[Claim]) -> None:
        """`Owner.released`: close the claims, drain within the budget, commit, forget (rule 9)."""
        going = [state for claim in claims if (state := self.states.get(claim)) is not None]
        for state in going:
            state.close()
            self.driver.drop_replays(state)
        if fresh := [state for state in going if state.releasing is None]:
            releasing = asyncio.create_task(self._release(fresh))
            for state in fresh:
                state.releasing = releasing
        if releases := {state.releasing for state in going if state.releasing is not None}:
            await asyncio.wait(releases)  # who stops waiting does not end a release: another may wait for it, too
            for release in releases:
                release.result()

    async def _release(self, states: Sequence[ClaimState]) -> None:
        """Release claims that go together: one commit for all of them, or the last ones would exceed the budget."""
        assignments = self._assignments
        for state in states:
            if state.follower is not None and not state.loaded:
                state.follower.cancel()  # otherwise it goes on: only it can take back a late park record of another worker
        busy = [state for state in states if state.loaded and state.tasks]
        asking = self.commits.commit(busy, anyway=True)  # are they ours still? What has nothing to write need not know
        await asyncio.gather(asking, *(self._drain(state) for state in states))
        for state in states:
            state.ours = False  # from here on a success needs a tombstone: the commit does not cover it
        await self.commits.commit([state for state in states if state.loaded], orderly=True)
        for state in states:
            self._forget(state)
        if self._assignments == assignments and not self.states:
            self.assigned = False

    async def _drain(self, state: ClaimState) -> None:
        clock = asyncio.get_running_loop().time
        deadline = clock() + self.limits.drain
        while state.tasks and (left := deadline - clock()) > 0:  # a task that ends may leave others to be parked
            await asyncio.wait(state.tasks, timeout=left)

    def _forget(self, state: ClaimState) -> None:
        if state.follower is not None:
            state.follower.cancel()
        self.states.pop(state.claim, None)
        self.driver.forget_queued(state)
        if not state.tasks:
            state.table.close()
            return
        self.logger.warning("deliveries outlived their claim", partition=state.claim.partition, count=len(state.tasks))
        late = asyncio.ensure_future(asyncio.gather(*state.tasks, return_exceptions=True))
        late.add_done_callback(lambda _: state.table.close())
        self.late |= state.tasks
        for task in state.tasks:
            task.add_done_callback(self.late.discard)
