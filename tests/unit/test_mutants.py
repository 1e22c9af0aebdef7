"""The mutants of the engine fit it. That the simulation notices them is `make mutants`: CI runs it, and it takes a minute."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.simulation.catalogue import MUTANTS, Mutant
from tests.simulation.mutants import OutOfDate, mutate


def test_every_mutant_fits_the_engine(tmp_path: Path) -> None:
    """A mutant that is not noticed yet replaces something of the engine too."""
    for mutant in MUTANTS:
        mutate(mutant, tmp_path / mutant.name)


def test_a_mutant_that_no_longer_fits_says_so(tmp_path: Path) -> None:
    """A text that the engine does not hold exactly once is an error, not a mutant that changes nothing."""
    stale = Mutant("stale", "nothing", "engine/driver.py", (("no such text", ""),))

    with pytest.raises(OutOfDate, match="stale"):
        mutate(stale, tmp_path)
