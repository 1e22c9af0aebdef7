"""`usher untold`: show of which events nobody was told."""

from __future__ import annotations

import asyncio
import time
from itertools import groupby
from typing import TYPE_CHECKING, Annotated

import typer

from usher.cli import _options as opt
from usher.cli._exits import Exit
from usher.terminal import print_json, result, say

if TYPE_CHECKING:
    from usher.operate.untold import Untold


def untold(
    *,
    since: Annotated[str, typer.Option(metavar="AGE", help="How far back to look, as in 30d.")] = "7d",
    longer_than: Annotated[
        str, typer.Option(metavar="TIME", help="What is parked counts once it is parked for longer than this.")
    ] = "1h",
    json: opt.Json = False,
    event_log: opt.EventLog = None,
    group: opt.Group = None,
    topics: opt.Topics = None,
    handlers: opt.Handlers = None,
    handlers_dir: opt.HandlersDir = None,
) -> None:
    """Show each event of which a message was to be sent and none was: by reason, with what mends it.

    Exit code 1 if there is any, 0 if there is none: fit for cron.
    """
    age, patience = opt.duration("--since", since), opt.duration("--longer-than", longer_than)
    from usher.cli._fates_view import row
    from usher.cli._progress import spoken
    from usher.operate.untold import find_untold

    settings = opt.load(event_log=event_log, group=group, topics=topics, handlers=handlers, handlers_dir=handlers_dir)
    found = asyncio.run(find_untold(settings, time.time() - age, patience, spoken()))
    if json:
        print_json({"reason": each.reason, **row(each.event, each.fates), "mend": each.mend} for each in found)
    else:
        _print(found)
    if not settings.receipts.on:
        say("usher: receipts are off (USHER_RECEIPTS): only what is parked or dead is known")
    if found:
        raise typer.Exit(Exit.FAILED)
    if not json:
        say(f"Nobody was left untold in the last {since}, as far as {settings.event_log} says.")


def _print(found: list[Untold]) -> None:
    from usher.cli._fates_view import lines, wrapped

    for reason, some in groupby(found, lambda each: each.reason):
        events = list(some)
        result(f"{reason}: {len(events)} event{'s' * (len(events) > 1)}")
        for each in events:
            result("")
            for line in lines(each.event, each.fates):
                result(line)
            for line in wrapped(f"mend: {each.mend}", 2):
                result(line)
        result("")
