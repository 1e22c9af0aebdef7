"""Run schedules: ``python -m tests.simulation.run --schedules 1000``. A failing seed replays exactly, and is shrunk to a short story."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import random
import sys
import warnings
from dataclasses import replace

from tests.simulation.check import violations
from tests.simulation.loop import Deadlock, SimulatedLoop
from tests.simulation.world import Plan, World


def play(plan: Plan) -> tuple[list[str], list[str]]:
    """Play one schedule: what is wrong with it, and its story."""
    loop = SimulatedLoop(random.Random(plan.seed + 2))
    asyncio.set_event_loop(loop)
    loop.set_exception_handler(lambda *_: None)  # a write that lands late may fail where nobody waits for it
    world = World(plan, loop)
    task = loop.spawn(None, world.play())
    try:
        loop.run_until_complete(asyncio.wait_for(task, 20_000))
        wrong = violations(world)
    except Deadlock:
        wrong = ["deadlock: nothing can happen any more"]
    except TimeoutError:
        wrong = ["never ends"]
    finally:
        _bury(loop, world)
    return wrong, world.story


def _bury(loop: SimulatedLoop, world: World) -> None:
    """End what killed processes left behind, so that the collector finds nothing to complain of."""
    for process, *_ in world.processes:
        process.dead = True
    for left in asyncio.all_tasks(loop):
        left._log_destroy_pending = False  # type: ignore[attr-defined]  # asyncio's own switch
        with contextlib.suppress(Exception):
            left.get_coro().close()
    asyncio.set_event_loop(None)
    loop.close()


def shrink(plan: Plan) -> Plan:
    """A smaller plan that still fails, if there is one."""
    while True:
        smaller = [
            *(replace(plan, faults=tuple(f for f in plan.faults if f != fault)) for fault in plan.faults),
            *(replace(plan, events=count) for count in range(1, plan.events)),
            *(replace(plan, rounds=count) for count in range(plan.rounds)),
            *(replace(plan, handlers=1) for _ in range(plan.handlers > 1)),
            *(replace(plan, partitions=1) for _ in range(plan.partitions > 1)),
            *(replace(plan, replays=False) for _ in range(plan.replays)),
        ]
        found = next((candidate for candidate in smaller if play(candidate)[0]), None)
        if found is None:
            return plan
        plan = found


def main() -> int:
    parser = argparse.ArgumentParser(prog="simulate", description="Play random schedules with the real engine.")
    parser.add_argument("--schedules", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0, help="the first seed")
    options = parser.parse_args()
    warnings.simplefilter("ignore", RuntimeWarning)
    sys.unraisablehook = lambda _: None  # killed processes leave coroutines that can't end well
    failed = 0
    for seed in range(options.seed, options.seed + options.schedules):
        wrong, _ = play(Plan.of(seed))
        if seed % 50 == 0:
            gc.collect()
        if wrong:
            failed += 1
            plan = shrink(Plan.of(seed))
            wrong, story = play(plan)
            print(f"\nseed {seed}, shrunk to {plan}:")
            print("\n".join(story))
            print("\n".join(f"  VIOLATION {sentence}" for sentence in wrong))
            if failed >= 3:
                break
    print(f"{options.schedules} schedules from seed {options.seed}: {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
