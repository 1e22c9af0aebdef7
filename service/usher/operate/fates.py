"""Decide the fate of each delivery of an event, from what the event log has of it.

What has ended has a receipt. Where there is none, a fate is looked up in this order: the parking table, the dead letters, the
filter, where the group began, and the commit with its Mark.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import cast

from usher.delivery import Delivery
from usher.engine.ledger import Mark, handlers_hash
from usher.event import Event, EventUid
from usher.handler import Handler, Router, Ruling
from usher.operate.dead_letters import DeadLetterEntry
from usher.operate.sightings import Sighting, Spot
from usher.operate.traces import Traces, key_at
from usher.receipts import RANKS, Ended, HistoryEntry, Receipt, State

SETTLED = "settled"
"""It is done as of the commit: whether it is a duplicate, or its receipt is gone, is decided after that."""


@dataclass(frozen=True, slots=True)
class Fate:
    """What became of one delivery. *state* is one of those that docs/receipts.md lists, *reason* says why. Times are in Unix milliseconds.

    *dead_letter* is the name of an open dead letter. *behind* is the key of the delivery that it waits behind.
    """

    sighting: Sighting
    handler: str
    state: str
    reason: str = ""
    at: int = 0
    attempts: int = 0
    due: int | None = None
    channel: str = ""
    provider: str = ""
    provider_id: str = ""
    template: str = ""
    language: str = ""
    history: tuple[HistoryEntry, ...] = ()
    dead_letter: str = ""
    behind: str = ""


@dataclass(frozen=True, slots=True)
class Findings:
    """What receipts, places and times say about the events, beside the `Traces`."""

    ended: Mapping[EventUid, Mapping[Spot, Mapping[str, Ended]]] = field(default_factory=dict)
    """What receipts say, by event, place and handler."""
    earlier: Mapping[Spot, Spot] = field(default_factory=dict)
    """For an arrival the earlier one that it repeats within the window of duplicates."""
    before: Mapping[Spot, int] = field(default_factory=dict)
    """For an arrival that is not read yet, how many records have to be read before it."""
    keep: str = ""
    """How long receipts are kept, as text; empty: they are off."""


def of_receipt(sighting: Sighting, ended: Ended) -> Fate:
    """Return the fate that receipts say."""
    last = ended.receipt
    return Fate(
        sighting, last.handler, last.state, last.reason, last.at, last.attempts, None, last.channel, last.provider, last.provider_id,
        last.template, last.language, ended.history,
    )  # fmt: skip


def of_parked(sighting: Sighting, delivery: Delivery, traces: Traces) -> Fate:
    """Return the fate of what is parked."""
    behind = traces.ahead_of(delivery)
    at = delivery.failed_at or 0
    return Fate(sighting, delivery.handler, "parked", delivery.error, at, delivery.attempt, delivery.due, behind=behind)


def of_dead_letter(sighting: Sighting, entry: DeadLetterEntry) -> Fate:
    """Return the fate that a dead letter says."""
    dead_letter = entry.dead_letter
    state = {"replayed": "replayed", "dropped": "dropped"}.get(
        dead_letter.state, {"expired": "expired", "unknown-outcome": "unknown"}.get(dead_letter.reason, "dead")
    )
    parts = [dead_letter.reason, dead_letter.delivery.error]
    if dead_letter.state == "requested":
        parts.append(f"a replay is requested {dead_letter.note}".rstrip())
    elif dead_letter.state in {"refused", "replaced"}:
        parts.append(f"{dead_letter.state} {dead_letter.note}".rstrip())
    name = entry.name if entry.open else ""
    return Fate(
        sighting, dead_letter.handler, state, ": ".join(filter(None, parts)), dead_letter.at,
        dead_letter.delivery.attempt, dead_letter=name,
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Judge:
    """Decides fates, by the handlers of now."""

    router: Router
    traces: Traces
    findings: Findings

    def fates(self, sighting: Sighting, *, everything: bool = False) -> Iterator[Fate]:
        """Yield the fate of each delivery of one arrival, by handler. *everything*: also of handlers for other types of events."""
        rulings = self.rulings(sighting.event)
        for handler in sorted({*rulings, *self._known_handlers(sighting)}):
            fate = self._known(sighting, handler)
            if fate is None and handler in rulings:
                ruling = rulings[handler]
                if sighting.event is None or not (everything or sighting.event.type in ruling.handler.types):
                    continue
                fate = self._unknown(sighting, handler, ruling)
            if fate is not None:
                yield self._beside_foreign(fate)

    def rulings(self, event: Event | None) -> Mapping[str, Ruling]:
        """Return what decides for each handler whether it runs for *event*."""
        return {} if event is None else {ruling.handler.name: ruling for ruling in self.router.explain(event)}

    def _known_handlers(self, sighting: Sighting) -> Iterable[str]:
        yield from self.findings.ended.get(sighting.uid, {}).get(sighting.spot, ())
        yield from self.traces.handlers_at(sighting.uid, sighting.spot)

    def _known(self, sighting: Sighting, handler: str) -> Fate | None:
        """Return the fate that a receipt, a parked delivery, a dead letter or a tombstone shows, if there is one."""
        key = key_at(sighting.spot, sighting.uid, handler)
        ended = self.findings.ended.get(sighting.uid, {}).get(sighting.spot, {}).get(handler)
        parked = self.traces.parked.get(key)
        if parked is not None and not (ended and _ended(parked, ended)):
            return replace(of_parked(sighting, parked, self.traces), history=ended.history if ended else ())
        entry = self.traces.dead_letters.get(key)
        dead = None if entry is None else of_dead_letter(sighting, entry)
        if ended is not None:
            return _together(of_receipt(sighting, ended), dead)
        if dead is not None:
            return dead
        return self._without_receipt(sighting, handler) if key in self.traces.unparked else None

    def _unknown(self, sighting: Sighting, handler: str, ruling: Ruling) -> Fate:
        """Return the fate of a delivery that has left nothing behind."""
        event = sighting.event
        if event is not None and not ruling.runs:
            return Fate(sighting, handler, "filtered", f"{rule(event, ruling.handler)} (by the rules of now)")
        if not sighting.committed:
            return Fate(
                sighting, handler, "not-read", "not committed yet: a transaction is open, and holds the partition"
            )
        start = self.traces.starts.get(sighting.topic_partition)
        if start is not None and sighting.offset < start.offset:
            return Fate(sighting, handler, "before-start", f"the group began at offset {start.offset}", start.at)
        state = self._by_commit(sighting, handler)
        if state == SETTLED:
            return self._without_receipt(sighting, handler)
        if state == "running":
            return Fate(sighting, handler, state, "read, and not done as of the last commit")
        return Fate(sighting, handler, state, self._unread(sighting))

    def _unread(self, sighting: Sighting) -> str:
        commit = self.traces.committed.get(sighting.topic_partition)
        if commit is None or commit.next is None:
            return "the group has committed nothing here yet"
        count = self.findings.before.get(sighting.spot, 0)
        return "it is the next to be read" if not count else f"{count:,} record{'s' * (count > 1)} to be read before it"

    def _without_receipt(self, sighting: Sighting, handler: str) -> Fate:
        """Return the fate of what is done, and has no receipt."""
        for spot, handlers in self.findings.ended.get(sighting.uid, {}).items():
            if spot != sighting.spot and handler in handlers:
                return Fate(sighting, handler, "duplicate", f"it repeats {_place(spot)}", sighting.stored_at)
        if (earlier := self.findings.earlier.get(sighting.spot)) is not None:
            return Fate(sighting, handler, "duplicate", f"it repeats {_place(earlier)}", sighting.stored_at)
        why = f"receipts are kept for {self.findings.keep}" if self.findings.keep else "receipts are off"
        return Fate(sighting, handler, "no-receipt", f"done, and neither parked nor dead; {why}")

    def _by_commit(self, sighting: Sighting, handler: str) -> str:
        """Return how far the commit says that a delivery has come: ``settled``, ``running`` or ``not-read``."""
        commit, offset = self.traces.committed.get(sighting.topic_partition), sighting.offset
        if commit is None or commit.next is None:
            return "not-read"
        if offset < commit.next:
            return SETTLED
        mark = Mark.decode(commit.mark, commit.next)
        if mark is None or offset >= mark.seen:
            return "not-read"
        names = sorted(self.router.handlers)
        bit = 1 << names.index(handler)
        valid = mark.handlers == handlers_hash(names)
        undone = offset in mark.undone and not (valid and mark.undone[offset] & bit)
        return "running" if undone else SETTLED

    def _beside_foreign(self, fate: Fate) -> Fate:
        """Return *fate*, with what a foreign record says that lies under the key of the delivery: workers pass over it."""
        wrong = self.traces.foreign.get(key_at(fate.sighting.spot, fate.sighting.uid, fate.handler))
        if wrong is None:
            return fate
        passed_over = f"a foreign record under its key in the retry topic is passed over: {wrong}"
        return replace(fate, reason=f"{fate.reason}; {passed_over}".removeprefix("; "))


def _together(fate: Fate, dead: Fate | None) -> Fate:
    """Return what the receipts and a dead letter say: the error is in the dead letter, and so is what an operator did with it."""
    if dead is None or RANKS[cast("State", dead.state)] < RANKS[cast("State", fate.state)]:
        return fate
    at = max(fate.at, dead.at) if dead.state == fate.state else dead.at
    return replace(fate, state=dead.state, reason=dead.reason, at=at, dead_letter=dead.dead_letter)


def rule(event: Event, handler: Handler) -> str:
    """Return the rule by which *handler* does not run for *event*."""
    if event.type not in handler.types:
        return f"for {_or(handler.types)}, not {event.type}"
    return f"triggered by {event.context.triggered_by}, not {_or(handler.triggered_by or ())}"


def _or(names: Iterable[str]) -> str:
    return " or ".join(sorted(names))


def _place(spot: Spot) -> str:
    (topic, partition), offset = spot
    return f"{topic} {partition}@{offset}"


def _ended(parked: Delivery, ended: Ended) -> bool:
    """Return whether a receipt says that *parked* has ended: its tombstone comes after that."""
    replay = "" if parked.replay is None else parked.replay.id
    return any(entry.receipt.replay == replay for entry in ended.history)


def uid_of(receipt: Receipt) -> EventUid:
    """Return the event that a receipt is about."""
    return EventUid(receipt.source, receipt.tenant, receipt.event_id)
