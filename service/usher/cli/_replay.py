"""The steps of `dlq replay` and `dlq drop`: choose, ask, write, follow what becomes of it, and report."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass

from usher.cli import _dead_letters as dead
from usher.cli._console import confirm, console, print_json, result, say, table
from usher.cli._dead_letters import Choice, DeadLetterEntry, Plan
from usher.cli._exits import Stop
from usher.engine.dead_letters import MAX_REPLAYS, OPEN_STATES
from usher.engine.port import Browser
from usher.settings import Settings
from usher.storage import browser

_FIRST_LOOK, _LONGEST_PAUSE = 0.25, 5.0


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
        Stop: some were refused, or failed again (1); a question needs a terminal (2); there is no such dead letter (4).
    """
    async with browser(settings) as event_log:
        now = _now()
        chosen = _choose(await dead.read(event_log, settings.group, settings.topic_names), choice, settings, now)
        plan = dead.sort_out(chosen, now, even_expired=manner.even_expired)
        if manner.dry_run:
            _print_dry_run(chosen, now, manner)
            return
        if plan.ready and manner.ask_beyond is not None and len(plan.ready) > manner.ask_beyond:
            confirm(f"Replay {len(plan.ready)} dead letters?", flag="--yes")
        asked = await dead.ask(event_log, settings.group, plan.ready, even_expired=manner.even_expired)
        if not manner.json:
            _print_plan(plan, len(asked))
        ended = {} if manner.wait is None else await _follow(event_log, settings.group, asked, manner.wait)
    if manner.json:
        print_json(_rows(plan, asked, ended))
    elif manner.wait is not None:
        _print_ended(ended)
    _judge(plan, asked, ended, choice, waited=manner.wait is not None)


async def drop(settings: Settings, choice: Choice, manner: Manner) -> None:
    """Drop the dead letters that match *choice*.

    Raises:
        Stop: the answer was no (1); a question needs a terminal (2); there is no such dead letter (4).
    """
    async with browser(settings) as event_log:
        now = _now()
        chosen = _choose(await dead.read(event_log, settings.group, settings.topic_names), choice, settings, now)
        droppable = [entry for entry in chosen if entry.dead_letter.state in OPEN_STATES]
        if manner.dry_run:
            _print_dry_run(droppable, now, manner)
            return
        if droppable and manner.ask_beyond is not None:
            confirm(f"Drop {len(droppable)} dead letters for good?", flag="--yes")
        await dead.drop(event_log, settings.group, droppable)
    if manner.json:
        print_json({"id": entry.name, "result": "dropped"} for entry in droppable)
    else:
        result(f"{len(droppable)} dropped")
    closed = [entry for entry in chosen if entry not in droppable]
    if closed and choice.names:
        raise Stop(_closed(closed))


def _choose(
    dead_letters: Sequence[DeadLetterEntry], choice: Choice, settings: Settings, now: int
) -> list[DeadLetterEntry]:
    """Choose dead letters: named ones in any state, so that the report can say why they are left out; else open ones only."""
    if choice.names:
        dead_letters = dead.named(dead_letters, dict.fromkeys(choice.names), settings.topic_names)
    else:
        dead_letters = [entry for entry in dead_letters if entry.dead_letter.state in OPEN_STATES]
    return [entry for entry in dead_letters if choice.takes(entry, now)]


async def _follow(
    event_log: Browser, group: str, asked: Mapping[str, DeadLetterEntry], limit: float
) -> dict[str, DeadLetterEntry]:
    """Return the dead letters as they are after their replays, by request id; wait at most *limit* seconds for them."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    ended: dict[str, DeadLetterEntry] = {}
    screen = console(stderr=True)
    columns = (TextColumn("Replaying"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    bar = Progress(*columns, console=screen) if screen.is_terminal else None
    with bar or nullcontext():
        task = bar.add_task("replay", total=len(asked)) if bar else None
        pause, deadline = _FIRST_LOOK, time.monotonic() + limit
        async for step in dead.outcomes(event_log, group, asked):
            ended |= step
            if bar and task is not None:
                bar.update(task, completed=len(ended))
            if len(ended) == len(asked) or time.monotonic() >= deadline:
                break
            await asyncio.sleep(min(pause, max(0.0, deadline - time.monotonic())))
            pause = min(pause * 1.5, _LONGEST_PAUSE)
    return ended


def _print_dry_run(chosen: Iterable[DeadLetterEntry], now: int, manner: Manner) -> None:
    rows = dead.summary(chosen, now)
    if manner.json:
        print_json(rows)
    elif rows:
        columns = ("handler", "reason", "dead letters", "expired", "replayed before", "beyond the limit")
        table(columns, ((row["handler"] or "(none)", *list(row.values())[1:]) for row in rows))
    else:
        say("There are no such dead letters.")


def _print_plan(plan: Plan, asked: int) -> None:
    result(f"{asked} requested")
    for entry in plan.expired:
        result(f"{entry.name}: not requested: it expired; --even-expired replays it anyway")
    for entry in plan.beyond:
        result(
            f"{entry.name}: not requested: it was replayed {MAX_REPLAYS} times already; drop it, or mend the cause of the failure"
        )
    for entry in plan.closed:
        result(f"{entry.name}: not requested: it is {entry.dead_letter.state}")


def _print_ended(ended: Mapping[str, DeadLetterEntry]) -> None:
    for entry in ended.values():
        if entry.dead_letter.state != "replayed":
            result(f"{entry.name}: {entry.dead_letter.state} {entry.dead_letter.note}".rstrip())
    result(f"{_replayed(ended)} replayed")


def _rows(
    plan: Plan, asked: Mapping[str, DeadLetterEntry], ended: Mapping[str, DeadLetterEntry]
) -> list[dict[str, object]]:
    rows: list[dict[str, object]] = []
    for id_, entry in asked.items():
        after = ended[id_].dead_letter if id_ in ended else None
        state, note = (after.state, after.note) if after else ("requested", "")
        rows.append({"id": entry.name, "request": id_, "result": state, "note": note})
    for refused, why in ((plan.expired, "expired"), (plan.beyond, "beyond-limit")):
        rows += [{"id": entry.name, "request": None, "result": why, "note": ""} for entry in refused]
    rows += [
        {
            "id": entry.name,
            "request": None,
            "result": f"already-{entry.dead_letter.state}",
            "note": entry.dead_letter.note,
        }
        for entry in plan.closed
    ]
    return rows


def _judge(
    plan: Plan,
    asked: Mapping[str, DeadLetterEntry],
    ended: Mapping[str, DeadLetterEntry],
    choice: Choice,
    *,
    waited: bool,
) -> None:
    if waited and len(ended) < len(asked):
        raise Stop(f"{len(asked) - len(ended)} of {len(asked)} replays have no outcome yet: is a worker running?")
    if waited and (failed := len(ended) - _replayed(ended)):
        raise Stop(f"{failed} of {len(asked)} replays failed again; `usher dlq list` says how")
    if plan.refused:
        raise Stop(f"{len(plan.refused)} were not requested: they are expired, or were replayed too often")
    if plan.closed and choice.names:
        raise Stop(_closed(plan.closed))


def _closed(closed: Sequence[DeadLetterEntry]) -> str:
    return "left out, since they are not open: " + ", ".join(
        f"{entry.name} ({entry.dead_letter.state})" for entry in closed
    )


def _replayed(ended: Mapping[str, DeadLetterEntry]) -> int:
    return sum(entry.dead_letter.state == "replayed" for entry in ended.values())


def _now() -> int:
    return time.time_ns() // 1_000_000
