"""Random schedules with the real engine: a hundred here, 1500 in CI, as many as you like with `make simulate`.

A bug that they found becomes a mutant (`tests.simulation.catalogue`): after a change a seed alone is another story.
"""

from __future__ import annotations

import multiprocessing
from dataclasses import replace

import pytest
from tests.simulation import run
from tests.simulation.plan import Plan
from tests.simulation.run import play

pytestmark = pytest.mark.simulation

SCHEDULES, BLOCKS = 100, 4
REPLAYED = 36


# A process that is killed leaves coroutines that nothing awaits.
killed = pytest.mark.filterwarnings("ignore::RuntimeWarning", "ignore::pytest.PytestUnraisableExceptionWarning")


@killed
@pytest.mark.parametrize("block", range(BLOCKS))
def test_the_promises_hold_on_every_schedule(block: int) -> None:
    """Crashes, moves, freezes, outages: nothing lost, in order, once unless a fault excuses it, never early, never too late."""
    for seed in range(block, SCHEDULES, BLOCKS):
        wrong, story = play(Plan.of(seed))
        assert wrong == [], f"seed {seed}:\n" + "\n".join(story)


@killed
def test_a_seed_replays_exactly() -> None:
    """The same plans give the same stories in two processes: nothing hangs on addresses, hashes, the collector or real time."""
    plans = [Plan.of(seed) for seed in range(REPLAYED)]
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        there = pool.map_async(play, plans, chunksize=REPLAYED)
        here = [play(plan) for plan in plans]

        assert here == there.get()


def test_a_failing_schedule_shrinks_to_one_that_still_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is left is smaller, fails as well, and nothing of it can be left out."""

    def fails_with_two_events(plan: Plan) -> tuple[list[str], list[str]]:
        return (["wrong"] if plan.events >= 2 and "crash" in plan.faults else []), []

    monkeypatch.setattr(run, "play", fails_with_two_events)
    small = run.shrink(replace(Plan.of(0), events=9, faults=("crash", "join"), handlers=2, partitions=2, replays=True))

    assert (small.events, small.faults, small.handlers, small.partitions) == (2, ("crash",), 1, 1)
    assert (small.rounds, small.replays) == (0, False)
