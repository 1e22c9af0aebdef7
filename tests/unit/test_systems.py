"""The folders of the identity systems: each stands alone, and has what the registry finds there."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from usher.registry import SYSTEMS, part
from usher.settings.tenant import TenantSettings

FOLDERS = Path(__file__).parents[2] / "service" / "usher" / "systems"


def imported(file: Path) -> set[str]:
    """The modules that a file imports."""
    nodes = list(ast.walk(ast.parse(file.read_text("utf-8"))))
    froms = {node.module or "" for node in nodes if isinstance(node, ast.ImportFrom)}
    return froms | {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}


@pytest.mark.parametrize("system", SYSTEMS)
def test_no_system_knows_another(system: str) -> None:
    """A folder can be read, changed and removed alone."""
    others = [package for name, package in SYSTEMS.items() if name != system]
    seen = {module for file in (FOLDERS / system).glob("*.py") for module in imported(file)}

    assert seen & {f"{SYSTEMS[system]}.source", f"{SYSTEMS[system]}.settings"}  # the test is able to fail
    assert [module for module in seen if module.startswith(tuple(others))] == []


@pytest.mark.parametrize("system", SYSTEMS)
def test_the_registry_finds_its_parts(system: str) -> None:
    """Event types, settings, and what opens it; its source has the name that the registry has."""
    assert "user.created" in part(system, "event_types").EVENT_TYPES
    assert issubclass(part(system, "settings").SETTINGS, TenantSettings)
    opened = part(system, "open").open_system(
        part(system, "settings").SETTINGS(), "", lambda: pytest.fail("no request")
    )
    assert opened.title == system


def test_every_folder_is_in_the_registry() -> None:
    """A folder without its name there would be code that nothing runs."""
    assert {folder.name for folder in FOLDERS.iterdir() if (folder / "source.py").exists()} == set(SYSTEMS)
