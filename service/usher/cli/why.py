"""`usher why`: show what became of an event in the event log."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Annotated

import typer

from usher.cli import _options as opt
from usher.cli._exits import Exit, Stop
from usher.terminal import print_json, result, say

if TYPE_CHECKING:
    from usher.operate.event_traces import EventTrace
    from usher.operate.trace import Question


EventIds = Annotated[
    list[str] | None, typer.Argument(metavar="EVENT-ID", help="The ids of events, as their source wrote them.")
]
User = Annotated[
    str | None, typer.Option(help="All events of this user instead: an id, user name, email address or phone number.")
]
Address = Annotated[
    str | None, typer.Option(metavar="ADDR", help="All events with a message to this email address or phone number.")
]
MessageId = Annotated[
    str | None, typer.Option(metavar="ID", help="The event of the message that its provider gave this id.")
]
Since = Annotated[
    str | None,
    typer.Option(metavar="AGE", help="How far back to look for what left no receipt, as in 30d; 7d by default."),
]
Everything = Annotated[
    bool,
    typer.Option("--all", help="Also handlers for other types, and events and arrivals that left nothing behind."),
]
OfSource = Annotated[str | None, typer.Option("--source", help="Only events of this source, as in authgear.")]
OfTenant = Annotated[str | None, typer.Option("--tenant", help="Only events of this tenant.")]


def why(
    *,
    event_ids: EventIds = None,
    user: User = None,
    address: Address = None,
    message_id: MessageId = None,
    since: Since = None,
    everything: Everything = False,
    source: OfSource = None,
    tenant: OfTenant = None,
    json: opt.Json = False,
    event_log: opt.EventLog = None,
    group: opt.Group = None,
    topics: opt.Topics = None,
    triggered_by: opt.TriggeredBy = None,
    handlers: opt.Handlers = None,
    handlers_dir: opt.HandlersDir = None,
) -> None:
    """Show what became of events, or of all events of a user, for each handler.

    What has ended has a receipt, and is found at once, as is what is parked or dead. The rest is looked for in the topics.

    docs/receipts.md explains the states. A worker may run at the same time.
    """
    if sum((bool(event_ids), user is not None, address is not None, message_id is not None)) != 1:
        raise typer.BadParameter("give the id of an event, or one of --user, --address, --message-id")
    from usher.cli._fates_view import row
    from usher.cli._progress import spoken
    from usher.operate.trace import Question, find_traces

    back = None if since is None else time.time() - opt.duration("--since", since)
    ids = tuple(event_ids or ())
    question = Question(ids, user, address, message_id, source, tenant, back, everything)
    settings = opt.load(
        event_log=event_log, group=group, topics=topics, triggered_by=triggered_by, handlers=handlers, handlers_dir=handlers_dir
    )  # fmt: skip
    found = _in_order(question, asyncio.run(find_traces(settings, question, spoken())))
    if json:
        print_json(map(row, found))
    else:
        _print(found)
        if found and not everything and (user is not None or address is not None):
            say("Events of this person that no handler ran for may be missing: --all looks for them too.")
    _stop_if_missing(question, found, f"in {', '.join(settings.topic_names)} of {settings.event_log}")


def _print(found: list[EventTrace]) -> None:
    from usher.cli._fates_view import lines

    for number, each in enumerate(found):
        for line in ("", *lines(each)) if number else lines(each):
            result(line)


def _in_order(question: Question, found: list[EventTrace]) -> list[EventTrace]:
    """Return the events in the order in which they were asked for."""
    from usher.operate.wanted import is_called

    places = {id_: number for number, id_ in enumerate(question.ids)}

    def place(event: EventTrace) -> int:
        return min((number for id_, number in places.items() if is_called(event.uid, id_)), default=len(places))

    return sorted(found, key=place)


def _stop_if_missing(question: Question, found: list[EventTrace], where: str) -> None:
    from usher.operate.wanted import is_called

    missing = [id_ for id_ in question.ids if not any(is_called(event.uid, id_) for event in found)]
    if not missing and found:
        return
    back = (
        ""
        if question.message_id
        else "; what left no receipt was looked for since the time that --since says, 7d by default"
    )
    asked = f"no event {', '.join(missing)}" if missing else _asked(question)
    raise Stop(f"there is {asked} {where}{back}", Exit.NOT_FOUND)


def _asked(question: Question) -> str:
    if question.message_id is not None:
        return "no receipt of this message"
    return "no event of this user" if question.user is not None else "no event with this address"
