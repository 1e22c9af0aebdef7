"""The retry partition of a claim, followed from its beginning: the table is folded, then strangers and operators are heard.

Hides rules 5 and 8 of the parking protocol, and how a request to replay is carried out.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING

from usher.delivery import WRITER, Delivery, Head, ParkedRow, Record, offset_in
from usher.engine.dead_letters import EXPIRED, HANDLER_GONE, REQUEST_PREFIX, UNDECODABLE
from usher.engine.driver import DROPPED, Driver
from usher.engine.intake import Intake, deliveries_of
from usher.engine.lanes import ClaimState, InFlight
from usher.engine.limits import Limits
from usher.engine.settle import Settler
from usher.event import Undecodable
from usher.eventlog.errors import LogUnavailable
from usher.eventlog.port import CaughtUp, EventLog
from usher.handler import Router
from usher.outcome import Dead
from usher.redact import scrub
from usher.systems.decode import decode

if TYPE_CHECKING:
    from structlog.typing import FilteringBoundLogger

_PATIENCE = 60
"""Tries, about a second each, to read back what dedupe goes by: a damaged record there must not keep a claim closed."""


@dataclass(frozen=True, slots=True)
class RetryFollower:
    """Follows retry partitions on behalf of a worker. *opened* is awaited once a claim's table has caught up.

    Each replay runs with one of *at_once*.
    """

    event_log: EventLog
    router: Router
    intake: Intake
    settler: Settler
    driver: Driver
    opened: Callable[[ClaimState], Awaitable[None]]
    limits: Limits
    logger: FilteringBoundLogger
    at_once: asyncio.Semaphore
    folding: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def follow(self, state: ClaimState) -> None:
        """Load the claim, open it, and hear what others write until cancelled."""
        async for part in self.event_log.parked(state.claim):
            if isinstance(part, CaughtUp):
                await self._remember_recent(state)
                for _ in state.table.free_heads(self.driver.now_ms()):
                    await asyncio.sleep(0)
                await self.opened(state)
                for request_id, request in list(state.requests.items()):
                    self._carry_out(state, request_id, request)
            elif state.loaded:
                for record in part:
                    key = (record.key or b"").decode("utf-8", "replace")
                    if Head(record.headers).get(WRITER) != state.writer or key in state.doubtful:
                        self._listen(state, record, key)
            else:
                async with (
                    self.folding
                ):  # one batch a turn of the loop, of however many claims: each is some milliseconds
                    state.table.fold(self._changes(state, part))
                    await asyncio.sleep(0)
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

    # Parked deliveries

    def _changes(self, state: ClaimState, records: Sequence[Record]) -> Iterator[tuple[str, ParkedRow | None]]:
        """What records from before the claim do to the table (rule 5)."""
        for record in records:
            key = (record.key or b"").decode("utf-8", "replace")
            if key.startswith(REQUEST_PREFIX):
                self._listen(state, record, key)
            elif record.value is None:
                if offset_in(key) >= state.position:
                    state.known_done.add(key)
                yield key, None
            else:
                try:
                    row = ParkedRow.from_record(record, key)
                except ValueError as error:
                    self._foreign(record, error)
                    continue
                state.known_done.discard(key)
                yield key, row

    def _listen(self, state: ClaimState, record: Record, key: str) -> None:
        """Act on one record that was added."""
        try:
            delivery = None if record.value is None else Delivery.from_record(record)
        except ValueError as error:
            self._foreign(record, error)
            return
        if key.startswith(REQUEST_PREFIX):
            self._request(state, key.removeprefix(REQUEST_PREFIX), delivery)
        else:
            self._hear(state, key, delivery)

    def _foreign(self, record: Record, error: ValueError) -> None:
        self.logger.warning("a foreign record in the retry topic", offset=record.offset, error=scrub(error))

    def _hear(self, state: ClaimState, key: str, delivery: Delivery | None) -> None:
        in_flight = state.in_flight.get(key)
        if delivery is not None and state.done_for_good(delivery):
            self.driver.spawn(state, self.settler.answer_stranger(state, delivery))
            return
        lane_key = (
            delivery.lane_key if delivery else in_flight.delivery.lane_key if in_flight else state.table.lane_of(key)
        )
        if delivery is None:
            if offset_in(key) >= state.position:
                state.known_done.add(key)
            if in_flight is None:
                state.table.remove(key)
        else:
            state.table.merge(delivery)
        if in_flight is not None:
            self._overtaken(state, in_flight, done=delivery is None)
        if lane_key is not None and (lane := state.lane(lane_key)):
            if delivery is not None:
                self.driver.park_queue(state, lane)
            self.driver.wake(state, lane)
            state.drop_if_empty(lane)

    def _overtaken(self, state: ClaimState, in_flight: InFlight, *, done: bool) -> None:
        """Another worker has handed over, or finished, what we hold in memory."""
        delivery = in_flight.delivery
        queue = state.lane(delivery.lane_key).queue
        if in_flight in queue:
            queue.remove(in_flight)
            state.ledger.settle(delivery.offset, delivery.handler)
            self.driver.forget(state, in_flight)
        elif done:
            in_flight.done_elsewhere = True
        else:
            in_flight.parked = True

    # Requests

    def _request(self, state: ClaimState, request_id: str, delivery: Delivery | None) -> None:
        if delivery is None:
            state.requests.pop(request_id, None)
        elif request_id not in state.requests and delivery.replay is not None:
            state.requests[request_id] = delivery
            if state.loaded:
                self._carry_out(state, request_id, delivery)

    def _carry_out(self, state: ClaimState, request_id: str, delivery: Delivery) -> None:
        """Run a request, unless the letter is being replayed, or was: two operators had one thought."""
        dead_letter = delivery.replay.dead_letter if delivery.replay else ""
        if dead_letter in state.replayed:
            self.driver.spawn(state, self.settler.answer(state, request_id))
            return
        state.replayed.add(dead_letter)
        self.driver.spawn(state, self._replay(state, delivery))

    async def _replay(self, state: ClaimState, request: Delivery) -> None:
        """Carry out one request: run it, and take it out of the retry topic once what came of it is written."""
        if request.replay is None:
            return
        async with self.at_once:
            if not state.open:
                return
            outcomes = await self._run(state, await self._deliveries_of(state, request))
        if {EXPIRED, HANDLER_GONE} & set(outcomes):
            state.replayed.discard(request.replay.dead_letter)  # refused: it may be asked for again
        if DROPPED not in outcomes and await self.settler.answer(state, request.replay.id):
            state.requests.pop(request.replay.id, None)

    async def _deliveries_of(self, state: ClaimState, request: Delivery) -> list[InFlight]:
        """What is to run: the delivery that failed; or, for bytes that no handler has seen, all that they are for."""
        if request.handler:
            return [InFlight(request)]
        try:
            event = decode(request.value)
        except Undecodable as error:
            verdict = Dead(UNDECODABLE, UNDECODABLE, scrub(error), "usher.event.Undecodable")
            again = replace(request, error=verdict.error, error_type=verdict.error_type)
            await self.settler.bury(state, InFlight(again), verdict, None)
            return []
        found = list(deliveries_of(event, request.origin, request.value, self.router.match(event)))
        if not found:
            await self.settler.note(
                state, request, "replayed", f"no handler runs for it: {self.router.why_filtered(event)}"
            )
        for in_flight in found:
            in_flight.delivery = replace(in_flight.delivery, replay=request.replay, replays=request.replays)
        return found

    async def _run(self, state: ClaimState, found: Sequence[InFlight]) -> list[str]:
        ends: list[asyncio.Future[str]] = []
        for in_flight in found:
            end: asyncio.Future[str] = asyncio.get_running_loop().create_future()
            in_flight.ended = partial(_tell, end)
            ends.append(end)
            self.driver.begin_replay(state, in_flight)
        return list(await asyncio.gather(*ends))


def _tell(end: asyncio.Future[str], outcome: str) -> None:
    if not end.done():
        end.set_result(outcome)
