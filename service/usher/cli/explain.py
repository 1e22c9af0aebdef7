"""`usher explain`: show which handlers an event is for, and what they would do."""

from __future__ import annotations

import asyncio
from dataclasses import asdict
from typing import Annotated

import typer

from usher.cli import _options as opt
from usher.terminal import one_line, print_json, result, table


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
    from usher.operate.rehearsal import as_stored, rehearse

    settings = opt.load(
        triggered_by=triggered_by, handlers=handlers, handlers_dir=handlers_dir, templates_dir=templates_dir
    )
    found = opt.one_event(settings, event, source)
    if source is None:
        found = as_stored(settings, found)
    rehearsed = asyncio.run(rehearse(settings, found))
    if json:
        print_json({"event_id": found.id, **asdict(row)} for row in rehearsed)
        return
    seen = found.context
    basis = f" ({seen.triggered_by_basis})" if seen.triggered_by_basis else ""
    result(one_line(f"{found.type} {found.id} from {found.source}, triggered by {seen.triggered_by}{basis}"))
    columns = ("handler", "runs", "because", "what it would do")
    table(columns, ((row.handler, "yes" if row.runs else "no", row.condition, row.would) for row in rehearsed))
