"""`usher why`: what became of an event that is in the log."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Annotated

import typer

from usher.cli import _options as opt
from usher.cli._console import iso, moment, print_json, table
from usher.cli._exits import Exit, Stop

if TYPE_CHECKING:
    from usher.cli._trace import Fate, Wanted
    from usher.settings import Settings


def why(
    *,
    event_id: Annotated[str, typer.Argument(metavar="EVENT-ID", help="The event's id, as its source gave it.")],
    source: Annotated[str | None, typer.Option(help="Only of this source, as in authgear.")] = None,
    tenant: Annotated[str | None, typer.Option(help="Only of this tenant.")] = None,
    json: opt.Json = False,
    log: opt.Log = None,
    group: opt.Group = None,
    topics: opt.Topics = None,
    triggered_by: opt.TriggeredBy = None,
    handlers: opt.Handlers = None,
    handlers_dir: opt.HandlersDir = None,
) -> None:
    """Say what became of an event, for each handler: filtered, waiting, settled, parked, dead, replayed.

    It reads the topics from their beginning, beside a running worker.

    What is done leaves no trace of its own: an event from before the group's start looks settled too.
    """
    from usher.cli._trace import Wanted

    settings = opt.load(
        log=log, group=group, topics=topics, triggered_by=triggered_by, handlers=handlers, handlers_dir=handlers_dir
    )
    fates = asyncio.run(_trace(settings, Wanted(event_id, source, tenant)))
    if json:
        print_json(map(_row, fates))
    elif fates:
        columns = (
            "topic",
            "partition@offset",
            "stored",
            "type",
            "handler",
            "state",
            "why",
            "attempt",
            "error",
            "letter",
        )
        table(columns, map(_cells, fates))
    if not fates:
        raise Stop(f"there is no event {event_id} in {', '.join(settings.topic_names)}", Exit.NOT_FOUND)


async def _trace(settings: Settings, wanted: Wanted) -> list[Fate]:
    from usher.cli._topic_sources import sources_of_topics
    from usher.cli._trace import trace
    from usher.handler import Router
    from usher.parts import find_handlers
    from usher.storage import browser

    routing = Router(find_handlers(settings), settings.triggered_by)
    async with browser(settings) as log:
        return await trace(
            log,
            settings.group,
            settings.topic_names,
            routing,
            wanted,
            dedupe_window=settings.dedupe_window,
            sources=sources_of_topics(settings),
        )


def _row(fate: Fate) -> dict[str, object]:
    seen = fate.sighting
    return {
        "topic": seen.place.topic,
        "partition": seen.place.partition,
        "offset": seen.offset,
        "stored_at": iso(seen.stored_at),
        "source": seen.identity.source,
        "tenant": seen.identity.tenant,
        "event_id": seen.identity.id,
        "type": seen.event.type if seen.event else None,
        "triggered_by": seen.event.context.triggered_by if seen.event else None,
        "handler": fate.handler,
        "state": fate.state,
        "detail": fate.detail,
        "attempt": fate.attempt,
        "due": None if fate.due is None else iso(fate.due),
        "error": fate.error,
        "letter": fate.letter or None,
    }


def _cells(fate: Fate) -> list[object]:
    seen = fate.sighting
    kind = seen.event.type if seen.event else "(no longer in the topic)"
    return [
        seen.place.topic,
        f"{seen.place.partition}@{seen.offset}",
        moment(seen.stored_at),
        kind,
        fate.handler,
        fate.state,
        fate.detail,
        fate.attempt or None,
        fate.error,
        fate.letter,
    ]
