"""The state of one claim: everything that a worker knows of it while it has it."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Collection, Coroutine
from dataclasses import dataclass, field
from typing import Any

from usher.delivery import BEFORE_ALL, Delivery, offset_in
from usher.delivery.headers import TOPIC_ID, Head
from usher.engine.dedupe import Recent
from usher.engine.lanes import InFlight, Lane
from usher.engine.ledger import Ledger
from usher.engine.parking_table import ParkingTable
from usher.eventlog.port import Batch, Claim, Position
from usher.receipts import Receipt


@dataclass(eq=False, slots=True)
class Unfiled:
    """The receipts of a claim that the event log has not acknowledged yet, in the order in which they were made."""

    receipts: list[Receipt] = field(default_factory=list)
    made: int = 0
    """How many there have been, those that are filed included."""
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Who has it files them."""
    trouble: str = ""
    """Why they can't be filed; empty while they can, as far as is known."""

    def add(self, receipt: Receipt) -> None:
        self.receipts.append(receipt)
        self.made += 1

    @property
    def filed(self) -> int:
        return self.made - len(self.receipts)


@dataclass(eq=False)
class ClaimState:
    """The state of one claim. *failed* is called with an exception that no part of the engine expected."""

    claim: Claim
    writer: bytes
    handlers: Collection[str]
    recent: Recent
    failed: Callable[[BaseException], None]
    ledger: Ledger = field(init=False)
    table: ParkingTable = field(default_factory=ParkingTable, init=False)
    lanes: dict[str, Lane] = field(default_factory=dict, init=False)
    in_flight: dict[tuple[str, int] | str, InFlight] = field(default_factory=dict, init=False)
    """By handler and offset: most deliveries end before anything needs their key. `enter` adds to it, `find` finds by key."""
    known_done: set[str] = field(default_factory=set, init=False)
    done_earlier: set[str] = field(default_factory=set, init=False)
    """What is known to be done of earlier topics of the same name."""
    doubtful: set[str] = field(default_factory=set, init=False)
    """Deliveries of which a park record was refused: it may land all the same, long after our later writes."""
    requests: dict[str, Delivery] = field(default_factory=dict, init=False)
    replayed: set[str] = field(default_factory=set, init=False)
    tasks: set[asyncio.Task[Any]] = field(default_factory=set, init=False)
    follower: asyncio.Task[None] | None = field(default=None, init=False)
    releasing: asyncio.Task[None] | None = field(default=None, init=False)
    loaded: bool = field(default=False, init=False)
    open: bool = field(default=False, init=False)
    """Whether deliveries may begin."""
    ours: bool = field(default=True, init=False)
    """Whether the claim is still ours: what ends later is not in our last commit (rule 9)."""
    lost: bool = field(default=False, init=False)
    """Whether the event log has said that the claim is another's."""
    committed: Position | None = field(default=None, init=False)
    calm_at: float = field(default=0.0, init=False)
    """When it has lived for a while, by the clock of the loop."""
    undecodable: deque[int] = field(default_factory=deque, init=False)
    records: int = field(default=0, init=False)
    backlog: Batch | None = field(default=None, init=False)
    """Records that were read and not taken in, because the partition rests until `rests_until` (by the clock of the loop)."""
    rests_until: float = field(default=0.0, init=False)
    unfiled: Unfiled = field(default_factory=Unfiled, init=False)

    def __post_init__(self) -> None:
        self.ledger = Ledger(self.claim.start, self.claim.mark, self.handlers)

    def close(self) -> None:
        """Let nothing new begin. Ends the attempts whose message waits for its turn: nothing of it has left, the next owner makes them."""
        self.open = False
        for in_flight in self.in_flight.values():
            if in_flight.limit is not None:
                in_flight.limit.end_waiting()

    def lose(self) -> None:
        """The event log says that the claim is another's: nothing is written for it any more but successes, as tombstones (rule 9)."""
        self.lost, self.ours = True, False
        self.close()

    @property
    def position(self) -> int:
        """The source position: parked deliveries at or past it have to wait until it moves."""
        return self.ledger.position

    def enter(self, in_flight: InFlight) -> bool:
        """Let a delivery be in flight. Returns whether it is now, and was not: of those with one key only the first is."""
        if in_flight.place is not None:
            return False
        delivery = in_flight.delivery
        place: tuple[str, int] | str = (delivery.handler, delivery.offset)
        first = self.in_flight.setdefault(place, in_flight)
        if first is not in_flight and first.delivery.key != delivery.key:  # of two earlier topics, or forged
            place = delivery.key
            first = self.in_flight.setdefault(place, in_flight)
        if first is in_flight:
            in_flight.place = place
        return first is in_flight

    def find(self, key: str) -> InFlight | None:
        """Return the delivery in flight with this key."""
        handler, offset = key.rsplit("/", 3)[0], offset_in(key)
        for place in ((handler, offset), (handler, offset - BEFORE_ALL), key):
            found = self.in_flight.get(place)
            if found is not None and found.delivery.key == key:
                return found
        return None

    def lane(self, key: str) -> Lane:
        lane = self.lanes.get(key)
        if lane is None:
            lane = self.lanes[key] = Lane(key)
        return lane

    def drop_if_empty(self, lane: Lane) -> None:
        if not (lane.queue or lane.replays or lane.parking or lane.driven):
            self.lanes.pop(lane.key, None)

    def forget_passed(self) -> None:
        """Forget the deliveries that are known to be done once the source was read past them: then the ledger knows."""
        if self.known_done:
            self.known_done = {key for key in self.known_done if offset_in(key) >= self.position}

    def of_earlier_topic(self, head: Head) -> bool:
        """Return whether a record of ours with these headers is about an earlier topic of the same name."""
        topic_id = head.get(TOPIC_ID)
        return self.claim.remade if topic_id is None else topic_id != self.claim.topic_id.encode()

    def answered(self, in_flight: InFlight) -> bool:
        """Return whether it is a replay whose request was answered meanwhile: its earlier owner was done with it."""
        replay = in_flight.delivery.replay
        return in_flight.outcome is not None and replay is not None and replay.id not in self.requests

    def done_for_good(self, delivery: Delivery) -> bool:
        """Return whether nothing is left to do for a delivery: only then may another worker's record be overruled.

        A delivery before the position that is neither pending nor parked was settled: here, or by the owner that committed it.
        """
        if delivery.earlier:  # of an earlier topic neither the ledger nor a tombstone of this one says anything
            return delivery.key in self.done_earlier
        if delivery.key in self.known_done:
            return True
        return (
            delivery.handler in self.handlers  # of a handler that is not ours we know nothing
            and self.ledger.passed(delivery.offset)
            and not self.ledger.waits_for(delivery.offset, delivery.handler)
            and delivery.key not in self.table
        )

    def spawn(self, work: Coroutine[Any, Any, Any], *, kept: bool = True) -> asyncio.Task[Any]:
        """Start a task of the claim. *kept*: the claim is not released before the task has ended."""
        task = asyncio.create_task(work)
        if kept:
            self.tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self.tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self.failed(error)
