"""The retry partition of a claim, followed from its beginning: the table is folded, then strangers and operators are heard.

Hides rules 5 and 8 of the parking protocol, and how a request to replay is carried out.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

from usher.delivery import WRITER, Delivery, Head, ParkedRow, Record, offset_in
from usher.engine.intake import Intake, flights
from usher.engine.lanes import Flight, Lane, Shard
from usher.engine.letters import EXPIRED, HANDLER_GONE, REQUEST_PREFIX, UNDECODABLE
from usher.engine.port import CaughtUp, EventLog, LogUnavailable
from usher.engine.settle import Settler
from usher.event import Undecodable
from usher.handler import Router
from usher.outcome import Dead
from usher.redact import scrub
from usher.sources import decode

if TYPE_CHECKING:
    from structlog.typing import FilteringBoundLogger

_REPLAYS_AT_ONCE = 100
_PATIENCE = 60
"""Tries, about a second each, to read back what dedupe goes by: a damaged record there must not keep a claim closed."""

DROPPED = "dropped"
"""What a replay is told that never ran because its claim went away: the next owner finds the request again."""


class Engine(Protocol):
    """What this needs of the driver."""

    def wake(self, shard: Shard, lane: Lane) -> None: ...
    def park_queue(self, shard: Shard, lane: Lane) -> None: ...
    def begin_replay(self, shard: Shard, flight: Flight) -> None: ...
    def forget(self, shard: Shard, flight: Flight) -> None: ...
    def spawn(self, shard: Shard, work: Coroutine[Any, Any, Any]) -> object: ...
    def now_ms(self) -> int: ...


class DedupeLimits(Protocol):
    """How far back dedupe reads when a claim begins: seconds, and records."""

    @property
    def dedupe_window(self) -> float: ...
    @property
    def dedupe_records(self) -> int: ...


@dataclass(frozen=True, slots=True)
class Tail:
    """Follows retry partitions on behalf of a worker. *opened* is awaited once a claim's table has caught up."""

    log: EventLog
    router: Router
    intake: Intake
    settler: Settler
    engine: Engine
    opened: Callable[[Shard], Awaitable[None]]
    limits: DedupeLimits
    logger: FilteringBoundLogger
    folding: asyncio.Lock = field(default_factory=asyncio.Lock)
    at_once: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(_REPLAYS_AT_ONCE))

    async def follow(self, shard: Shard) -> None:
        """Load the claim, open it, and hear what others write until cancelled."""
        async for part in self.log.parked(shard.claim):
            if isinstance(part, CaughtUp):
                await self._remember_recent(shard)
                for _ in shard.table.free_heads(self.engine.now_ms()):
                    await asyncio.sleep(0)
                await self.opened(shard)
                for request_id, request in list(shard.requests.items()):
                    self._carry_out(shard, request_id, request)
            elif shard.loaded:
                for record in part:
                    key = (record.key or b"").decode("utf-8", "replace")
                    if Head(record.headers).get(WRITER) != shard.writer or key in shard.doubtful:
                        self._listen(shard, record, key)
            else:
                async with (
                    self.folding
                ):  # one batch a turn of the loop, of however many claims: each is some milliseconds
                    shard.table.fold(self._changes(shard, part))
                    await asyncio.sleep(0)
            await asyncio.sleep(0)

    async def _remember_recent(self, shard: Shard) -> None:
        for _ in range(_PATIENCE):
            try:
                async for records in self.log.history(
                    shard.claim, self.limits.dedupe_window, self.limits.dedupe_records
                ):
                    self.intake.remember(shard, records)
                    await asyncio.sleep(0)
            except LogUnavailable as error:
                self.logger.warning("the log can't be read back, trying again", error=scrub(error))
                await asyncio.sleep(1)
            else:
                return
        self.logger.warning("dedupe does not know what came before this claim", partition=shard.claim.partition)

    # Parked deliveries

    def _changes(self, shard: Shard, records: Sequence[Record]) -> Iterator[tuple[str, ParkedRow | None]]:
        """What records from before the claim do to the table (rule 5)."""
        for record in records:
            key = (record.key or b"").decode("utf-8", "replace")
            if key.startswith(REQUEST_PREFIX):
                self._listen(shard, record, key)
            elif record.value is None:
                if offset_in(key) >= shard.position:
                    shard.known_done.add(key)
                yield key, None
            else:
                try:
                    row = ParkedRow.from_record(record, key)
                except ValueError as error:
                    self._foreign(record, error)
                    continue
                shard.known_done.discard(key)
                yield key, row

    def _listen(self, shard: Shard, record: Record, key: str) -> None:
        """Act on one record that was added."""
        try:
            delivery = None if record.value is None else Delivery.from_record(record)
        except ValueError as error:
            self._foreign(record, error)
            return
        if key.startswith(REQUEST_PREFIX):
            self._request(shard, key.removeprefix(REQUEST_PREFIX), delivery)
        else:
            self._hear(shard, key, delivery)

    def _foreign(self, record: Record, error: ValueError) -> None:
        self.logger.warning("a foreign record in the retry topic", offset=record.offset, error=scrub(error))

    def _hear(self, shard: Shard, key: str, delivery: Delivery | None) -> None:
        flight = shard.flights.get(key)
        if delivery is not None and shard.done_for_good(delivery):
            self.engine.spawn(shard, self.settler.answer_stranger(shard, delivery))
            return
        lane_key = delivery.lane_key if delivery else flight.delivery.lane_key if flight else shard.table.lane_of(key)
        if delivery is None:
            if offset_in(key) >= shard.position:
                shard.known_done.add(key)
            if flight is None:
                shard.table.remove(key)
        else:
            shard.table.merge(delivery)
        if flight is not None:
            self._overtaken(shard, flight, done=delivery is None)
        if lane_key is not None and (lane := shard.lane(lane_key)):
            if delivery is not None:
                self.engine.park_queue(shard, lane)
            self.engine.wake(shard, lane)
            shard.drop_if_empty(lane)

    def _overtaken(self, shard: Shard, flight: Flight, *, done: bool) -> None:
        """Another worker has handed over, or finished, what we hold in memory."""
        delivery = flight.delivery
        queue = shard.lane(delivery.lane_key).queue
        if flight in queue:
            queue.remove(flight)
            shard.ledger.settle(delivery.offset, delivery.handler)
            self.engine.forget(shard, flight)
        elif done:
            flight.done_elsewhere = True
        else:
            flight.parked = True

    # Requests

    def _request(self, shard: Shard, request_id: str, delivery: Delivery | None) -> None:
        if delivery is None:
            shard.requests.pop(request_id, None)
        elif request_id not in shard.requests and delivery.replay is not None:
            shard.requests[request_id] = delivery
            if shard.loaded:
                self._carry_out(shard, request_id, delivery)

    def _carry_out(self, shard: Shard, request_id: str, delivery: Delivery) -> None:
        """Run a request, unless the letter is being replayed, or was: two operators had one thought."""
        letter = delivery.replay.letter if delivery.replay else ""
        if letter in shard.replayed:
            self.engine.spawn(shard, self.settler.answer(shard, request_id))
            return
        shard.replayed.add(letter)
        self.engine.spawn(shard, self._replay(shard, delivery))

    async def _replay(self, shard: Shard, request: Delivery) -> None:
        """Carry out one request: run it, and take it out of the retry topic once what came of it is written."""
        if request.replay is None:
            return
        async with self.at_once:
            if not shard.open:
                return
            outcomes = await self._run(shard, await self._flights(shard, request))
        if {EXPIRED, HANDLER_GONE} & set(outcomes):
            shard.replayed.discard(request.replay.letter)  # refused: it may be asked for again
        if DROPPED not in outcomes and await self.settler.answer(shard, request.replay.id):
            shard.requests.pop(request.replay.id, None)

    async def _flights(self, shard: Shard, request: Delivery) -> list[Flight]:
        """What is to run: the delivery that failed; or, for bytes that no handler has seen, all that they are for."""
        if request.handler:
            return [Flight(request)]
        try:
            event = decode(request.value)
        except Undecodable as error:
            verdict = Dead(UNDECODABLE, UNDECODABLE, scrub(error), "usher.event.Undecodable")
            again = replace(request, error=verdict.error, error_type=verdict.error_type)
            await self.settler.bury(shard, Flight(again), verdict, None)
            return []
        found = list(flights(event, request.origin, request.value, self.router.match(event)))
        if not found:
            await self.settler.note(
                shard, request, "replayed", f"no handler runs for it: {self.router.why_filtered(event)}"
            )
        for flight in found:
            flight.delivery = replace(flight.delivery, replay=request.replay, replays=request.replays)
        return found

    async def _run(self, shard: Shard, found: Sequence[Flight]) -> list[str]:
        ends: list[asyncio.Future[str]] = []
        for flight in found:
            end: asyncio.Future[str] = asyncio.get_running_loop().create_future()
            flight.ended = partial(_tell, end)
            ends.append(end)
            self.engine.begin_replay(shard, flight)
        return list(await asyncio.gather(*ends))


def _tell(end: asyncio.Future[str], outcome: str) -> None:
    if not end.done():
        end.set_result(outcome)
