"""Present `dlq replay` and `dlq drop`: ask for a yes, show the progress, report the results, and choose the exit code."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable
from contextlib import nullcontext
from dataclasses import dataclass

import typer

from usher.cli._exits import Exit, Stop
from usher.engine.dead_letters import MAX_REPLAYS
from usher.eventlog.browse import Browser
from usher.operate import dead_letters as dead
from usher.operate.dead_letters import Choice, DeadLetterEntry
from usher.operate.replay import ReplayBatch, ReplayResult, ask, follow, sort_out
from usher.settings import Settings
from usher.storage import browser
from usher.terminal import console, print_json, result, say, table


@dataclass(frozen=True, slots=True)
class Manner:
    """The options of a replay or drop. *ask_beyond*: more dead letters than this need a yes, None: never ask. *wait*: in seconds."""

    dry_run: bool = False
    ask_beyond: int | None = None
    even_expired: bool = False
    wait: float | None = None
    json: bool = False


async def replay(settings: Settings, choice: Choice, manner: Manner) -> None:
    """Request a replay of the dead letters that match *choice*.

    Raises:
        Stop: some were refused, or failed again (1); a question needs a terminal (2).
        NotFound: there is no such dead letter.
    """
    async with browser(settings) as event_log:
        now = _now()
        dead_letters = await dead.read(event_log, settings.group, settings.topic_names)
        chosen = dead.chosen(dead_letters, choice, settings.topic_names, now)
        work = sort_out(chosen, now, even_expired=manner.even_expired)
        if manner.dry_run:
            _print_dry_run(chosen, now, manner, settings)
            return
        if work.ready and manner.ask_beyond is not None and len(work.ready) > manner.ask_beyond:
            _confirm(f"Replay {len(work.ready)} dead letters?")
        await ask(event_log, settings.group, work, even_expired=manner.even_expired)
        if not manner.json:
            _print_requested(work)
        if manner.wait is not None:
            await _follow(event_log, settings.group, work, manner.wait)
    if manner.json:
        print_json(map(_row, work.results()))
    elif manner.wait is not None:
        _print_ended(work)
    _judge(work, choice, waited=manner.wait is not None)


async def drop(settings: Settings, choice: Choice, manner: Manner) -> None:
    """Drop the dead letters that match *choice*.

    Raises:
        Stop: the answer was no (1); a question needs a terminal (2).
        NotFound: there is no such dead letter.
    """
    async with browser(settings) as event_log:
        now = _now()
        dead_letters = await dead.read(event_log, settings.group, settings.topic_names)
        chosen = dead.chosen(dead_letters, choice, settings.topic_names, now)
        droppable = [entry for entry in chosen if entry.open]
        if manner.dry_run:
            _print_dry_run(droppable, now, manner, settings)
            return
        if droppable and manner.ask_beyond is not None:
            _confirm(f"Drop {len(droppable)} dead letters for good?")
        await dead.drop(event_log, settings.group, droppable)
    if manner.json:
        print_json({"id": entry.name, "result": "dropped"} for entry in droppable)
    else:
        result(f"{len(droppable)} dropped")
    if choice.names:
        _refuse_closed(entry for entry in chosen if not entry.open)


def _confirm(question: str) -> None:
    """Ask a question, and return only after a yes.

    Raises:
        Stop: the answer was no (1); there is no terminal to ask on (2).
    """
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise Stop(f"{question} There is no terminal to ask on; give --yes.", Exit.USAGE)
    if not typer.confirm(question, err=True):
        raise Stop("Nothing was done.")


async def _follow(event_log: Browser, group: str, work: ReplayBatch, limit: float) -> None:
    """Follow the replays for at most *limit* seconds, with a progress bar on a terminal."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    screen = console(stderr=True)
    columns = (TextColumn("Replaying"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    bar = Progress(*columns, console=screen) if screen.is_terminal else None
    with bar or nullcontext():
        task = bar.add_task("replay", total=len(work.asked)) if bar else None
        async for _ in follow(event_log, group, work, within=limit):
            if bar and task is not None:
                bar.update(task, completed=len(work.ended))


def _print_dry_run(chosen: Iterable[DeadLetterEntry], now: int, manner: Manner, settings: Settings) -> None:
    rows = dead.summary(chosen, now)
    if manner.json:
        print_json(rows)
    elif rows:
        columns = ("handler", "reason", "dead letters", "expired", "replayed before", "beyond the limit")
        table(columns, ((row["handler"] or "(none)", *list(row.values())[1:]) for row in rows))
    else:
        say(f"There are no such dead letters in {settings.event_log}.")


def _print_requested(work: ReplayBatch) -> None:
    result(f"{len(work.asked)} requested")
    for entry in work.expired:
        result(f"{entry.name}: not requested: it expired; --even-expired replays it anyway")
    for entry in work.beyond:
        result(f"{entry.name}: not requested: it was replayed {MAX_REPLAYS} times already; mend the cause, or drop it")
    for entry in work.closed:
        result(f"{entry.name}: not requested: it is {entry.dead_letter.state}")


def _print_ended(work: ReplayBatch) -> None:
    for entry in work.ended.values():
        if entry.dead_letter.state != "replayed":
            result(f"{entry.name}: {entry.dead_letter.state} {entry.dead_letter.note}".rstrip())
    result(f"{work.replayed} replayed")


def _row(one: ReplayResult) -> dict[str, object]:
    return {"id": one.entry.name, "request": one.request, "result": one.result, "note": one.note}


def _judge(work: ReplayBatch, choice: Choice, *, waited: bool) -> None:
    if waited and work.unanswered:
        raise Stop(f"{work.unanswered} of {len(work.asked)} replays have no outcome yet: is a worker running?")
    if waited and work.failed:
        raise Stop(f"{work.failed} of {len(work.asked)} replays failed again; `usher dlq list` says how")
    if work.refused:
        raise Stop(f"{len(work.refused)} were not requested: they are expired, or were replayed too often")
    if choice.names:
        _refuse_closed(work.closed)


def _refuse_closed(closed: Iterable[DeadLetterEntry]) -> None:
    if states := [f"{entry.name} ({entry.dead_letter.state})" for entry in closed]:
        raise Stop(f"left out, since they are not open: {', '.join(states)}")


def _now() -> int:
    return time.time_ns() // 1_000_000
