"""The retry follower: reads the retry partition of a claim from its beginning, and then follows it.

First it folds the parking table (rule 5). Then it listens: other workers and operators write there too (rule 8).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from usher.delivery import Delivery, Record, offset_in
from usher.delivery.headers import WRITER, Head, foreign, read_delivery
from usher.engine.claim_state import ClaimState
from usher.engine.dead_letters import REQUEST_PREFIX
from usher.engine.driver import Driver
from usher.engine.intake import Intake
from usher.engine.lanes import InFlight, Lane
from usher.engine.limits import Limits
from usher.engine.parked_row import DONE_EARLIER, ParkedRow
from usher.engine.replays import Replays
from usher.engine.settle import Settler
from usher.eventlog.errors import LogUnavailable
from usher.eventlog.port import CaughtUp, EventLog
from usher.redact import scrub

if TYPE_CHECKING:
    from structlog.typing import FilteringBoundLogger

_PATIENCE = 60
"""How often the history for dedupe is tried, about once a second: a damaged record in it must not keep a claim closed."""

Stream = AsyncIterator[Sequence[Record] | CaughtUp]

_WINDOW = 60.0


class Strangers:
    """Warns about foreign records: one line a window, with how many there were since the line before."""

    def __init__(self) -> None:
        self._warned_at, self._count = float("-inf"), 0

    def warn(self, logger: FilteringBoundLogger, **about: object) -> None:
        self._count += 1
        now = asyncio.get_running_loop().time()
        if now - self._warned_at >= _WINDOW:
            logger.warning("a foreign record in the retry topic", count=self._count, **about)
            self._warned_at, self._count = now, 0


@dataclass(frozen=True, slots=True)
class RetryFollower:
    """Follows the retry partitions of all claims."""

    event_log: EventLog
    intake: Intake
    driver: Driver
    replays: Replays
    settler: Settler
    limits: Limits
    logger: FilteringBoundLogger
    strangers: Strangers = field(default_factory=Strangers, init=False)
    _folding: asyncio.Lock = field(default_factory=asyncio.Lock, init=False)

    async def load(self, state: ClaimState, stream: Stream) -> None:
        """Fold the parking table, until *stream* has caught up, and read what dedupe has to know. The claim is not open yet."""
        async for part in stream:
            if isinstance(part, CaughtUp):
                break
            async with self._folding:  # one batch in each turn of the loop, of all claims: each takes some milliseconds
                state.table.fold(self._changes(state, part))
                await asyncio.sleep(0)
        if not state.loaded:
            await self._remember_recent(state)
        for _ in state.table.free_heads(self.driver.now_ms()):
            await asyncio.sleep(0)
        state.table.loaded()

    async def listen(self, state: ClaimState, stream: Stream) -> None:
        """Carry out the requests, and act on the records that other workers and operators add to *stream*, until cancelled."""
        self.replays.begin(state)
        async for part in stream:
            if isinstance(part, CaughtUp):
                continue
            for record in part:
                key = (record.key or b"").decode("utf-8", "replace")
                head = Head(record.headers)
                if head.get(WRITER) != state.writer or key in state.doubtful:
                    self._read(state, record, key, head)
            await asyncio.sleep(0)

    async def _remember_recent(self, state: ClaimState) -> None:
        for _ in range(_PATIENCE):
            try:
                async for records in self.event_log.history(
                    state.claim, self.limits.dedupe_window, self.limits.dedupe_records
                ):
                    self.intake.remember(state, records)
                    await asyncio.sleep(0)
            except LogUnavailable as error:
                self.logger.warning("the event log can't be read back, trying again", error=scrub(error))
                await asyncio.sleep(1)
            else:
                return
        self.logger.warning("dedupe does not know what came before this claim", partition=state.claim.partition)

    def _changes(self, state: ClaimState, records: Sequence[Record]) -> Iterator[tuple[str, ParkedRow | None]]:
        """Yield what records from before the claim change in the parking table."""
        for record in records:
            key, head = (record.key or b"").decode("utf-8", "replace"), Head(record.headers)
            if key.startswith(REQUEST_PREFIX) or self._foreign(state, head):
                self._read(state, record, key, head)
            elif record.value is None and state.of_earlier_topic(head):
                state.done_earlier.add(key)
                yield key, DONE_EARLIER
            elif record.value is None:
                if offset_in(key) >= state.position:
                    state.known_done.add(key)
                yield key, None
            else:
                try:
                    row = ParkedRow.from_record(record, key, head, earlier=state.of_earlier_topic(head))
                except ValueError as error:
                    self._pass_over(state, record, scrub(error))
                    continue
                (state.known_done if row.offset >= 0 else state.done_earlier).discard(key)
                yield key, row

    def _read(self, state: ClaimState, record: Record, key: str, head: Head) -> None:
        """Act on one record: of an operator, or of another worker."""
        if owner := self._foreign(state, head):
            self._pass_over(state, record, f"it is of {owner}")
            return
        earlier = state.of_earlier_topic(head)
        try:
            delivery = None if record.value is None else read_delivery(record, earlier=earlier)
            if delivery is not None and not key.startswith(REQUEST_PREFIX):
                ParkedRow.from_record(record, key, head)  # under its own key, as when it is loaded
        except ValueError as error:
            self._pass_over(state, record, scrub(error))
            return
        if key.startswith(REQUEST_PREFIX):
            self.replays.take(state, key.removeprefix(REQUEST_PREFIX), delivery)
        elif delivery is None:
            self._done(state, key, earlier=earlier)
        else:
            self._parked(state, delivery)

    def _foreign(self, state: ClaimState, head: Head) -> str:
        """Name the group and the topic of a record that is not about this claim; empty if it is."""
        return foreign(head, self.settler.group, state.claim.topic)

    def _pass_over(self, state: ClaimState, record: Record, error: str) -> None:
        """Warn about a record that is not ours: one line a minute, since there may be thousands."""
        self.strangers.warn(
            self.logger, topic=record.topic, partition=state.claim.partition, offset=record.offset, error=error
        )

    # Rule 8

    def _done(self, state: ClaimState, key: str, *, earlier: bool) -> None:
        """Another worker says that a delivery is done: of this topic, or of an *earlier* one of the same name."""
        in_flight = _not_a_replay(state.find(key))
        if in_flight is not None and in_flight.delivery.earlier is not earlier:
            return
        lane_key = in_flight.delivery.lane_key if in_flight else state.table.lane_of(key)
        if earlier:
            state.done_earlier.add(key)
        elif offset_in(key) >= state.position:
            state.known_done.add(key)
        if in_flight is None:
            state.table.remove(key, earlier=earlier)
        elif not self._unqueue(state, in_flight):
            in_flight.done_elsewhere = True
        if lane_key is not None:
            self._wake(state, state.lane(lane_key))

    def _parked(self, state: ClaimState, delivery: Delivery) -> None:
        """Another worker says that a delivery is parked."""
        in_flight = _not_a_replay(state.find(delivery.key))
        if state.done_for_good(delivery):
            state.spawn(self.settler.tombstone(state, delivery))
            return
        state.table.merge(delivery)
        if in_flight is not None and not self._unqueue(state, in_flight):
            in_flight.parked = True
        lane = state.lane(delivery.lane_key)
        self.driver.park_queue(state, lane)
        self._wake(state, lane)

    def _unqueue(self, state: ClaimState, in_flight: InFlight) -> bool:
        """Take a delivery out of its queue, where it is in one: another worker has handed it over, or has finished it."""
        delivery = in_flight.delivery
        queue = state.lane(delivery.lane_key).queue
        if in_flight not in queue:
            return False
        queue.remove(in_flight)
        state.ledger.settle(delivery.offset, delivery.handler)
        self.driver.forget(state, in_flight)
        return True

    def _wake(self, state: ClaimState, lane: Lane) -> None:
        self.driver.wake(state, lane)
        state.drop_if_empty(lane)


def _not_a_replay(in_flight: InFlight | None) -> InFlight | None:
    """Return *in_flight*; None for a replay: its request says what became of it, and nothing that is said of the delivery itself."""
    return None if in_flight is None or in_flight.outcome is not None else in_flight
