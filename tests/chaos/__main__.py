"""``python -m tests.chaos``: workers on a real Kafka while everything fails. Exit code 0: the promises hold; 2: there is no Kafka."""

from __future__ import annotations

import argparse
import os
import random
import shutil
import sys
from pathlib import Path

from tests.chaos.command import console, on_own_broker, teller
from tests.chaos.report import show
from tests.chaos.run import chaos
from tests.java import ServerMissing


def main() -> int:
    options = _options()
    seed, seconds = options.seed, options.minutes * 60
    folder = Path("build", "chaos", f"seed-{seed}").absolute()
    screen = console()
    say = teller(screen)
    say(f"SEED={seed}, {seconds:g} s of faults")
    try:
        findings, run = on_own_broker(folder, lambda broker: chaos(broker, seed, seconds, folder, say))
    except ServerMissing as missing:
        screen.print(f"chaos needs a real Kafka: {missing}")
        return 2
    show(screen, seed, findings, run)
    if not findings.holds:
        screen.print(f"The promises do not hold. Logs: {folder}; the same plan again: make chaos SEED={seed}")
        return 1
    shutil.rmtree(folder)
    screen.print("All promises hold.")
    return 0


def _options() -> argparse.Namespace:
    given = os.environ
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument(
        "--minutes", type=float, default=given.get("MINUTES") or 1.0, help="of faults; default: MINUTES, or 1"
    )
    parser.add_argument(
        "--seed", type=int, default=given.get("SEED") or random.randrange(10**6),
        help="of the plan of faults; default: SEED, or a new one",
    )  # fmt: skip
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
