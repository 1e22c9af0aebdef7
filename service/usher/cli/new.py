"""`usher new`: files to begin with."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from usher.cli._console import result, say

app = typer.Typer(help="Write files to begin with.", no_args_is_help=True)


@app.callback()
def new() -> None:
    """Write files to begin with."""


@app.command()
def handler(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The handler's name, as in password_notice.")],
    folder: Annotated[Path, typer.Option("--dir", metavar="DIR", help="Where to write.")] = Path("handlers"),
    type_: Annotated[str, typer.Option("--type", metavar="TYPE", help="The event type.")] = "user.created",
) -> None:
    """Write a handler, its template and its test, which passes."""
    from usher.cli._scaffold import write

    for path in write(name, folder, type_):
        result(f"wrote {path}")
    say(f"Run its test:  python -m pytest {folder}\nSee it at work: USHER_HANDLERS_DIR={folder} usher handlers")
