"""`usher explain`: show which handlers an event is for, and what they would do."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Annotated

import typer

from usher.cli import _options as opt
from usher.cli._console import print_json, result, table

if TYPE_CHECKING:
    from usher.event import Event
    from usher.settings import Settings


def explain(
    *,
    event: Annotated[str, typer.Argument(metavar="EVENT.json", help="A file with one event; - is stdin.")],
    source: opt.Source = None,
    json: opt.Json = False,
    triggered_by: opt.TriggeredBy = None,
    handlers: opt.Handlers = None,
    handlers_dir: opt.HandlersDir = None,
    templates_dir: opt.TemplatesDir = None,
) -> None:
    """Show for each handler whether it runs for an event, why or why not, and what it would do.

    The handlers run for real, but nothing is sent and no API is called, not even the identity system's.
    """
    from usher.cli._events import read_one
    from usher.systems import open_source

    settings = opt.load(
        triggered_by=triggered_by, handlers=handlers, handlers_dir=handlers_dir, templates_dir=templates_dir
    )
    found = read_one(event, open_source(settings, source)) if source else _as_stored(settings, read_one(event))
    rows = asyncio.run(_rulings(settings, found))
    if json:
        print_json(rows)
        return
    seen = found.context
    basis = f" ({seen.triggered_by_basis})" if seen.triggered_by_basis else ""
    result(f"{found.type} {found.id} from {found.source}, triggered by {seen.triggered_by}{basis}")
    columns = ("handler", "runs", "because", "what it would do")
    table(columns, ((row["handler"], "yes" if row["runs"] else "no", row["condition"], row["would"]) for row in rows))


def _as_stored(settings: Settings, event: Event) -> Event:
    """Return *event* with what its source adds to an event before it is stored, which depends on the settings."""
    from usher.channels.transport import Transport
    from usher.sources import dump
    from usher.systems import open_systems

    system = open_systems(settings, lambda: Transport().session).which(event)
    if system is None or not system.source.plain:
        return event
    arrivals = system.source.arrivals(dump(event.model_dump(exclude_unset=True)), {}, time.time())
    return next((arrival.event for arrival in arrivals if arrival.event), event)


async def _rulings(settings: Settings, event: Event) -> list[dict[str, object]]:
    from usher.channels.transport import Transport
    from usher.cli._rehearsal import Rehearsal
    from usher.handler import Router
    from usher.parts import find_handlers
    from usher.systems import open_systems

    found = find_handlers(settings)
    systems = open_systems(settings, lambda: Transport().session)
    rehearsal = Rehearsal(
        settings, found, settings.for_handlers(found), time.time(), lambda event: systems.of(event) is not None
    )
    return [
        {
            "event_id": event.id,
            "handler": ruling.handler.name,
            "runs": ruling.runs,
            "condition": ruling.condition,
            "would": await rehearsal.would(ruling, event),
        }
        for ruling in Router(found, settings.triggered_by).explain(event)
    ]
