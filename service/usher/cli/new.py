"""`usher new`: write the files of a new handler."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from usher.terminal import result, say

app = typer.Typer(help="Write files to start from: a handler, its template and its test.", no_args_is_help=True)


@app.callback()
def new() -> None:
    """Write files to start from: a handler, its template and its test."""


@app.command()
def handler(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The handler's name, as in password_notice.")],
    folder: Annotated[Path, typer.Option("--dir", metavar="DIR", help="The folder to write to.")] = Path("handlers"),
    type_: Annotated[
        str, typer.Option("--type", metavar="TYPE", help="The type of the events it is for.")
    ] = "user.created",
) -> None:
    """Write a handler, its template and a test that passes."""
    from usher.cli._scaffold import write

    for path in write(name, folder, type_):
        result(f"wrote {path}")
    say(f"Run its test: python -m pytest {folder}\nSee it listed: USHER_HANDLERS_DIR={folder} usher handlers")
