"""Play the demo from start to end. Hides its working folder, and that its child processes end with it."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Coroutine, Sequence
from pathlib import Path
from typing import Any

from usher.demo.judge import failures
from usher.demo.outbox import DemoOutbox
from usher.demo.service import Failed, Service, environment, running
from usher.demo.story import Story, providers
from usher.terminal import say

_LAST_LINES = 15


def play(outbox: Path, *, keep: bool) -> Sequence[str]:
    """Play the demo, and return what was expected and did not happen, in sentences.

    Args:
        outbox: the folder that the messages are written to.
        keep: keep the working folder, and say where it is.

    Raises:
        OutboxError: the outbox can't be written.
        asyncio.CancelledError: SIGINT, SIGTERM or SIGHUP came.
    """
    folder = Path(tempfile.mkdtemp(prefix="usher-demo-"))
    try:
        return asyncio.run(_ending_on_signals(_play(folder, outbox)))
    finally:
        if keep:
            say(f"The working folder is {folder}.")
        else:
            shutil.rmtree(folder, ignore_errors=True)


async def _play(folder: Path, path: Path) -> Sequence[str]:
    outbox = DemoOutbox(path)
    outbox.open()
    try:
        async with providers(path) as provider, running(folder, environment(provider, os.environ)) as service:
            story = Story(service, provider, outbox)
            try:
                await story.play()
                problems = failures(story.facts)
            except Failed as failure:
                problems = [str(failure)]
            if problems:
                _print_last_lines(service)
            return problems
    finally:
        outbox.close()


def _print_last_lines(service: Service) -> None:
    sys.stdout.flush()
    say("\nThe last lines of the service's log:")
    for line in service.lines[-_LAST_LINES:]:
        say(f"  {json.dumps(line, ensure_ascii=False)}")


async def _ending_on_signals(work: Coroutine[Any, Any, Sequence[str]]) -> Sequence[str]:
    """Await *work*. SIGINT, SIGTERM and SIGHUP cancel it, so that the child processes are ended."""
    task, loop = asyncio.ensure_future(work), asyncio.get_running_loop()
    if os.name == "posix":
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            loop.add_signal_handler(number, task.cancel)
    return await task
