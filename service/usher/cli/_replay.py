"""How `dlq replay` and `dlq drop` go about it: choose, tell, ask, write, and follow what becomes of it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass

from usher.cli import _dead_letters as dead
from usher.cli._console import confirm, console, print_json, result, say, table
from usher.cli._dead_letters import Choice, ListedDeadLetter, Plan
from usher.cli._exits import Stop
from usher.engine.dead_letters import MAX_REPLAYS, OPEN_STATES
from usher.eventlog.browse import Browser
from usher.settings import Settings
from usher.storage import browser

_FIRST_LOOK, _LONGEST_PAUSE = 0.25, 5.0


@dataclass(frozen=True, slots=True)
class Manner:
    """How to go about it. *ask_beyond*: more letters than this need a yes (None: none do); *wait*: seconds, None: don't."""

    dry_run: bool = False
    ask_beyond: int | None = None
    even_expired: bool = False
    wait: float | None = None
    json: bool = False


async def replay(settings: Settings, choice: Choice, manner: Manner) -> None:
    """Request the replay of the letters that *choice* means.

    Raises:
        Stop: some of them were refused, or failed again (1); a question needs a terminal (2); no such letter (4).
    """
    async with browser(settings) as log:
        now = _now()
        chosen = _choose(await dead.read(log, settings.group, settings.topic_names), choice, settings, now)
        plan = dead.sort_out(chosen, now, even_expired=manner.even_expired)
        if manner.dry_run:
            _tell_dry(chosen, now, manner)
            return
        if plan.ready and manner.ask_beyond is not None and len(plan.ready) > manner.ask_beyond:
            confirm(f"Replay {len(plan.ready)} dead letters?", flag="--yes")
        asked = await dead.ask(log, settings.group, plan.ready, even_expired=manner.even_expired)
        if not manner.json:
            _tell(plan, len(asked))
        ended = {} if manner.wait is None else await _follow(log, settings.group, asked, manner.wait)
    if manner.json:
        print_json(_rows(plan, asked, ended))
    elif manner.wait is not None:
        _tell_ended(ended)
    _judge(plan, asked, ended, choice, waited=manner.wait is not None)


async def drop(settings: Settings, choice: Choice, manner: Manner) -> None:
    """Note that the letters that *choice* means were dropped.

    Raises:
        Stop: the answer was no (1); a question needs a terminal (2); no such letter (4).
    """
    async with browser(settings) as log:
        now = _now()
        chosen = _choose(await dead.read(log, settings.group, settings.topic_names), choice, settings, now)
        droppable = [listed for listed in chosen if listed.dead_letter.state in OPEN_STATES]
        if manner.dry_run:
            _tell_dry(droppable, now, manner)
            return
        if droppable and manner.ask_beyond is not None:
            confirm(f"Drop {len(droppable)} dead letters for good?", flag="--yes")
        await dead.drop(log, settings.group, droppable)
    if manner.json:
        print_json({"id": listed.name, "result": "dropped"} for listed in droppable)
    else:
        result(f"{len(droppable)} dropped")
    closed = [listed for listed in chosen if listed not in droppable]
    if closed and choice.names:
        raise Stop(_closed(closed))


def _choose(
    dead_letters: Sequence[ListedDeadLetter], choice: Choice, settings: Settings, now: int
) -> list[ListedDeadLetter]:
    """Letters named are taken in any state, to say why they are left out; otherwise only open ones are meant."""
    if choice.names:
        dead_letters = dead.named(dead_letters, dict.fromkeys(choice.names), settings.topic_names)
    else:
        dead_letters = [listed for listed in dead_letters if listed.dead_letter.state in OPEN_STATES]
    return [listed for listed in dead_letters if choice.takes(listed, now)]


async def _follow(
    log: Browser, group: str, asked: Mapping[str, ListedDeadLetter], limit: float
) -> dict[str, ListedDeadLetter]:
    """The letters as they are after their replays, by request id; without those that took longer than *limit* seconds."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    ended: dict[str, ListedDeadLetter] = {}
    screen = console(stderr=True)
    columns = (TextColumn("Replaying"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    bar = Progress(*columns, console=screen) if screen.is_terminal else None
    with bar or nullcontext():
        task = bar.add_task("replay", total=len(asked)) if bar else None
        pause, deadline = _FIRST_LOOK, time.monotonic() + limit
        async for step in dead.outcomes(log, group, asked):
            ended |= step
            if bar and task is not None:
                bar.update(task, completed=len(ended))
            if len(ended) == len(asked) or time.monotonic() >= deadline:
                break
            await asyncio.sleep(min(pause, max(0.0, deadline - time.monotonic())))
            pause = min(pause * 1.5, _LONGEST_PAUSE)
    return ended


def _tell_dry(chosen: Iterable[ListedDeadLetter], now: int, manner: Manner) -> None:
    rows = dead.summary(chosen, now)
    if manner.json:
        print_json(rows)
    elif rows:
        columns = ("handler", "reason", "dead letters", "expired", "replayed before", "beyond the limit")
        table(columns, ((row["handler"] or "(none)", *list(row.values())[1:]) for row in rows))
    else:
        say("There are no such dead letters.")


def _tell(plan: Plan, asked: int) -> None:
    result(f"{asked} requested")
    for listed in plan.expired:
        result(f"{listed.name}: not requested: it expired; --even-expired sends it all the same")
    for listed in plan.beyond:
        result(f"{listed.name}: not requested: replayed {MAX_REPLAYS} times already; drop it, or mend what it fails at")
    for listed in plan.closed:
        result(f"{listed.name}: not requested: it is {listed.dead_letter.state}")


def _tell_ended(ended: Mapping[str, ListedDeadLetter]) -> None:
    for listed in ended.values():
        if listed.dead_letter.state != "replayed":
            result(f"{listed.name}: {listed.dead_letter.state} {listed.dead_letter.note}".rstrip())
    result(f"{_replayed(ended)} replayed")


def _rows(
    plan: Plan, asked: Mapping[str, ListedDeadLetter], ended: Mapping[str, ListedDeadLetter]
) -> list[dict[str, object]]:
    rows: list[dict[str, object]] = []
    for id_, listed in asked.items():
        after = ended[id_].dead_letter if id_ in ended else None
        state, note = (after.state, after.note) if after else ("requested", "")
        rows.append({"id": listed.name, "request": id_, "result": state, "note": note})
    for refused, why in ((plan.expired, "expired"), (plan.beyond, "beyond-limit")):
        rows += [{"id": listed.name, "request": None, "result": why, "note": ""} for listed in refused]
    rows += [
        {
            "id": listed.name,
            "request": None,
            "result": f"already-{listed.dead_letter.state}",
            "note": listed.dead_letter.note,
        }
        for listed in plan.closed
    ]
    return rows


def _judge(
    plan: Plan,
    asked: Mapping[str, ListedDeadLetter],
    ended: Mapping[str, ListedDeadLetter],
    choice: Choice,
    *,
    waited: bool,
) -> None:
    if waited and len(ended) < len(asked):
        raise Stop(f"{len(asked) - len(ended)} of {len(asked)} replays have no outcome yet: is a worker running?")
    if waited and (failed := len(ended) - _replayed(ended)):
        raise Stop(f"{failed} of {len(asked)} replays failed again; `usher dlq list` says how")
    if plan.refused:
        raise Stop(f"{len(plan.refused)} were not requested: expired, or replayed too often")
    if plan.closed and choice.names:
        raise Stop(_closed(plan.closed))


def _closed(closed: Sequence[ListedDeadLetter]) -> str:
    return "left out, not open: " + ", ".join(f"{listed.name} ({listed.dead_letter.state})" for listed in closed)


def _replayed(ended: Mapping[str, ListedDeadLetter]) -> int:
    return sum(listed.dead_letter.state == "replayed" for listed in ended.values())


def _now() -> int:
    return time.time_ns() // 1_000_000
