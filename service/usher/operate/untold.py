"""Who was not told: the events of which at least one delivery was to send a message, and none went out."""

from __future__ import annotations

import contextlib
import shlex
import time
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from usher.delivery import Delivery
from usher.event import EventUid, Undecodable
from usher.eventlog.browse import Browser
from usher.handler import Router
from usher.operate.event_traces import EventTrace, endings, gathered, known_sightings
from usher.operate.fates import Fate, Findings, Judge, uid_of
from usher.operate.progress import ReadingProgress
from usher.operate.receipt_index import ReceiptIndex, ask
from usher.operate.traces import Traces, read_traces
from usher.parts import find_handlers
from usher.receipts import TOLD, Receipt
from usher.settings import Settings
from usher.storage import browser as open_browser
from usher.systems.decode import decode

PARKED: Final = "parked"
_BY_HAND: Final = "write to the person yourself"
_MENDS: Final = {
    PARKED: "mend what the error says; it is tried again by itself. See it with: usher why {id}",
    "dead": "mend the cause, then: usher dlq replay {dead_letter}",
    "unknown": "look at the provider whether it went out; if not: usher dlq replay {dead_letter}",
    "expired": "if it is of use all the same: usher dlq replay --even-expired {dead_letter}",
    "bounced": f"correct the address in the identity system, and {_BY_HAND}",
    "undelivered": f"correct the number in the identity system, and {_BY_HAND}",
    "suppressed": f"take the address off the provider's list, and {_BY_HAND}",
    "no-address": f"give the user an address in the identity system, and {_BY_HAND}",
    "disabled": "enable the account: user.reenabled then sends what is due",
    "dropped": f"an operator has dropped it; {_BY_HAND}",
}
"""What mends each reason, the most urgent first."""
REASONS: Final = tuple(_MENDS)


@dataclass(frozen=True, slots=True)
class Untold:
    """An event of which nobody was told. *fates* are the deliveries that failed, *mend* says what to do, mostly a command."""

    reason: str
    event: EventTrace
    fates: tuple[Fate, ...]
    mend: str


async def find_untold(
    settings: Settings, since: float, longer_than: float, progress: ReadingProgress | None = None
) -> list[Untold]:
    """Return the events of which nobody was told, by reason, and the oldest first.

    Args:
        since: only what has failed since then, in Unix seconds.
        longer_than: what is parked counts once it is parked for so many seconds.

    Raises:
        LogUnavailable, LogMisconfigured, HandlerError, SettingsError, OperateError
    """
    router = Router(find_handlers(settings), settings.triggered_by)
    async with open_browser(settings) as browser:
        return await untold(settings, browser, router, since, longer_than, progress=progress or ReadingProgress())


async def untold(
    settings: Settings, browser: Browser, router: Router, since: float, longer_than: float, *, progress: ReadingProgress
) -> list[Untold]:
    """As `find_untold`, in the event log of *browser* and for the handlers of *router*."""
    traces = await read_traces(browser, settings.group, settings.topic_names, progress)
    silent = {
        "",
        *(name for name, handler in router.handlers.items() if not handler.sends),
    }  # bytes that are no event have no handler
    overdue = _overdue(traces, silent, time.time() - longer_than, since)

    async def answer(index: ReceiptIndex) -> list[Untold]:
        uids = {uid_of(receipt) for receipt in index.failed(int(since * 1000))} | {each.uid for each in overdue}
        receipts = [each for each in index.of_events({uid.id for uid in uids}) if uid_of(each) in uids]
        ours = traces.only(lambda delivery: delivery.uid in uids)
        sightings = sorted(known_sightings(receipts, ours).values(), key=lambda each: each.stored_at)
        judge = Judge(router, ours, Findings(endings(receipts)))
        events = gathered(sightings, receipts, judge)
        _describe(events, ours.deliveries())
        parked = {(each.uid, each.handler) for each in overdue}
        return sorted(_untold(events, receipts, parked, silent), key=lambda each: REASONS.index(each.reason))

    return await ask(settings, browser, progress, answer)


def _overdue(traces: Traces, silent: Collection[str], parked_before: float, dead_since: float) -> list[Delivery]:
    """Return the deliveries that are parked for too long, and those that are dead since then and may have no receipt."""
    parked = [each for each in traces.parked.values() if _parked_since(each) <= parked_before * 1000]
    dead = [
        entry.dead_letter.delivery
        for entry in traces.dead_letters.values()
        if entry.dead_letter.at >= dead_since * 1000 and entry.dead_letter.state not in {"replayed", "foreign"}
    ]
    return [each for each in parked + dead if each.handler not in silent]


def _parked_since(delivery: Delivery) -> int:
    return delivery.first_failed_at or delivery.failed_at or delivery.origin.timestamp


def _describe(events: Iterable[EventTrace], deliveries: Iterable[Delivery]) -> None:
    """Say of what type, and about whom, the events are that have no receipt."""
    by_uid = {delivery.uid: delivery for delivery in deliveries}
    for trace in events:
        delivery = by_uid.get(trace.uid)
        if trace.type or delivery is None:
            continue
        with contextlib.suppress(Undecodable):
            event = decode(delivery.value)
            trace.type, trace.user_id, trace.username = event.type, event.user.id or "", event.user.username or ""


def _untold(
    events: Iterable[EventTrace],
    receipts: Iterable[Receipt],
    parked: Collection[tuple[EventUid, str]],
    silent: Collection[str],
) -> Iterator[Untold]:
    told = {uid_of(receipt) for receipt in receipts if receipt.state in TOLD}
    for event in events:
        if event.uid in told:
            continue
        reasons = [(reason, fate) for fate in event.fates if (reason := _reason(event, fate, parked, silent))]
        if reasons:
            reason, first = min(reasons, key=lambda pair: REASONS.index(pair[0]))
            yield Untold(reason, event, tuple(fate for _, fate in reasons), _mend(reason, event, first))


def _reason(event: EventTrace, fate: Fate, parked: Collection[tuple[EventUid, str]], silent: Collection[str]) -> str:
    """Return why the delivery counts as failed; empty where it does not."""
    if fate.handler in silent or any(not entry.receipt.sends for entry in fate.history):
        return ""
    if fate.state == PARKED:
        return PARKED if (event.uid, fate.handler) in parked else ""
    reason = fate.reason if fate.state == "skipped" else fate.state
    return reason if reason in REASONS else ""


def _mend(reason: str, event: EventTrace, fate: Fate) -> str:
    if "{dead_letter}" in _MENDS[reason] and not fate.dead_letter:
        return f"the dead letter is not open any more; {_BY_HAND}"
    return _MENDS[reason].format(id=shlex.quote(event.uid.id), dead_letter=fate.dead_letter)
