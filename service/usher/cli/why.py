"""`usher why`: show what became of an event in the event log."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Annotated

import typer

from usher.cli import _options as opt
from usher.cli._exits import Exit, Stop
from usher.redact import without_secrets
from usher.terminal import iso, moment, print_json, table

if TYPE_CHECKING:
    from usher.operate.fates import Fate


def why(
    *,
    event_ids: Annotated[
        list[str] | None, typer.Argument(metavar="EVENT-ID", help="The ids of events, as their source wrote them.")
    ] = None,
    user: Annotated[
        str | None,
        typer.Option(help="Show all events of this user instead: an id, user name, email address or phone number."),
    ] = None,
    source: Annotated[str | None, typer.Option(help="Only events of this source, as in authgear.")] = None,
    tenant: Annotated[str | None, typer.Option(help="Only events of this tenant.")] = None,
    json: opt.Json = False,
    event_log: opt.EventLog = None,
    group: opt.Group = None,
    topics: opt.Topics = None,
    triggered_by: opt.TriggeredBy = None,
    handlers: opt.Handlers = None,
    handlers_dir: opt.HandlersDir = None,
) -> None:
    """Show what became of events, or of all events of a user, for each handler.

    A delivery is filtered, waiting, settled, parked, dead, dropped, replaced or replayed, or its replay is requested.

    The command reads the topics from their beginning; a worker may run at the same time.

    A delivery that is done leaves no trace: an event from before the group's start looks settled too.
    """
    ids = event_ids or []
    if bool(ids) == (user is not None):
        raise typer.BadParameter("give the id of an event, or --user")
    from usher.operate.trace import find_fates

    settings = opt.load(
        event_log=event_log,
        group=group,
        topics=topics,
        triggered_by=triggered_by,
        handlers=handlers,
        handlers_dir=handlers_dir,
    )
    fates = asyncio.run(find_fates(settings, event_ids=ids, user=user, source=source, tenant=tenant))
    if json:
        print_json(map(_row, fates))
    elif fates:
        _print_table(fates, with_id=len(ids) != 1)
    _stop_if_missing(ids, fates, f"in {', '.join(settings.topic_names)} of {settings.event_log}")


def _stop_if_missing(ids: list[str], fates: list[Fate], where: str) -> None:
    from usher.operate.trace import is_called

    missing = [event_id for event_id in ids if not any(is_called(fate.sighting.uid, event_id) for fate in fates)]
    if missing or not fates:
        asked = f"no event {', '.join(missing)}" if missing else "no event of this user"
        raise Stop(f"there is {asked} {where}", Exit.NOT_FOUND)


def _row(fate: Fate) -> dict[str, object]:
    seen = fate.sighting
    return {
        "topic": seen.topic_partition.topic,
        "partition": seen.topic_partition.partition,
        "offset": seen.offset,
        "stored_at": iso(seen.stored_at),
        "source": seen.uid.source,
        "tenant": seen.uid.tenant,
        "event_id": seen.uid.id,
        "type": seen.event.type if seen.event else None,
        "triggered_by": seen.event.context.triggered_by if seen.event else None,
        "handler": fate.handler,
        "state": fate.state,
        "detail": _detail(fate),
        "attempt": fate.attempt,
        "due": None if fate.due is None else iso(fate.due),
        "error": without_secrets(fate.error),
        "dead_letter": fate.dead_letter or None,
    }


def _print_table(fates: list[Fate], *, with_id: bool) -> None:
    columns = [
        "topic",
        "partition@offset",
        "stored",
        "type",
        "handler",
        "state",
        "why",
        "attempt",
        "error",
        "dead letter",
    ]
    rows = [_cells(fate) for fate in fates]
    if with_id:
        columns.insert(3, "event")
        for row, fate in zip(rows, fates, strict=True):
            row.insert(3, fate.sighting.uid.id)
    table(columns, rows)


def _cells(fate: Fate) -> list[object]:
    seen = fate.sighting
    return [
        seen.topic_partition.topic,
        f"{seen.topic_partition.partition}@{seen.offset}",
        moment(seen.stored_at),
        seen.event.type if seen.event else "(no longer in the topic)",
        fate.handler,
        fate.state,
        _detail(fate),
        fate.attempt or None,
        without_secrets(fate.error),
        fate.dead_letter,
    ]


def _detail(fate: Fate) -> str:
    return fate.detail or (f"due {moment(fate.due)}" if fate.due is not None else "")
