"""Random schedules with the real engine: some hundreds here, as many as you like with `make simulate`."""

from __future__ import annotations

import pytest
from tests.simulation.plan import Plan
from tests.simulation.run import play

REGRESSIONS = [
    # a parked delivery that had waited for the source position was never woken once its predecessor was done
    Plan(seed=4324, events=8, users=3, partitions=1, handlers=2, faults=("join",), rounds=2, replays=True),
]
SCHEDULES, BLOCKS = 200, 4


@pytest.mark.parametrize("block", range(BLOCKS))
@pytest.mark.filterwarnings("ignore::RuntimeWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_the_promises_hold_on_every_schedule(block: int) -> None:
    """Crashes, moves, freezes, outages: nothing lost, in order, once unless a fault excuses it, never early, never too late."""
    for seed in range(block, SCHEDULES, BLOCKS):
        wrong, story = play(Plan.of(seed))
        assert wrong == [], f"seed {seed}:\n" + "\n".join(story)


@pytest.mark.parametrize("plan", REGRESSIONS, ids=lambda plan: f"seed-{plan.seed}")
@pytest.mark.filterwarnings("ignore::RuntimeWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_what_was_wrong_once_stays_right(plan: Plan) -> None:
    """Schedules that found a bug."""
    wrong, story = play(plan)

    assert wrong == [], "\n".join(story)


def test_a_seed_replays_exactly() -> None:
    """The same plan tells the same story."""
    plan = Plan.of(11)

    assert play(plan) == play(plan)
