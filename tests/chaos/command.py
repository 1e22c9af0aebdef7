"""What the commands that play on a real Kafka share: lines with the time, a folder for logs, and a broker that can be killed."""

from __future__ import annotations

import asyncio
import shutil
import sys
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, TypeVar

from rich.console import Console
from tests.kafka import BACK_SOON, Broker

Result = TypeVar("Result")
Say = Callable[[str], None]


def console() -> Console:
    """Where the command prints: as wide as the terminal, or wide enough for a table."""
    return Console(width=None if sys.stdout.isatty() else 140, highlight=False)


def teller(where: Console) -> Say:
    """What prints a line with the seconds since now before it."""
    began = time.monotonic()
    return lambda what: where.print(f"{time.monotonic() - began:6.1f} s  {what}", markup=False)


def on_own_broker(folder: Path, play: Callable[[Broker], Coroutine[Any, Any, Result]]) -> Result:
    """Start a broker in *folder*, which is emptied before, and *play* on it. What comes of that; the broker ends.

    Raises:
        ServerMissing: there is no Kafka here.
    """
    shutil.rmtree(folder, ignore_errors=True)
    broker = Broker(folder / "kafka", properties=BACK_SOON)
    broker.start()
    try:
        return asyncio.run(play(broker))
    finally:
        broker.kill()
