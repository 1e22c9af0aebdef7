"""`usher receipts`: list and export what became of deliveries."""

from __future__ import annotations

import asyncio
import csv
import json as json_module
import sys
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Final, get_args

import typer

from usher.cli import _options as opt
from usher.terminal import print_json, result, say, visible

if TYPE_CHECKING:
    from usher.operate.event_traces import EventTrace
    from usher.operate.fates import Fate
    from usher.operate.receipts import ReceiptChoice, Take
    from usher.settings import Settings

app = typer.Typer(help="List and export receipts: what became of each delivery.", no_args_is_help=True)

States = Annotated[
    list[str] | None,
    typer.Option("--state", metavar="STATE", help="Only these, as in sent or dead; may be given again."),
]
HandlerName = Annotated[str | None, typer.Option("--handler", metavar="NAME", help="Only deliveries of this handler.")]
User = Annotated[
    str | None, typer.Option(help="Only those about this user: an id, user name, email address or phone number.")
]
Columns = Mapping[str, object]
_FORMATS: Final = ("jsonl", "csv")


@app.command("list")
def list_(
    *,
    state: States = None,
    handler: HandlerName = None,
    user: User = None,
    since: Annotated[str, typer.Option(metavar="AGE", help="Only what has ended since then, as in 30d.")] = "7d",
    json: opt.Json = False,
    event_log: opt.EventLog = None,
    group: opt.Group = None,
    topics: opt.Topics = None,
) -> None:
    """List what became of deliveries, the oldest first. `usher why` shows all of one."""
    from usher.cli._fates_view import receipt_lines, receipt_row

    choice = _choice(state, handler, user, since)
    settings = opt.load(event_log=event_log, group=group, topics=topics)
    found: list[tuple[EventTrace, Fate]] = []
    asyncio.run(_read(settings, choice, lambda event, fate: found.append((event, fate))))
    found.sort(key=lambda each: each[1].at)
    if json:
        print_json(receipt_row(*each) for each in found)
    elif found:
        for line in receipt_lines(found):
            result(line)
    else:
        say(f"There are no such receipts in {settings.event_log}.")


@app.command()
def export(
    *,
    state: States = None,
    handler: HandlerName = None,
    user: User = None,
    since: Annotated[
        str | None, typer.Option(metavar="AGE", help="Only what has ended since then; all that is kept by default.")
    ] = None,
    format_: Annotated[str, typer.Option("--format", metavar="jsonl|csv", help="The form.")] = "jsonl",
    event_log: opt.EventLog = None,
    group: opt.Group = None,
    topics: opt.Topics = None,
) -> None:
    """Write what became of deliveries to stdout, a line each: JSON as `usher why` has it, with its event; or CSV with a heading.

    The deliveries of an event come together. In CSV a text that a spreadsheet would compute begins with an apostrophe.
    """
    from usher.cli._fates_view import receipt_row

    if format_ not in _FORMATS:
        raise typer.BadParameter(f"--format {format_}: should be one of {', '.join(_FORMATS)}")
    choice = _choice(state, handler, user, since)
    settings = opt.load(event_log=event_log, group=group, topics=topics)
    if format_ == "csv":
        table = _Csv()
        asyncio.run(_read(settings, choice, lambda event, fate: table.write(receipt_row(event, fate))))
        return

    def write(event: EventTrace, fate: Fate) -> None:
        sys.stdout.write(f"{visible(json_module.dumps(receipt_row(event, fate), ensure_ascii=False))}\n")

    asyncio.run(_read(settings, choice, write))


async def _read(settings: Settings, choice: ReceiptChoice, take: Take) -> None:
    from usher.cli._progress import spoken
    from usher.operate.receipts import read_receipts

    await read_receipts(settings, choice, take, spoken())


def _choice(states: list[str] | None, handler: str | None, user: str | None, since: str | None) -> ReceiptChoice:
    from usher.operate.receipts import ReceiptChoice
    from usher.receipts import State

    for state in states or ():
        if state not in get_args(State):
            raise typer.BadParameter(f"--state {state}: should be one of {', '.join(sorted(get_args(State)))}")
    began = 0.0 if since is None else time.time() - opt.duration("--since", since)
    return ReceiptChoice(frozenset(states or ()), handler, user, began)


class _Csv:
    """Writes rows as CSV, under a heading."""

    def __init__(self) -> None:
        self._writer = csv.writer(sys.stdout)
        self._begun = False

    def write(self, row: Columns) -> None:
        event = row["event"]
        flat = {f"event_{name}": value for name, value in event.items()} if isinstance(event, Mapping) else {}
        flat |= {name: value for name, value in row.items() if name != "event"}
        if not self._begun:
            self._writer.writerow(flat)
            self._begun = True
        self._writer.writerow(map(_cell, flat.values()))


def _cell(value: object) -> object:
    if isinstance(value, list):
        return json_module.dumps(value)
    if isinstance(value, str):
        shown = visible(value)
        return f"'{shown}" if shown.startswith(("=", "+", "-", "@")) else shown
    return value
