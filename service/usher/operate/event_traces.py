"""What became of an event as a whole: its arrivals, and the fates of its deliveries, from what was found of it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from usher.event import Event, EventUid
from usher.eventlog.port import TopicPartition
from usher.operate.fates import Fate, Judge, uid_of
from usher.operate.sightings import Sighting, Spot
from usher.operate.traces import Traces, spot_of
from usher.receipts import Ended, Receipt, ended

Place = tuple[EventUid, Spot]
"""An arrival of an event. A place alone says nothing: in a topic that is made anew another event has it."""


@dataclass(slots=True)
class EventTrace:
    """What became of one event. *user_id* and *username* are in the form that receipts keep where the event itself is gone.

    *ruled*: why no handler runs for it, by the rules of now; empty where one does. *stored_at* is in Unix milliseconds.
    """

    uid: EventUid
    type: str = ""
    user_id: str = ""
    username: str = ""
    stored_at: int = 0
    places: list[Spot] = field(default_factory=list)
    fates: list[Fate] = field(default_factory=list)
    ruled: str = ""


def gathered(
    sightings: Iterable[Sighting], receipts: Iterable[Receipt], judge: Judge, *, everything: bool = False
) -> list[EventTrace]:
    """Return what became of each event, from its arrivals."""
    events: dict[EventUid, EventTrace] = {}
    for sighting in sightings:
        trace = events.setdefault(sighting.uid, EventTrace(sighting.uid, stored_at=sighting.stored_at))
        trace.places.append(sighting.spot)
        trace.fates += judge.fates(sighting, everything=everything)
        if sighting.event is not None:
            _describe(trace, sighting.event)
            trace.ruled = (
                ""
                if any(rule.runs for rule in judge.rulings(sighting.event).values())
                else _ruled(trace, judge, sighting)
            )
    for receipt in receipts:
        if (known := events.get(uid_of(receipt))) is not None:
            known.type = known.type or receipt.type
            known.user_id, known.username = known.user_id or receipt.user_id, known.username or receipt.username
    return list(events.values())


def _describe(trace: EventTrace, event: Event) -> None:
    trace.type = event.type
    trace.user_id = event.user.id or event.context.user_id or ""
    trace.username = event.user.username or ""


def _ruled(trace: EventTrace, judge: Judge, sighting: Sighting) -> str:
    """Return the rule by which no handler runs: of those that are for the type of the event, where there are any."""
    reasons = [fate.reason for fate in trace.fates if fate.state == "filtered" and fate.sighting is sighting]
    of_type = [reason for reason in reasons if reason.startswith("triggered by")]
    if of_type:
        return of_type[0]
    wanted = {type_ for handler in judge.router.handlers.values() for type_ in handler.types}
    return "" if trace.type in wanted else f"no handler is for {trace.type}"


def receipt_spot(receipt: Receipt) -> Spot:
    """Return the place of the source record of a receipt."""
    return Spot(TopicPartition(receipt.topic, receipt.partition), receipt.offset)


def endings(receipts: Iterable[Receipt]) -> dict[EventUid, dict[Spot, dict[str, Ended]]]:
    """Return what receipts say, by event, place and handler."""
    found: dict[EventUid, dict[Spot, dict[str, Ended]]] = {}
    for each in ended(receipts):
        last = each.receipt
        found.setdefault(uid_of(last), {}).setdefault(receipt_spot(last), {})[last.handler] = each
    return found


def known_sightings(receipts: Iterable[Receipt], traces: Traces) -> dict[Place, Sighting]:
    """Return the arrivals that receipts, parked deliveries and dead letters are about."""
    found: dict[Place, Sighting] = {}
    for receipt in receipts:
        uid, spot = uid_of(receipt), receipt_spot(receipt)
        found.setdefault((uid, spot), Sighting(*spot, receipt.stored_at, uid, None))
    for delivery in traces.deliveries():
        uid, spot = delivery.uid, spot_of(delivery)
        found.setdefault((uid, spot), Sighting(*spot, delivery.origin.timestamp, uid, None))
    return found


def repeats(sightings: Iterable[Sighting], window: float) -> dict[Spot, Spot]:
    """Return for each arrival that repeats another of its partition within *window* seconds which one it is."""
    first: dict[tuple[TopicPartition, EventUid], Sighting] = {}
    found: dict[Spot, Spot] = {}
    for sighting in sightings:
        key = (sighting.topic_partition, sighting.uid)
        earlier = first.get(key)
        if earlier is not None and sighting.stored_at - earlier.stored_at <= window * 1000:
            found[sighting.spot] = earlier.spot
        else:
            first[key] = sighting
    return found
