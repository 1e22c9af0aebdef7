"""Lanes: the deliveries of one handler for one user, and which of them may run next.

The head of a lane is its lowest source offset among the deliveries that are queued, being parked, parked and in flight. Only
the head runs (rule 1). Nothing here waits or writes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

from usher.context import Outgoing
from usher.delivery import Delivery
from usher.engine.deadline import Limit
from usher.engine.parking_table import ParkingTable
from usher.event import Event

DROPPED = "dropped"
"""The outcome of a replay that did not run because its claim went away: the next owner finds the request again."""


@dataclass(slots=True, eq=False)
class InFlight:
    """A delivery in flight: queued, running, or its verdict being written.

    *event* is None where the bytes are still to be decoded. *message* is what the last attempt was to send. *parked*: the
    delivery is in the retry partition. *done_elsewhere*: another worker has said meanwhile that it is done. *outcome* is for a
    replay: it gets the label of the verdict, or `DROPPED`. *place* is where `ClaimState.in_flight` has it, while it counts in the
    limits of memory. *limit* is the timeout of the attempt that runs. *keeping* parks the delivery where it is, and ends before
    anything else is written about it. *settling*: its attempt has ended, and the verdict is being carried out. *done*: its
    attempt has ended it, or there was none because it is *done_elsewhere*. *leaving* is there where something waits until it has
    left its lane.
    """

    delivery: Delivery
    event: Event | None = None
    message: Outgoing | None = None
    parked: bool = False
    done_elsewhere: bool = False
    outcome: asyncio.Future[str] | None = None
    place: tuple[str, int] | str | None = None
    limit: Limit | None = None
    keeping: asyncio.Task[None] | None = None
    settling: bool = False
    done: bool = False
    leaving: asyncio.Future[None] | None = None

    @property
    def sent(self) -> bool:
        """Whether a provider is known to have the message: of the last attempt, or of an earlier one."""
        return self.message is not None and self.message.state == "sent"

    @property
    def accepted(self) -> Outgoing | None:
        """The message that a provider has accepted in the last attempt. One that it had before is not sent again, and never rendered."""
        return self.message if self.message is not None and self.sent and self.message.provider else None

    def left(self) -> asyncio.Future[None]:
        """Return what is done when it has left its lane, for one of those that wait for that: few have any."""
        if self.leaving is None:
            self.leaving = asyncio.get_running_loop().create_future()
        return self.leaving


@dataclass(slots=True)
class Lane:
    """The queue of one lane in one claim. *parking* are the offsets whose park record is being written."""

    key: str
    queue: list[InFlight] = field(default_factory=list)
    replays: list[InFlight] = field(default_factory=list)
    parking: set[int] = field(default_factory=set)
    driven: bool = False

    def take_head(self, table: ParkingTable, position: int, clock: Callable[[], int]) -> InFlight | None:
        """Take the head out of the lane for an attempt; None while it must wait.

        *table* and *position* are the parking table and the source position of the claim, *clock* gives Unix milliseconds.
        """
        if self.replays:
            return self.replays.pop(0)
        parked = table.first(self.key)
        first_parking = min(self.parking) if self.parking else None
        if self.queue:
            offset = self.queue[0].delivery.offset
            if (parked is None or offset < parked.offset) and (first_parking is None or offset < first_parking):
                return self.queue.pop(0)  # it is short, and a deque takes 0.6 kB even with one
            return None  # it is being parked behind an earlier one
        if parked is None or (first_parking is not None and first_parking <= parked.offset):
            return (
                None  # or it is being parked itself: that write must not come after the one that its attempt leads to
            )
        now = clock()
        if parked.offset >= position:  # rule 7: it waits until the source was read past it, and is due then
            if parked.due is None:
                table.postpone(parked.key, now, now)
            return None
        if parked.due is not None and parked.due > now:
            return None
        return InFlight(table.take(parked.key), parked=True)
