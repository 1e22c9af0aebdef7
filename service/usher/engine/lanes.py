"""Lanes: which delivery of one (handler, tenant, user) may run next.

A lane's head is its lowest source offset among queued, being parked, parked and in flight; only the head runs. This
module holds the state of one claim (`ClaimState`) and answers that question; it neither waits nor writes.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import Any

from usher.delivery import Delivery, offset_in
from usher.engine.claims import Ledger
from usher.engine.deadline import Limit
from usher.engine.parked import ParkedTable
from usher.event import Event, EventUid
from usher.eventlog.port import Batch, Claim, Position

_RECENT_LIMIT = 100_000


@dataclass(slots=True, eq=False)
class InFlight:
    """A delivery on its way: queued, running, or its verdict being written.

    *event* is None where the bytes are still to be decoded. *parked*: the retry partition holds it. *done_elsewhere*:
    another worker said meanwhile that it is done. *ended* is told the outcome of a replay. *counted*: in the memory limits.
    *limit* is the timeout of the attempt that runs.
    """

    delivery: Delivery
    event: Event | None = None
    parked: bool = False
    done_elsewhere: bool = False
    ended: Callable[[str], None] | None = None
    counted: bool = False
    limit: Limit | None = None


@dataclass(slots=True)
class Lane:
    """The queue of one lane in one claim. *parking* are the offsets whose parking is being written."""

    key: str
    queue: deque[InFlight] = field(default_factory=deque)
    replays: deque[InFlight] = field(default_factory=deque)
    parking: set[int] = field(default_factory=set)
    driven: bool = False

    @property
    def empty(self) -> bool:
        return not (self.queue or self.replays or self.parking or self.driven)


class Recent:
    """The events seen lately in one partition: a second arrival within *window* seconds is a duplicate."""

    def __init__(self, window: float) -> None:
        self._window = int(window * 1000)
        self._seen: OrderedDict[EventUid, tuple[int, int]] = OrderedDict()

    def duplicate(self, uid: EventUid, offset: int, timestamp: int) -> bool:
        """Whether an earlier record held this event; remembers it otherwise. *timestamp* is in Unix milliseconds."""
        known = self._seen.get(uid)
        if known is not None and known[0] < offset and timestamp - known[1] <= self._window:
            return True
        if known is None or known[0] < offset:
            self._seen[uid] = (offset, timestamp)
            self._seen.move_to_end(uid)
            self._prune(timestamp)
        return False

    def _prune(self, now: int) -> None:
        while self._seen:
            _, timestamp = next(iter(self._seen.values()))
            if now - timestamp <= self._window and len(self._seen) <= _RECENT_LIMIT:
                return
            self._seen.popitem(last=False)


class ClaimState:
    """All that is known of one claim while it is ours."""

    def __init__(self, claim: Claim, writer: str, handlers: Collection[str], window: float) -> None:
        self.claim = claim
        self.writer = writer.encode()
        self.handlers = frozenset(handlers)
        self.ledger = Ledger(claim.start, claim.mark, handlers)
        self.table = ParkedTable()
        self.recent = Recent(window)
        self.lanes: dict[str, Lane] = {}
        self.in_flight: dict[str, InFlight] = {}
        self.known_done: set[str] = set()
        self.doubtful: set[str] = set()
        """Deliveries of which a park record was refused: it may be written all the same, long after what we wrote since."""
        self.requests: dict[str, Delivery] = {}
        self.replayed: set[str] = set()
        self.tasks: set[asyncio.Task[Any]] = set()
        self.follower: asyncio.Task[None] | None = None
        self.releasing: asyncio.Task[None] | None = None
        self.loaded = False
        self.open = False
        self.ours = True
        self.committed: Position | None = None
        self.calm_at = 0
        self.undecodable: deque[int] = deque()
        self.records = 0
        self.backlog: Batch | None = None
        """What was read and not taken in, because the partition rests until `rests_until` (Unix milliseconds)."""
        self.rests_until = 0

    @property
    def position(self) -> int:
        """The source position: parked deliveries at or past it have to wait until it moves."""
        return self.ledger.position

    def lane(self, key: str) -> Lane:
        lane = self.lanes.get(key)
        if lane is None:
            lane = self.lanes[key] = Lane(key)
        return lane

    def forget_passed(self) -> None:
        """What is known to be done matters only until the source was read past it: then the ledger knows."""
        if self.known_done:
            self.known_done = {key for key in self.known_done if offset_in(key) >= self.position}

    def drop_if_empty(self, lane: Lane) -> None:
        if lane.empty:
            self.lanes.pop(lane.key, None)

    def next_in(self, lane: Lane, now: int) -> InFlight | None:
        """The head of the lane, taken out for an attempt; None while it must wait. *now* is in Unix milliseconds."""
        if lane.replays:
            return lane.replays.popleft()
        parked = self.table.first(lane.key)
        first_parking = min(lane.parking, default=None)
        if lane.queue:
            offset = lane.queue[0].delivery.offset
            if (parked is None or offset < parked.offset) and (first_parking is None or offset < first_parking):
                return lane.queue.popleft()
            return None  # it is being parked behind what stands before it
        if parked is None or (first_parking is not None and first_parking <= parked.offset):
            return None  # or it is itself being parked: what we write now must not come after what becomes of it
        if parked.offset >= self.position:  # rule 7: it waits until the source was read past it, and is due then
            if parked.due is None:
                self.table.postpone(parked.key, now)
            return None
        if parked.due is not None and parked.due > now:
            return None
        return InFlight(self.table.take(parked.key), parked=True)

    def done_for_good(self, delivery: Delivery) -> bool:
        """Whether it is known that nothing is left to do for a delivery: only then may a stranger's word be overruled.

        What lies before the position, is not pending and not parked, was settled: by us, or by whoever committed it.
        """
        if delivery.key in self.known_done:
            return True
        return (
            delivery.handler in self.handlers  # of another's handler we know nothing
            and self.ledger.passed(delivery.offset)
            and not self.ledger.waits_for(delivery.offset, delivery.handler)
            and delivery.key not in self.table
        )
