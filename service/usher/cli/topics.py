"""`usher topics`: the topics that Usher needs, and how to get them."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import typer

from usher.cli import _options as opt
from usher.cli._console import print_json, result, say, table
from usher.cli._exits import Stop

if TYPE_CHECKING:
    from collections.abc import Sequence

    from usher.eventlog.browse import TopicState
    from usher.settings import Settings

app = typer.Typer(help="See which topics there are and are needed; create Usher's own.", no_args_is_help=True)


@app.command()
def plan(
    json: opt.Json = False, event_log: opt.EventLog = None, group: opt.Group = None, topics: opt.Topics = None
) -> None:
    """List the topics, what is wrong with them, and the command that mends it. Exit 1 if anything is."""
    from usher.cli._topics import wrong

    settings = opt.load(event_log=event_log, group=group, topics=topics)
    states = asyncio.run(_states(settings))
    rows = [_row(state, wrong(state, states)) for state in states]
    if json:
        print_json(rows)
    else:
        columns = ("topic", "kind", "partitions", "compacted", "wrong")
        table(columns, ([*list(row.values())[:4], row["wrong"] or "ok"] for row in rows))
        for row in rows:
            if row["wrong"] and row["remedy"]:
                result(str(row["remedy"]))
    if any(row["wrong"] for row in rows):
        raise Stop("Not all topics are as they should be; `usher topics apply` creates those of Usher's own.")


@app.command()
def apply(
    json: opt.Json = False, event_log: opt.EventLog = None, group: opt.Group = None, topics: opt.Topics = None
) -> None:
    """Create what is missing of Usher's own topics. Source topics are their producers' affair."""
    settings = opt.load(event_log=event_log, group=group, topics=topics)
    created, states = asyncio.run(_apply(settings))
    if json:
        print_json({"topic": name} for name in created)
    else:
        for name in created:
            result(f"created {name}")
        if not created:
            say("Nothing had to be created.")
    if missing := [state.topic for state in states if not state.partitions]:
        raise Stop(f"still missing: {', '.join(missing)}; `usher topics plan` gives the commands")


async def _states(settings: Settings) -> Sequence[TopicState]:
    from usher.storage import browser

    async with browser(settings) as log:
        return await log.topics()


async def _apply(settings: Settings) -> tuple[Sequence[str], Sequence[TopicState]]:
    from usher.storage import browser

    async with browser(settings) as log:
        created = await log.create_topics()
        return created, await log.topics()


def _row(state: TopicState, wrong: str) -> dict[str, object]:
    return {
        "topic": state.topic,
        "kind": state.kind,
        "partitions": state.partitions,
        "compacted": state.compacted,
        "writable": state.writable,
        "wrong": wrong,
        "remedy": state.remedy,
    }
