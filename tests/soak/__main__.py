"""``python -m tests.soak``: workers on a real Kafka for long: kills, steady load, an outage, a flood of strangers.

Exit code 0: all goals are reached, and docs/guarantees.md has the figures; 1: it says which are not, and writes nothing;
2: there is no Kafka. A run that is shorter than the goals writes nothing either.
"""

from __future__ import annotations

import argparse
import logging
import os
import random
import shutil
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path

from rich.console import Console
from tests import machine
from tests.chaos.command import console, on_own_broker, teller
from tests.java import ServerMissing
from tests.measures import goals
from tests.soak.flood import flood
from tests.soak.page import with_figures
from tests.soak.phases import kills, outage, steady
from tests.soak.stand import Options, Played, Scene

PAGE = Path(__file__).parents[2] / "docs" / "guarantees.md"
PHASES: Mapping[str, Callable[[Scene], Awaitable[Played]]] = {
    "kills": kills,
    "steady": steady,
    "outage": outage,
    "flood": flood,
}
_WHOLE = Options()


async def soak(scene: Scene, phases: Sequence[str]) -> dict[str, Played]:
    """Play *phases*, one after the other: what each has measured, by name."""
    # aiokafka logs each broken connection; to break them is the point
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)
    played = {}
    for name in phases:
        scene.say(name)
        played[name] = await PHASES[name](scene)
    return played


def main() -> int:
    phases, options = _options()
    folder = Path("build", "soak").absolute()
    screen = console()
    say = teller(screen)
    say(f"{', '.join(phases)}: {options}")

    try:
        played = on_own_broker(folder, lambda broker: soak(Scene(broker, folder, options, say), phases))
    except ServerMissing as missing:
        screen.print(f"the soak needs a real Kafka: {missing}")
        return 2
    return _told(screen, played, options, folder)


def _told(screen: Console, played: Mapping[str, Played], options: Options, folder: Path) -> int:
    screen.print(goals([measure for each in played.values() for measure in each.measures]), markup=False)
    for name, each in played.items():
        for note in each.notes:
            screen.print(f"{name}: {note}", markup=False)
    if any(each.missed for each in played.values()):
        screen.print(
            f"Not all goals are reached. Nothing is written. Logs: {folder}; the same kills again: SEED={options.seed}"
        )
        return 1
    shutil.rmtree(folder)
    if options.shorter_than(_WHOLE):
        screen.print("All goals are reached. Nothing is written, because the run was shorter than the goals.")
        return 0
    text = PAGE.read_text("utf-8")
    for name, each in played.items():
        text = with_figures(text, name, each, options, machine.about())
    PAGE.write_text(text, "utf-8")
    screen.print("All goals are reached. Written: docs/guarantees.md")
    return 0


def _options() -> tuple[list[str], Options]:
    given = os.environ
    parser = argparse.ArgumentParser(
        prog="python -m tests.soak", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )

    def option(name: str, kind: type, default: object, text: str) -> None:
        parser.add_argument(
            f"--{name}",
            type=kind,
            default=given.get(name.upper()) or default,
            help=f"{text}; default: {name.upper()}, or {default}",
        )

    option("phases", str, ",".join(PHASES), "comma separated")
    option("kills", int, _WHOLE.kills, "how many")
    option("minutes", float, _WHOLE.minutes, "of steady load")
    option("rate", float, _WHOLE.rate, "events a second")
    option("outage", float, _WHOLE.outage, "seconds without a broker")
    option("seed", int, random.randrange(10**6), "of what chance picks")
    found = parser.parse_args()
    phases = found.phases.split(",")
    if unknown := [name for name in phases if name not in PHASES]:
        parser.error(f"no phase is named {' or '.join(unknown)}; there are {', '.join(PHASES)}")
    return phases, Options(found.kills, found.minutes, found.rate, found.outage, seed=found.seed)


if __name__ == "__main__":
    sys.exit(main())
