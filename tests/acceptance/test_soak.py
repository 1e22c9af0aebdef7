"""`make soak`, the short form: its phases play, and find nothing broken; and the commands explain themselves."""

from __future__ import annotations

import asyncio
import math
import sys
from pathlib import Path

import pytest
from tests.kafka import Broker
from tests.soak.__main__ import soak
from tests.soak.stand import Options, Scene


@pytest.mark.timeout(300)
async def test_a_short_soak_finds_nothing_broken(kafka: Broker, tmp_path: Path) -> None:
    """Two kills under load, some steady seconds, and fifty strangers: all that was acknowledged is delivered.

    So short a time says nothing of how memory grows, and the speed of the answers depends on what else the machine does.
    """
    options = Options(kills=2, minutes=0.1, rate=40, flood=0.02)
    played = await soak(Scene(kafka, tmp_path, options, print), ["kills", "steady", "flood"])
    figures = {(each.work, each.what): each.value for one in played.values() for each in one.measures}
    missed = [
        each for one in played.values() for each in one.missed if "growth" not in each.what and each.unit != " ms"
    ]

    assert missed == []
    assert figures["kills", "workers killed"] == 2
    assert figures["kills", "calls under way when they were"] > 0
    assert all(math.isfinite(value) for value in figures.values())
    assert figures["steady", "most memory of a worker"] > 20
    assert (tmp_path / "steady" / "memory.csv").read_text().count("\n") > 100


@pytest.mark.parametrize(("command", "option"), [("tests.soak", "--kills"), ("tests.chaos", "--seed")])
async def test_the_commands_say_what_they_take(command: str, option: str) -> None:
    """`--help` plays nothing, and an option that there is not is refused."""
    for argument, code in (("--help", 0), ("--minute-s", 2)):
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", command, argument, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
        )
        out, err = await process.communicate()
        assert process.returncode == code
        assert option in (out + err).decode()
