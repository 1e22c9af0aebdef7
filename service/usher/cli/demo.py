"""`usher demo`: show the whole way of an event on this machine alone, and check that all of it happened."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Coroutine, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from usher.cli._console import console, result, say
from usher.cli._exits import Exit, Stop

if TYPE_CHECKING:
    from usher.cli._demo_service import Service

_TAIL = 15


def demo(
    *,
    outbox: Annotated[
        Path,
        typer.Option(metavar="DIR", help="Where the stand-ins for SendGrid and Twilio write the messages they accept."),
    ] = Path("outbox"),
    keep: Annotated[
        bool, typer.Option("--keep", help="Keep the working folder: the event log's file and the service's log lines.")
    ] = False,
) -> None:
    """Show Usher at work. No account and no broker is needed, and nothing leaves this machine.

    Events come in and messages go out; one message is retried, one is dead-lettered and replayed.

    The exit code is 0 only if the outbox, the dead letters and the metrics show that all of it happened.
    """
    began = time.monotonic()
    folder = Path(tempfile.mkdtemp(prefix="usher-demo-"))
    try:
        problems = asyncio.run(_ending_on_signals(_play(folder, outbox)))
    except asyncio.CancelledError:
        raise typer.Exit(Exit.INTERRUPTED) from None
    finally:
        if keep:
            say(f"The working folder is {folder}.")
        else:
            shutil.rmtree(folder, ignore_errors=True)
    if problems:
        raise Stop("\n".join(["The demo failed:", *(f"- {problem}" for problem in problems)]))
    console().print("\nAll of this really happened: the outbox, dlq list and /metrics show it.", style="bold green")
    result(f"It took {time.monotonic() - began:.0f} s. The README says how to go on.")


async def _play(folder: Path, outbox: Path) -> Sequence[str]:
    """Play the story, and return what was expected and did not happen."""
    from usher.cli._demo_judge import failures
    from usher.cli._demo_outbox import DemoOutbox
    from usher.cli._demo_service import Failed, environment, running
    from usher.cli._demo_story import Story, providers

    kept = DemoOutbox(outbox)
    kept.open()
    try:
        async with providers(outbox) as provider, running(folder, environment(provider, os.environ)) as service:
            story = Story(service, provider, kept)
            try:
                await story.play()
                problems = failures(story.facts)
            except Failed as failure:
                problems = [str(failure)]
            if problems:
                _show_tail(service)
            return problems
    finally:
        kept.close()


def _show_tail(service: Service) -> None:
    sys.stdout.flush()
    say("\nThe last lines of the service's log:")
    for line in service.lines[-_TAIL:]:
        say(f"  {json.dumps(line, ensure_ascii=False)}")


async def _ending_on_signals(work: Coroutine[Any, Any, Sequence[str]]) -> Sequence[str]:
    """Await *work*. SIGTERM and SIGHUP cancel it as Ctrl-C does, so that the child processes are ended."""
    task, loop = asyncio.ensure_future(work), asyncio.get_running_loop()
    if os.name == "posix":
        for number in (signal.SIGTERM, signal.SIGHUP):
            loop.add_signal_handler(number, task.cancel)
    return await task
