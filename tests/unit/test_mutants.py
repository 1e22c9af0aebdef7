"""The mutants of the engine fit it. That the simulation notices them is `make mutants`: CI runs it, and it takes some minutes."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
from tests.simulation.catalogue import MUTANTS, Edit, Mutant
from tests.simulation.mutants import PACKAGE, OutOfDate, mutate, mutated


def test_every_mutant_fits_the_engine() -> None:
    """What each of them replaces is there, once."""
    for mutant in MUTANTS:
        assert mutated(mutant)


def test_a_mutant_that_no_longer_fits_says_so() -> None:
    """What the engine does not have exactly once in the place that is named is an error, not a mutant that changes nothing."""
    for where, old in [
        ("engine.driver:Driver.wake", "no_such_expression"),
        ("engine.driver:Driver.no_such_name", "state.open"),
        ("engine.driver:Driver.begin", "lane"),
    ]:
        stale = Mutant("stale", "nothing", (Edit(where, old, "False"),))

        with pytest.raises(OutOfDate, match="stale"):
            mutated(stale)


def test_an_edit_changes_one_place_and_nothing_else(tmp_path: Path) -> None:
    """Comments and formatting do not matter, and everything beside the place is as it was."""
    mutant = Mutant("one", "nothing", (Edit("engine.driver:Driver.full", "limits = self._limits", "limits = None"),))
    mutate(mutant, tmp_path)

    before = ast.unparse(ast.parse((PACKAGE / "engine" / "driver.py").read_text())).splitlines()
    after = ast.unparse(ast.parse((tmp_path / "usher" / "engine" / "driver.py").read_text())).splitlines()
    assert [(old.strip(), new.strip()) for old, new in zip(before, after, strict=True) if old != new] == [
        ("limits = self._limits", "limits = None")
    ]
