"""`usher topics`: show the topics that Usher needs, and create its own."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import typer

from usher.cli import _options as opt
from usher.cli._exits import Stop
from usher.terminal import print_json, result, say, table

if TYPE_CHECKING:
    from usher.operate.topics import TopicCheck

app = typer.Typer(help="Show the topics that Usher needs; create Usher's own.", no_args_is_help=True)


@app.command()
def plan(
    json: opt.Json = False, event_log: opt.EventLog = None, group: opt.Group = None, topics: opt.Topics = None
) -> None:
    """List the topics, what is wrong with each, and the command that mends it. Exit 1 on problems."""
    from usher.operate.topics import check_topics

    settings = opt.load(event_log=event_log, group=group, topics=topics)
    rows = [_row(check) for check in asyncio.run(check_topics(settings))]
    if json:
        print_json(rows)
    else:
        columns = ("topic", "kind", "partitions", "compacted", "wrong")
        table(columns, ([*list(row.values())[:4], row["wrong"] or "ok"] for row in rows))
        for row in rows:
            if row["wrong"] and row["remedy"]:
                result(str(row["remedy"]))
    if any(row["wrong"] for row in rows):
        raise Stop("Not all topics are as they must be; `usher topics apply` creates Usher's own.")


@app.command()
def apply(
    json: opt.Json = False, event_log: opt.EventLog = None, group: opt.Group = None, topics: opt.Topics = None
) -> None:
    """Create those of Usher's own topics that are missing.

    A source topic is not created: it belongs to its producers.
    """
    from usher.operate.topics import create_topics

    created, states = asyncio.run(create_topics(opt.load(event_log=event_log, group=group, topics=topics)))
    if json:
        print_json({"topic": name} for name in created)
    else:
        for name in created:
            result(f"created {name}")
        if not created:
            say("Nothing had to be created.")
    if missing := [state.topic for state in states if not state.partitions]:
        raise Stop(f"still missing: {', '.join(missing)}; `usher topics plan` gives the commands")


def _row(check: TopicCheck) -> dict[str, object]:
    state = check.state
    return {
        "topic": state.topic,
        "kind": state.kind,
        "partitions": state.partitions,
        "compacted": state.compacted,
        "writable": state.writable,
        "wrong": check.wrong,
        "remedy": state.remedy,
    }
