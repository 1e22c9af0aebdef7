"""``python -m tests.chaos``: MINUTES (default 1) of faults, by the plan of SEED (default: a new one). Exit code 0: the promises hold."""

from __future__ import annotations

import asyncio
import os
import random
import shutil
import sys
import time
from pathlib import Path

from rich.console import Console
from tests.chaos.report import show
from tests.chaos.run import chaos
from tests.java import ServerMissing
from tests.kafka import BACK_SOON, Broker, jars


def main() -> int:
    seed = int(os.environ.get("SEED") or random.randrange(10**6))
    seconds = float(os.environ.get("MINUTES") or 1) * 60
    folder = Path("build", "chaos", f"seed-{seed}").absolute()
    console = Console(width=None if sys.stdout.isatty() else 140, highlight=False)
    try:
        jars()
    except ServerMissing as missing:
        console.print(f"chaos needs a real Kafka: {missing}")
        return 2
    shutil.rmtree(folder, ignore_errors=True)
    began = time.monotonic()

    def say(what: str) -> None:
        console.print(f"{time.monotonic() - began:6.1f} s  {what}", markup=False)

    say(f"SEED={seed}, {seconds:g} s of faults")
    broker = Broker(folder / "kafka", properties=BACK_SOON)
    broker.start()
    try:
        findings, run = asyncio.run(chaos(broker, seed, seconds, folder, say))
    finally:
        broker.kill()
    show(console, seed, findings, run)
    if not findings.holds:
        console.print(f"The promises do not hold. Logs: {folder}; the same plan again: make chaos SEED={seed}")
        return 1
    shutil.rmtree(folder)
    console.print("All promises hold.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
