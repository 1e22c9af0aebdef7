"""Decide the fate of each delivery of an event, from what the event log has of it.

A delivery that is done leaves no record. It is known by its offset, which lies before the commit (or which the Mark names as
done), and by the delivery being neither parked nor dead. So a fate is looked up in this order: the parking table, the dead
letters, the commit.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

from usher.delivery import Delivery, delivery_key
from usher.engine.ledger import Mark, handlers_hash
from usher.event import Event, EventUid
from usher.eventlog.browse import Committed
from usher.eventlog.port import TopicPartition
from usher.handler import Router, Ruling
from usher.operate.dead_letters import DeadLetterEntry


@dataclass(frozen=True, slots=True)
class Sighting:
    """One arrival of the event. *event* is None if the source topic does not have it any more; *stored_at*: Unix milliseconds.

    Not *committed*: it is in the topic, and an open transaction keeps it from being read.
    """

    topic_partition: TopicPartition
    offset: int
    stored_at: int
    uid: EventUid
    event: Event | None
    duplicate_of: int | None = None
    committed: bool = True


@dataclass(frozen=True, slots=True)
class Fate:
    """What became of one delivery: *state* is one or two words, *detail* the reason; other fields are set where they apply.

    *due* is when a parked delivery is tried again, in Unix milliseconds.
    """

    sighting: Sighting
    handler: str
    state: str
    detail: str
    attempt: int = 0
    due: int | None = None
    error: str = ""
    dead_letter: str = ""


@dataclass(slots=True)
class Traces:
    """All that the event log has of the events, beside the source records."""

    committed: dict[TopicPartition, Committed] = field(default_factory=dict)
    parked: dict[tuple[str, str], Delivery] = field(default_factory=dict)
    unparked: set[tuple[str, str]] = field(default_factory=set)
    foreign: dict[tuple[str, str], str] = field(default_factory=dict)
    """What is wrong with records in the retry topic that Usher did not write."""
    dead_letters: dict[tuple[str, str], DeadLetterEntry] = field(default_factory=dict)

    def deliveries(self) -> Iterator[Delivery]:
        """Yield the deliveries that are parked or dead."""
        yield from self.parked.values()
        yield from (entry.dead_letter.delivery for entry in self.dead_letters.values())


def fates(sighting: Sighting, router: Router, traces: Traces) -> Iterator[Fate]:
    """Yield the fate of each delivery of one arrival, by handler."""
    rulings: Mapping[str, Ruling] = {}
    if sighting.event is not None:
        rulings = {ruling.handler.name: ruling for ruling in router.explain(sighting.event)}
    strangers = {
        delivery.handler
        for delivery in traces.deliveries()
        if (delivery.origin.topic, delivery.origin.partition, delivery.offset)
        == (*sighting.topic_partition, sighting.offset)
    }
    for handler in sorted({*rulings, *strangers}):
        fate = _known(sighting, handler, traces)
        if fate is None and handler in rulings:
            fate = _by_commit(sighting, handler, rulings[handler], router, traces)
        if fate is not None:
            yield _beside_foreign(fate, traces)


def _beside_foreign(fate: Fate, traces: Traces) -> Fate:
    """Return *fate*, with what a foreign record says that lies under the key of the delivery: workers pass over it."""
    (topic, partition), offset = fate.sighting.topic_partition, fate.sighting.offset
    wrong = traces.foreign.get((topic, delivery_key(fate.handler, fate.sighting.uid, partition, offset)))
    if wrong is None:
        return fate
    passed_over = f"a foreign record under its key in the retry topic is passed over: {wrong}"
    return replace(fate, detail=f"{fate.detail}; {passed_over}".removeprefix("; "))


def _known(sighting: Sighting, handler: str, traces: Traces) -> Fate | None:
    """Return the fate that a parked delivery, a dead letter or a tombstone shows, if there is one."""
    topic, partition = sighting.topic_partition
    key = (topic, delivery_key(handler, sighting.uid, partition, sighting.offset))
    if (delivery := traces.parked.get(key)) is not None:
        detail = "once it is the first of its user" if delivery.due is None else ""
        return Fate(sighting, handler, "parked", detail, delivery.attempt, delivery.due, delivery.error)
    if (entry := traces.dead_letters.get(key)) is not None:
        return _of_dead_letter(sighting, entry)
    if key in traces.unparked:
        return Fate(sighting, handler, "settled", "it had been parked, and is done")
    return None


def _of_dead_letter(sighting: Sighting, entry: DeadLetterEntry) -> Fate:
    dead_letter = entry.dead_letter
    state = {"open": "dead", "refused": "dead", "requested": "replay requested"}.get(
        dead_letter.state, dead_letter.state
    )
    detail = (
        dead_letter.reason
        if dead_letter.state == "open"
        else f"{dead_letter.reason}; {dead_letter.state} {dead_letter.note}".rstrip()
    )
    return Fate(
        sighting,
        dead_letter.handler,
        state,
        detail,
        dead_letter.delivery.attempt,
        error=dead_letter.delivery.error,
        dead_letter=entry.name,
    )


def _by_commit(sighting: Sighting, handler: str, ruling: Ruling, router: Router, traces: Traces) -> Fate:
    """Return the fate that the commit shows, for a delivery that left no other trace."""
    if not ruling.runs:
        return Fate(sighting, handler, "filtered", ruling.condition)
    if not sighting.committed:
        return Fate(sighting, handler, "waiting", "not committed yet: a transaction is open, and holds the partition")
    if sighting.duplicate_of is not None:
        return Fate(sighting, handler, "filtered", f"duplicate of offset {sighting.duplicate_of}")
    commit, offset = traces.committed.get(sighting.topic_partition), sighting.offset
    if commit is None or commit.next is None:
        return Fate(sighting, handler, "waiting", "the group has committed nothing here yet")
    if offset < commit.next:
        return Fate(sighting, handler, "settled", f"{ruling.condition}; done, and neither parked nor dead")
    mark = Mark.decode(commit.mark, commit.next)
    if mark is None or offset >= mark.seen:
        return Fate(sighting, handler, "waiting", f"not read as of the last commit, at {commit.next}")
    names = sorted(router.handlers)
    bit = 1 << names.index(handler)
    valid = mark.handlers == handlers_hash(names)
    if offset in mark.undone and not (valid and mark.undone[offset] & bit):
        return Fate(sighting, handler, "waiting", "read, and not done as of the last commit")
    return Fate(sighting, handler, "settled", f"{ruling.condition}; done, and neither parked nor dead")
