"""The simulation notices what it is for: each rule of the engine, taken away, is missed within some schedules."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.simulation.mutants import MUTANTS, Mutant, OutOfDate, hunt, mutate

_SCHEDULES = 400
NOTICED = [mutant for mutant in MUTANTS if not mutant.unnoticed]


@pytest.mark.parametrize("mutant", NOTICED, ids=lambda mutant: mutant.name)
def test_the_simulation_notices_a_mutant(mutant: Mutant) -> None:
    """The engine with one rule or promise taken away breaks its word on a schedule, and the checks say so."""
    verdict = hunt(mutant, schedules=_SCHEDULES)

    assert verdict.sentences, f"{mutant.name} ({mutant.breaks}) was not noticed in {verdict.schedules} schedules"


def test_every_mutant_fits_the_engine(tmp_path: Path) -> None:
    """Also those that are not noticed yet still replace what the engine holds."""
    for mutant in MUTANTS:
        mutate(mutant, tmp_path / mutant.name)


def test_a_mutant_that_no_longer_fits_says_so(tmp_path: Path) -> None:
    """A text that the engine does not hold exactly once is an error, not a mutant that changes nothing."""
    stale = Mutant("stale", "nothing", "engine/driver.py", (("no such text", ""),))

    with pytest.raises(OutOfDate, match="stale"):
        mutate(stale, tmp_path)
