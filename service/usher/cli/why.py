"""`usher why`: show what became of an event in the event log."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Annotated

import typer

from usher.cli import _options as opt
from usher.cli._console import iso, moment, print_json, table
from usher.cli._exits import Exit, Stop

if TYPE_CHECKING:
    from usher.cli._trace import Fate
    from usher.settings import Settings


def why(
    *,
    event_id: Annotated[
        str | None, typer.Argument(metavar="EVENT-ID", help="The event's id, as its source wrote it.")
    ] = None,
    user: Annotated[
        str | None, typer.Option(help="Show all events of this user instead: an id, email address or phone number.")
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
    """Show what became of an event, or of all events of a user, for each handler.

    A delivery is filtered, waiting, settled, parked, dead, dropped, replaced or replayed, or its replay is requested.

    The command reads the topics from their beginning; a worker may run at the same time.

    A delivery that is done leaves no trace: an event from before the group's start looks settled too.
    """
    if (event_id is None) == (user is None):
        raise typer.BadParameter("give the id of an event, or --user")
    settings = opt.load(
        event_log=event_log,
        group=group,
        topics=topics,
        triggered_by=triggered_by,
        handlers=handlers,
        handlers_dir=handlers_dir,
    )
    fates = asyncio.run(_trace(settings, event_id, user, source, tenant))
    if json:
        print_json(map(_row, fates))
    elif fates:
        columns = (
            "topic",
            "partition@offset",
            "stored",
            *(["event"] if user else []),
            "type",
            "handler",
            "state",
            "why",
            "attempt",
            "error",
            "dead letter",
        )
        table(columns, (_cells(fate, with_id=user is not None) for fate in fates))
    if not fates:
        asked = f"no event {event_id}" if user is None else "no event of this user"
        raise Stop(f"there is {asked} in {', '.join(settings.topic_names)}", Exit.NOT_FOUND)


async def _trace(
    settings: Settings, event_id: str | None, user: str | None, source: str | None, tenant: str | None
) -> list[Fate]:
    from usher.cli._topic_sources import sources_of_topics
    from usher.cli._trace import Wanted, identities_about, trace
    from usher.handler import Router
    from usher.parts import find_handlers
    from usher.storage import browser

    routing = Router(find_handlers(settings), settings.triggered_by)
    sources = sources_of_topics(settings)
    fates: list[Fate] = []
    async with browser(settings) as event_log:
        wanted = [Wanted(event_id, source, tenant)] if event_id else []
        if user:
            about = await identities_about(event_log, settings.topic_names, user, sources=sources)
            wanted = [
                Wanted(uid.id, uid.source, uid.tenant)
                for uid in about
                if source in {None, uid.source} and tenant in {None, uid.tenant}
            ]
        for one in wanted:
            fates += await trace(
                event_log,
                settings.group,
                settings.topic_names,
                routing,
                one,
                dedupe_window=settings.dedupe_window,
                sources=sources,
            )
    return fates


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
        "detail": fate.detail,
        "attempt": fate.attempt,
        "due": None if fate.due is None else iso(fate.due),
        "error": fate.error,
        "dead_letter": fate.dead_letter or None,
    }


def _cells(fate: Fate, *, with_id: bool) -> list[object]:
    seen = fate.sighting
    kind = seen.event.type if seen.event else "(no longer in the topic)"
    return [
        seen.topic_partition.topic,
        f"{seen.topic_partition.partition}@{seen.offset}",
        moment(seen.stored_at),
        *([seen.uid.id] if with_id else []),
        kind,
        fate.handler,
        fate.state,
        fate.detail,
        fate.attempt or None,
        fate.error,
        fate.dead_letter,
    ]
