"""`usher handlers`: which handlers run, and the types they may ask for."""

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
    """List the handlers in force: what they are for, their policy and settings, and where they come from."""
    if types:
        _types(json=json)
        return
    from usher.cli._handler_view import COLUMNS, cells, own_settings, rows
    from usher.handler import Router
    from usher.parts import find_handlers
    from usher.plugins import find

    settings = opt.load(triggered_by=triggered_by, handlers=names, handlers_dir=handlers_dir)
    found = find_handlers(settings)
    listed = rows(settings, Router(found, settings.triggered_by), found)
    if json:
        print_json(listed)
        return
    table(COLUMNS, map(cells, listed))
    if own := own_settings(listed):
        result("")
        table(("setting", "of"), own)
    if off := sorted({handler.name for handler in find(settings.handlers_dir)} - {handler.name for handler in found}):
        say(f"Off: {', '.join(off)}. USHER_HANDLERS=+{off[0]} has it run as well.")


def _types(*, json: bool) -> None:
    from usher.event import CANONICAL_TYPES, EVENT_TYPES

    listed = [*CANONICAL_TYPES, *sorted(EVENT_TYPES - CANONICAL_TYPES.keys())]
    if json:
        print_json({"type": name, "meaning": CANONICAL_TYPES.get(name)} for name in listed)
    else:
        table(("type", "means"), ((name, CANONICAL_TYPES.get(name, "(as its source says)")) for name in listed))
