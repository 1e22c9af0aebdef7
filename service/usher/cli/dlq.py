"""`usher dlq`: list dead letters, and replay or drop them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, get_args

import typer

from usher.cli import _options as opt
from usher.terminal import print_json, result, say, table

if TYPE_CHECKING:
    from usher.operate.dead_letters import Choice

app = typer.Typer(help="List dead letters, and replay or drop them.", no_args_is_help=True)

_MANY = 10
"""Dead letters that are replayed without a question."""

Ids = Annotated[list[str] | None, typer.Argument(metavar="ID", help="Dead letters, by their ids in `dlq list`.")]
HandlerName = Annotated[str | None, typer.Option(metavar="NAME", help="Only dead letters of this handler.")]
Reason = Annotated[
    str | None, typer.Option(metavar="REASON", help="Only those with this reason, as in attempts-exhausted.")
]
OlderThan = Annotated[str | None, typer.Option(metavar="AGE", help="Only those at least this old, as in 2h.")]
NewerThan = Annotated[str | None, typer.Option(metavar="AGE", help="Only those at most this old, as in 30m.")]
All = Annotated[bool, typer.Option("--all", help="All open dead letters.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]


@app.command("list")
def list_(
    *,
    handler: HandlerName = None,
    reason: Reason = None,
    older_than: OlderThan = None,
    newer_than: NewerThan = None,
    state: Annotated[
        list[str] | None,
        typer.Option(
            metavar="STATE",
            help="open, requested, replayed, replaced, dropped, refused or all; default: open and refused.",
        ),
    ] = None,
    json: opt.Json = False,
    event_log: opt.EventLog = None,
    group: opt.Group = None,
    topics: opt.Topics = None,
) -> None:
    """List dead letters, oldest first; by default those that are open, refused or foreign."""
    from usher.cli._dead_letter_view import COLUMNS, cells, row
    from usher.operate.dead_letters import read_all

    choice, states = _choice((), handler, reason, older_than, newer_than), _states(state)
    settings = opt.load(event_log=event_log, group=group, topics=topics)
    dead_letters = asyncio.run(read_all(settings))
    now = time.time_ns() // 1_000_000
    shown = [
        row(entry, now) for entry in dead_letters if entry.dead_letter.state in states and choice.takes(entry, now)
    ]
    if json:
        print_json(shown)
    elif shown:
        table(COLUMNS, map(cells, shown), whole=3)
    else:
        say(f"There are no such dead letters in {settings.event_log}.")


@app.command()
def show(
    *,
    dead_letter: Annotated[str, typer.Argument(metavar="ID", help="The dead letter, by its id in `dlq list`.")],
    payload: Annotated[
        bool, typer.Option("--payload", help="Print the original bytes too; they hold personal data.")
    ] = False,
    json: opt.Json = False,
    event_log: opt.EventLog = None,
    group: opt.Group = None,
    topics: opt.Topics = None,
) -> None:
    """Show one dead letter, with its addresses masked."""
    from usher.cli._dead_letter_view import details, row
    from usher.operate.dead_letters import named, read_all

    settings = opt.load(event_log=event_log, group=group, topics=topics)
    entry = named(asyncio.run(read_all(settings)), [dead_letter], settings.topic_names)[0]
    shown = row(entry, time.time_ns() // 1_000_000) | details(entry.dead_letter, payload=payload)
    if json:
        print_json([shown])
        return
    body = shown.pop("payload", None)
    table(
        ("field", "value"),
        ((name.replace("_", " "), value) for name, value in shown.items() if value not in ("", None)),
    )
    if body is not None:
        result(str(body))


@app.command()
def replay(
    *,
    ids: Ids = None,
    handler: HandlerName = None,
    reason: Reason = None,
    older_than: OlderThan = None,
    newer_than: NewerThan = None,
    everything: All = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would be done; write nothing.")] = False,
    yes: Yes = False,
    even_expired: Annotated[bool, typer.Option("--even-expired", help="Replay also what has expired.")] = False,
    wait: Annotated[bool, typer.Option("--wait", help="Wait for the outcomes; exit 1 if one failed again.")] = False,
    timeout: Annotated[str, typer.Option(metavar="TIME", help="How long --wait waits.")] = "10m",
    json: opt.Json = False,
    event_log: opt.EventLog = None,
    group: opt.Group = None,
    topics: opt.Topics = None,
) -> None:
    """Ask the worker to run dead letters once more: only the handler that failed, one attempt each.

    The command returns once the event log has acknowledged the requests.

    A dead letter that could not be decoded is decoded again and routed to its handlers.
    """
    from usher.cli._replay import Manner
    from usher.cli._replay import replay as ask

    choice = _chosen(ids, handler, reason, older_than, newer_than, everything=everything)
    manner = Manner(
        dry_run=dry_run,
        ask_beyond=None if yes else _MANY,
        even_expired=even_expired,
        wait=opt.duration("--timeout", timeout) if wait else None,
        json=json,
    )
    asyncio.run(ask(opt.load(event_log=event_log, group=group, topics=topics), choice, manner))


@app.command()
def drop(
    *,
    ids: Ids = None,
    handler: HandlerName = None,
    reason: Reason = None,
    older_than: OlderThan = None,
    newer_than: NewerThan = None,
    everything: All = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would be dropped; write nothing.")] = False,
    yes: Yes = False,
    json: opt.Json = False,
    event_log: opt.EventLog = None,
    group: opt.Group = None,
    topics: opt.Topics = None,
) -> None:
    """Close dead letters for good, without sending anything.

    Their bytes stay in the topic until its retention ends.
    """
    from usher.cli._replay import Manner
    from usher.cli._replay import drop as close

    choice = _chosen(ids, handler, reason, older_than, newer_than, everything=everything)
    manner = Manner(dry_run=dry_run, ask_beyond=None if yes else 0, json=json)
    asyncio.run(close(opt.load(event_log=event_log, group=group, topics=topics), choice, manner))


def _chosen(
    ids: list[str] | None,
    handler: str | None,
    reason: str | None,
    older_than: str | None,
    newer_than: str | None,
    *,
    everything: bool,
) -> Choice:
    choice = _choice(ids or (), handler, reason, older_than, newer_than)
    if choice.empty and not everything:
        raise typer.BadParameter(
            "no dead letter is chosen: give ids, --handler, --reason, --older-than, --newer-than or --all"
        )
    if everything and not choice.empty:
        raise typer.BadParameter(
            "--all chooses all open dead letters: leave out the ids and the other options, or leave out --all"
        )
    return choice


def _choice(
    ids: Sequence[str], handler: str | None, reason: str | None, older_than: str | None, newer_than: str | None
) -> Choice:
    from usher.operate.dead_letters import Choice

    return Choice(
        names=tuple(ids),
        handler=handler,
        reason=reason,
        older_than=None if older_than is None else opt.duration("--older-than", older_than),
        newer_than=None if newer_than is None else opt.duration("--newer-than", newer_than),
    )


def _states(asked: list[str] | None) -> frozenset[str]:
    from usher.engine.dead_letters import LISTED_STATES, State

    known = frozenset(get_args(State))
    if not asked:
        return frozenset(LISTED_STATES)
    for state in asked:
        if state not in known | {"all"}:
            raise typer.BadParameter(f"--state {state}: should be one of {', '.join(sorted(known))}, all")
    return known if "all" in asked else frozenset(asked)
