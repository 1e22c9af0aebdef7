"""How what became of an event is shown: a heading for the event, a line a handler, details indented; or as JSON."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence

from usher.operate.dead_letters import masked
from usher.operate.event_traces import EventTrace
from usher.operate.fates import Fate
from usher.receipts import HistoryEntry
from usher.redact import holds_person, without_secrets
from usher.terminal import iso, moment, one_line

WIDTH = 80
_STATE_WIDTH, _HANDLER_WIDTH = 12, 28


def row(event: EventTrace, fates: Sequence[Fate] | None = None) -> dict[str, object]:
    """Return an event and what became of it (or only *fates*), as JSON has it. What is not known is null."""
    return {
        "event": event_row(event),
        "deliveries": [delivery_row(each) for each in (event.fates if fates is None else fates)],
    }


def event_row(event: EventTrace) -> dict[str, object]:
    """Return the event alone."""
    return {
        "id": event.uid.id,
        "type": event.type or None,
        "source": event.uid.source,
        "tenant": event.uid.tenant,
        "user_id": _person(event.user_id),
        "username": _person(event.username),
        "stored_at": iso(event.stored_at) if event.stored_at else None,
    }


def delivery_row(fate: Fate) -> dict[str, object]:
    """Return what became of one delivery."""
    return {
        "handler": fate.handler,
        "state": fate.state,
        "at": iso(fate.at) if fate.at else None,
        "attempts": fate.attempts if fate.attempts or fate.state == "parked" else None,
        "reason": _reason(fate) or None,
        "due": None if fate.due is None else iso(fate.due),
        "channel": fate.channel or None,
        "provider": fate.provider or None,
        "provider_id": fate.provider_id or None,
        "template": fate.template or None,
        "language": fate.language or None,
        "history": [_entry(entry) for entry in fate.history],
    }


def receipt_row(event: EventTrace, fate: Fate) -> dict[str, object]:
    """Return what became of one delivery, with its event."""
    return {**delivery_row(fate), "event": event_row(event)}


def receipt_lines(rows: Sequence[tuple[EventTrace, Fate]]) -> Iterator[str]:
    """Yield a table of deliveries, a line each; an event's id that does not fit has a line of its own."""
    width = min(_HANDLER_WIDTH, max(len("handler"), *(len(fate.handler) for _, fate in rows)))
    yield f"{'ended':<20}  {'state':<{_STATE_WIDTH}}  {'handler':<{width}}  event"
    for event, fate in rows:
        head = f"{moment(fate.at):<20}  {fate.state:<{_STATE_WIDTH}}  {one_line(fate.handler):<{width}}"
        line = f"{head}  {one_line(event.uid.id)}"
        yield from [line] if len(line) <= WIDTH else [head.rstrip(), f"  {one_line(event.uid.id)}"]


def _entry(entry: HistoryEntry) -> dict[str, object]:
    receipt = entry.receipt
    return {
        "state": receipt.state,
        "at": iso(receipt.at) if receipt.at else None,
        "attempts": receipt.attempts or None,
        "reason": without_secrets(receipt.reason) or None,
        "channel": receipt.channel or None,
        "provider": receipt.provider or None,
        "provider_id": receipt.provider_id or None,
        "template": receipt.template or None,
        "language": receipt.language or None,
        "replay": receipt.replay or None,
        "repeat": entry.repeat,
    }


def lines(event: EventTrace, fates: Sequence[Fate] | None = None) -> Iterator[str]:
    """Yield the lines of an event, each within `WIDTH` columns; only a word that is longer than that is longer."""
    yield from wrapped(f"{event.type or '(no longer in the topic)'}  {event.uid.id}", 0)
    who = ", ".join(filter(None, (_person(event.user_id), _person(event.username)))) or "nobody named"
    tenant = f", tenant {event.uid.tenant}" if event.uid.tenant else ""
    when = f"stored {moment(event.stored_at)}" if event.stored_at else ""
    where = ", ".join(f"{at.topic} {at.partition}@{offset}" for (at, offset) in event.places)
    yield from wrapped(f"about {who}; from {event.uid.source}{tenant}; {when} at {where}", 2)
    shown = event.fates if fates is None else fates
    if event.ruled:
        yield from wrapped(f"no handler runs for it: {event.ruled}", 2)
    width = max((len(fate.handler) for fate in shown), default=0)
    for fate in shown:
        yield from _of_fate(fate, width)


def _of_fate(fate: Fate, width: int) -> Iterator[str]:
    handler = fate.handler or "(no handler)"
    at = moment(fate.at) if fate.at else ""
    line = f"  {handler:<{width}}  {fate.state:<{_STATE_WIDTH}} {at}".rstrip()
    details = list(_details(fate))
    if len(line) > WIDTH:
        line, details = f"  {handler}  {fate.state}", [at, *details]
    yield line
    for detail in details:
        yield from wrapped(detail, 6)


def _details(fate: Fate) -> Iterator[str]:
    if fate.provider:
        yield f"{fate.channel or 'message'} by {fate.provider}" + (
            f", id {fate.provider_id}" if fate.provider_id else ""
        )
    made = [
        f"template {fate.template}" if fate.template else "",
        f"language {fate.language}" if fate.language else "",
        f"{fate.attempts} attempt{'s' * (fate.attempts > 1)}" if fate.attempts else "",
        f"due {moment(fate.due)}" if fate.due is not None else "",
    ]
    if text := ", ".join(filter(None, made)):
        yield text
    if reason := _reason(fate):
        yield reason
    if fate.dead_letter:
        yield f"dead letter {fate.dead_letter}"
    for entry in fate.history:
        if entry.repeat or entry.receipt.identity != fate.history[-1].receipt.identity:
            yield _earlier(entry)


def _earlier(entry: HistoryEntry) -> str:
    receipt = entry.receipt
    by = f" by {receipt.provider}, id {receipt.provider_id}" if receipt.provider_id else ""
    replay = f", replay {receipt.replay}" if receipt.replay else ""
    return f"{'repeat' if entry.repeat else 'before'}: {receipt.state}{by} {moment(receipt.at)}{replay}"


def _reason(fate: Fate) -> str:
    behind = f"behind {fate.behind}" if fate.behind else ""
    return "; ".join(filter(None, (without_secrets(fate.reason), behind)))


def _person(text: str) -> str | None:
    """Return an id or a user name; where it is an address, in the form that only who knows it recognizes."""
    return (masked(text) if holds_person(text) else text) or None


def wrapped(text: str, indent: int) -> Iterator[str]:
    """Yield *text* in lines; what follows the first one is indented by two more."""
    return iter(
        textwrap.wrap(
            one_line(text), WIDTH, initial_indent=" " * indent, subsequent_indent=" " * (indent + 2), break_long_words=False,
            break_on_hyphens=False,
        )
    )  # fmt: skip
