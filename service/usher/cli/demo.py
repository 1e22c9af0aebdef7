"""`usher demo`: show the whole way of an event on this machine alone, and check that all of it happened."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Annotated

import typer

from usher.cli._exits import Exit, Stop
from usher.terminal import console, result


def demo(
    *,
    outbox: Annotated[
        Path,
        typer.Option(metavar="DIR", help="Where the stand-ins for SendGrid and Twilio write the messages they accept."),
    ] = Path("outbox"),
    keep: Annotated[
        bool,
        typer.Option("--keep", help="Keep the working folder: the event log's file and the service's log lines."),
    ] = False,
) -> None:
    """Show Usher at work. No account and no broker is needed, and nothing leaves this machine.

    Events come in and messages go out; one message is retried, one is dead-lettered and replayed.

    The exit code is 0 only if the outbox, the dead letters and the metrics show that all of it happened.
    """
    from usher.demo.play import play

    began = time.monotonic()
    try:
        problems = play(outbox, keep=keep)
    except asyncio.CancelledError:
        raise typer.Exit(Exit.INTERRUPTED) from None
    if problems:
        raise Stop("\n".join(["The demo failed:", *(f"- {problem}" for problem in problems)]))
    console().print("\nAll of this really happened: the outbox, dlq list and /metrics show it.", style="bold green")
    result(f"It took {time.monotonic() - began:.0f} s. The README says how to go on.")
