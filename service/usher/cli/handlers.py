"""`usher handlers`: list the handlers that run, and the event types that a handler may name."""

from __future__ import annotations

from typing import Annotated

import typer

from usher.cli import _options as opt
from usher.cli._console import print_json, result, say, table


def handlers(
    types: Annotated[bool, typer.Option("--types", help="List the event types instead.")] = False,
    json: opt.Json = False,
    triggered_by: opt.TriggeredBy = None,
    names: opt.Handlers = None,
    handlers_dir: opt.HandlersDir = None,
) -> None:
    """List the handlers that run: what each is for, its policy, its settings, and where it comes from."""
    if types:
        _types(json=json)
        return
    from usher.cli._handler_view import COLUMNS, cells, own_settings, rows
    from usher.handler import Router
    from usher.parts import find_handlers
    from usher.plugins import find

    settings = opt.load(triggered_by=triggered_by, handlers=names, handlers_dir=handlers_dir)
    found = find_handlers(settings)
    shown = rows(settings, Router(found, settings.triggered_by), found)
    if json:
        print_json(shown)
        return
    table(COLUMNS, map(cells, shown))
    if own := own_settings(shown):
        result("")
        table(("setting", "of"), own)
    if off := sorted({handler.name for handler in find(settings.handlers_dir)} - {handler.name for handler in found}):
        say(f"Off: {', '.join(off)}. To run one of them too, set for example USHER_HANDLERS=+{off[0]}.")


def _types(*, json: bool) -> None:
    from usher.event import CANONICAL_TYPES, EVENT_TYPES

    shown = [*CANONICAL_TYPES, *sorted(EVENT_TYPES - CANONICAL_TYPES.keys())]
    if json:
        print_json({"type": name, "meaning": CANONICAL_TYPES.get(name)} for name in shown)
    else:
        table(("type", "means"), ((name, CANONICAL_TYPES.get(name, "(as its source says)")) for name in shown))
