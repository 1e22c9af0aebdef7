"""The distribution: what it says of itself, and what it installs."""

import re
import tomllib
from importlib.metadata import distribution, entry_points
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import usher

ROOT = Path(__file__).parents[2]
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
PIN = re.compile(r"^([A-Za-z0-9._-]+)==(\S+)", re.MULTILINE)
LOCKS = ("requirements.lock", "requirements-dev.lock", "requirements-bench.lock")


def pinned(*locks: str) -> dict[str, str]:
    return {
        canonicalize_name(name): version
        for lock in locks
        for name, version in PIN.findall((ROOT / lock).read_text("utf-8"))
    }


def test_the_version_has_one_place() -> None:
    """The metadata takes it from the package."""
    assert distribution("usher-hooks").version == usher.__version__


def test_the_command_and_the_handlers_are_announced() -> None:
    """One name everywhere: file, function and entry point are the same word."""
    announced = [point for point in entry_points(group="usher.handlers") if point.module.startswith("usher_handlers.")]

    assert {point.name for point in announced} == {
        "welcome_email",
        "sms_notice",
        "reset_instructions",
        "force_password_change",
        "clear_reset_flag",
    }
    assert all(point.value == f"usher_handlers.{point.name}:{point.name}" for point in announced)
    assert all((ROOT / "handlers" / "usher_handlers" / f"{point.name}.py").is_file() for point in announced)
    assert [point.value for point in entry_points(group="console_scripts", name="usher")] == ["usher.cli:main"]


def test_the_locks_hold_everything_that_is_asked_for() -> None:
    """The runtime's lock has the build backend too, since the project is installed without isolation."""
    runtime = [*PROJECT["project"]["dependencies"], *PROJECT["build-system"]["requires"], "editables"]
    groups = [line for group in PROJECT["dependency-groups"].values() for line in group]

    for lines, locks in ((runtime, LOCKS[:1]), (groups, LOCKS)):
        pins = pinned(*locks)
        for requirement in map(Requirement, lines):
            version = pins.get(canonicalize_name(requirement.name))
            assert version is not None, f"{requirement} is in no lock: run `make lock`"
            assert requirement.specifier.contains(version), f"{requirement} is locked at {version}: run `make lock`"


@pytest.mark.parametrize(("first", "second"), list(combinations(LOCKS, 2)))
def test_the_locks_agree(first: str, second: str) -> None:
    """They are installed together: two versions of one package would be refused."""
    these, those = pinned(first), pinned(second)

    assert {name: these[name] for name in these.keys() & those.keys()} == {
        name: those[name] for name in these.keys() & those.keys()
    }


@pytest.mark.parametrize("lock", LOCKS)
def test_a_lock_has_hashes_and_no_place(lock: str) -> None:
    """Where packages come from is the machine's affair; what they are is ours."""
    text = (ROOT / lock).read_text("utf-8")

    assert "://" not in text
    assert "--index-url" not in text
    assert "--find-links" not in text
    for entry in re.split(r"\n(?=[A-Za-z])", text)[1:]:
        assert "--hash=sha256:" in entry, entry.splitlines()[0]


def test_the_python_versions_that_are_claimed_are_those_that_are_run() -> None:
    """3.11 by CI, 3.13 in the image."""
    claimed = [name for name in PROJECT["project"]["classifiers"] if re.search(r":: 3\.\d+$", name)]

    assert [name.rpartition(" ")[2] for name in claimed] == ["3.11", "3.13"]
    assert PROJECT["project"]["requires-python"] == ">=3.11"


@pytest.mark.parametrize(
    "target", ["demo", "test", "lint", "types", "contracts", "check", "image-test", "lock", "clean"]
)
def test_make_knows_its_targets(target: str) -> None:
    """What the README, CONTRIBUTING and CI call exists."""
    assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE)
