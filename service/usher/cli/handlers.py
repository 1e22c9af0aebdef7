"""`usher handlers`: list the handlers that run, and the event types that a handler may name."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from usher.cli import _options as opt
from usher.terminal import print_json, result, say, table

if TYPE_CHECKING:
    from usher.operate.handlers import RunningHandler

_COLUMNS = ("handler", "types", "triggered by", "retries after", "expires after", "from", "what it does")


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
    from usher.operate.handlers import list_handlers

    running, off = list_handlers(opt.load(triggered_by=triggered_by, handlers=names, handlers_dir=handlers_dir))
    if json:
        print_json(map(asdict, running))
        return
    table(_COLUMNS, map(_cells, running))
    if own := [(name, row.handler) for row in running for name in row.settings]:
        result("")
        table(("setting", "of"), own)
    if off:
        say(f"Off: {', '.join(off)}. To run one of them too, set for example USHER_HANDLERS=+{off[0]}.")


def _cells(row: RunningHandler) -> list[object]:
    types, actors = ", ".join(row.types), ", ".join(row.triggered_by)
    return [row.handler, types, actors, row.retries, row.expires, row.origin, row.summary]


def _types(*, json: bool) -> None:
    from usher.event_types import CANONICAL_TYPES, event_types, raw_names

    senders = event_types()
    shown = [*CANONICAL_TYPES, *sorted(senders.keys() - CANONICAL_TYPES.keys())]
    if json:
        print_json(
            {
                "type": name,
                "meaning": CANONICAL_TYPES.get(name),
                "systems": list(senders[name]),
                "raw": raw_names(name),
            }
            for name in shown
        )
    else:
        table(("type", "sent by", "under the name", "means"), (row for name in shown for row in _senders(name)))


def _senders(name: str) -> Iterator[tuple[str, str, str, str]]:
    """Write a row for each system that sends the type: with its own name for it, where that is another."""
    from usher.event_types import CANONICAL_TYPES, raw_names

    for system, raw in raw_names(name).items():
        yield name, system, raw, CANONICAL_TYPES.get(name, "(as its source says)")
