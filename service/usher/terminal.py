"""Print on the terminal: lines and tables for people, one JSON array for programs, times and durations in one form.

Event ids and error texts come from strangers: nothing in them is read as markup, and characters that control a terminal, turn
the direction of writing or end a line are shown as escapes, not sent.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from rich.console import Console

_PIPE_WIDTH = 10_000
"""Columns where there is no terminal: a line that a program reads is not wrapped."""

_UNSEEN = re.compile(
    "[\x00-\x09\x0b-\x1f\x7f-\x9f\xad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u2028-\u202e\u2060-\u206f"
    "\u3164\ud800-\udfff\ufe00-\ufe0f\ufeff\uffa0\ufff0-\uffff\U000e0000-\U000e0fff]"
)
"""Controls (C0, C1), marks of direction, line and paragraph separators, characters without width, lone surrogates."""

_STYLES = {"ok": "green", "warn": "yellow", "problem": "bold red"}


def console(*, stderr: bool = False) -> Console:
    """Return a console on the present stdout (or stderr); without colour if that is no terminal."""
    from rich.console import Console

    stream = sys.stderr if stderr else sys.stdout
    width = None if stream.isatty() else _PIPE_WIDTH
    return Console(file=stream, markup=False, highlight=False, emoji=False, soft_wrap=width is not None, width=width)


def open_closed_streams() -> None:
    """Let standard streams that the caller has closed lead nowhere, so that no file of ours takes their descriptors.

    A crash writes its last words to descriptor 2, whatever file that is.
    """
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # it takes the lowest free descriptor: this one
    if sys.stdout is None:
        sys.stdout = _nowhere()


def say(text: str) -> None:
    """Print a line for the person at the terminal, on stderr: stdout is for results. Where stderr takes none, it is lost."""
    try:
        if sys.stderr is not None:
            sys.stderr.write(f"{plain(text)}\n")
            sys.stderr.flush()
    except (OSError, ValueError):
        sys.stderr = _nowhere()  # Python would try again at the end, and change the exit code


def flushed() -> bool:
    """Return whether all results could be written."""
    try:
        sys.stdout.flush()
    except (OSError, ValueError) as error:
        sys.stdout = _nowhere()
        say(f"usher: the result can't be written: {error}")
        return False
    return True


def _nowhere() -> TextIO:
    return open(os.devnull, "w", encoding="utf-8")  # noqa: PTH123 it is open until the end


def result(text: str) -> None:
    """Print a line of the result, on stdout."""
    sys.stdout.write(f"{plain(text)}\n")


def table(columns: Sequence[str], rows: Iterable[Sequence[object]], *, whole: int = 1) -> None:
    """Print *rows* under *columns*. The first *whole* columns are not wrapped; None is an empty cell.

    The words ok, warn and problem are coloured.
    """
    from rich import box
    from rich.table import Table
    from rich.text import Text

    screen = console()
    grid = Table(box=box.SIMPLE_HEAD if screen.is_terminal else None, pad_edge=False)
    for number, column in enumerate(columns):
        grid.add_column(column, overflow="fold", no_wrap=number < whole)
    for row in rows:
        cells = ("" if cell is None else one_line(str(cell)) for cell in row)
        grid.add_row(*(Text(cell, style=_STYLES.get(cell, "")) for cell in cells))
    with screen.capture() as capture:
        screen.print(grid)
    sys.stdout.writelines(f"{line.rstrip()}\n" for line in capture.get().splitlines())


def print_json(rows: Iterable[Mapping[str, object]]) -> None:
    """Print *rows* as one JSON array."""
    sys.stdout.write(f"{visible(json.dumps(list(rows), indent=2, ensure_ascii=False))}\n")


def plain(text: str) -> str:
    """Return *text* with what controls a terminal as escapes; line feeds and tabs stay."""
    return text if text.isprintable() else "".join(char if char in "\n\t" else visible(char) for char in text)


def one_line(text: str) -> str:
    """Return *text* as `plain` does, on one line."""
    return visible(text.replace("\n", "\\n").replace("\t", "\\t"))


def visible(text: str) -> str:
    """Return *text*, which may be a JSON document, with what can't be seen in it as JSON escapes; its own line feeds stay."""
    return text if text.isprintable() else _UNSEEN.sub(_escape, text)


def _escape(char: re.Match[str]) -> str:
    units = char[0].encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[at]:02x}{units[at + 1]:02x}" for at in range(0, len(units), 2))


def moment(milliseconds: int | None) -> str:
    """Write a time, given in Unix milliseconds, in UTC to the second; None becomes an empty text."""
    return "" if milliseconds is None else iso(milliseconds).replace("T", " ").removesuffix("+00:00") + "Z"


def iso(milliseconds: int) -> str:
    """Write a time, given in Unix milliseconds, as ISO 8601 in UTC to the second; as the number where no date has it."""
    try:
        return datetime.fromtimestamp(milliseconds // 1000, UTC).isoformat()
    except (OverflowError, ValueError, OSError):
        return str(milliseconds)
