"""The unit for systemd: it fits what Usher does at a start and at a stop, and systemd takes it."""

from __future__ import annotations

import shutil
import subprocess
from collections import defaultdict
from pathlib import Path

import pytest

from usher.settings import Settings
from usher.settings.table import settings_table

UNIT = Path(__file__).parents[2] / "deploy" / "systemd" / "usher@.service"


def unit() -> dict[str, list[str]]:
    """The values of each option; an option may stand there several times, and section names don't matter here."""
    found: dict[str, list[str]] = defaultdict(list)
    for line in UNIT.read_text("utf-8").splitlines():
        name, equals, value = line.partition("=")
        if equals and not line.startswith("#"):
            found[name].append(value)
    return found


def test_systemd_waits_longer_than_a_stop_may_take() -> None:
    """It kills only what has outlived the grace, so a drain is never cut off."""
    [signal], [limit] = unit()["KillSignal"], unit()["TimeoutStopSec"]

    assert signal == "SIGTERM"
    assert float(limit) >= Settings().shutdown_grace + 10


def test_a_worker_is_started_again_unless_its_settings_are_wrong() -> None:
    """2 is the exit code of wrong settings (docs/operating.md); a start does not mend them."""
    assert unit()["Restart"] == ["always"]
    assert unit()["RestartPreventExitStatus"] == ["2"]


def test_the_unit_sets_nothing_that_usher_does_not_know() -> None:
    """Usher refuses variables of its own that it does not know. The files of the administrator come after and win."""
    names = [each.partition("=")[0] for each in unit()["Environment"]]

    assert {name for name in names if name.startswith("USHER_")} <= {row.name for row in settings_table()}
    assert unit()["EnvironmentFile"] == ["/etc/usher/usher.env", "-/etc/usher/usher-%i.env"]


def test_files_are_enough_for_the_sends_at_once() -> None:
    """Beside them there are 64 files and connections of webhooks."""
    [files] = unit()["LimitNOFILE"]

    assert int(files) > 64 + Settings().sends_at_once + Settings().http_limits.connections


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not installed")
def test_systemd_takes_the_unit(tmp_path: Path) -> None:
    """Every option is known in its section and has a value that can be read."""
    program = f"ExecStart={shutil.which('true')}"
    text = UNIT.read_text("utf-8").replace("ExecStart=/opt/usher/bin/usher run", program)
    assert program in text
    (tmp_path / UNIT.name).write_text(text)
    command = ["systemd-analyze", "verify", "--man=no", str(tmp_path / "usher@1.service")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)

    said = [line for line in done.stderr.splitlines() if "usher" in line]
    assert (done.returncode, said) == (0, [])
