"""Run schedules: ``python -m tests.simulation.run --schedules 1000``. A failing seed replays exactly, and is shrunk to a short story."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import multiprocessing
import random
import sys
import time
import warnings
from dataclasses import replace
from pathlib import Path

from tests.jumping_loop import Deadlock
from tests.simulation.check import violations
from tests.simulation.loop import SimulatedLoop
from tests.simulation.plan import FAMILIES, Plan, seeds_of
from tests.simulation.world import World

import usher

_BLOCK = 50
_SHOWN = 3
_PROGRESS = 10.0


def play(plan: Plan) -> tuple[list[str], list[str]]:
    """Play one schedule: what is wrong with it, and its story."""
    collecting = gc.isenabled()
    gc.disable()  # it ends coroutines of killed processes at any moment, which would change what runs next
    loop = SimulatedLoop(random.Random(plan.seed + 2))
    asyncio.set_event_loop(loop)
    loop.set_exception_handler(lambda *_: None)  # a write that lands late may fail when no task waits for it
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
        if collecting:
            gc.enable()
    return wrong, world.story


def _bury(loop: SimulatedLoop, world: World) -> None:
    """End what killed processes left behind, so that the collector finds nothing to complain of."""
    for running in world.processes:
        running.process.dead = True
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
    parser.add_argument("--jobs", type=int, default=1, help="processes that share the seeds")
    parser.add_argument("--family", choices=[family.name for family in FAMILIES], help="schedules of this family only")
    parser.add_argument(
        "--until-noticed", metavar="FOLDER", help="the engine lies in FOLDER: stop at the first violation"
    )
    options = parser.parse_args()
    warnings.simplefilter("ignore", RuntimeWarning)
    sys.unraisablehook = lambda _: None  # killed processes leave coroutines that can't end well
    seeds = range(options.seed, options.seed + options.schedules)
    if options.family:
        seeds = seeds_of(options.family, options.seed, options.schedules)
    if options.until_noticed:
        return _until_noticed(seeds, options.until_noticed)
    began = time.monotonic()
    failed = _play_all(seeds, options.jobs, began)
    for seed in failed[:_SHOWN]:
        print("\n" + _story_of(seed))
    each = options.schedules / max(time.monotonic() - began, 0.001)
    print(f"{options.schedules} schedules from seed {options.seed}: {len(failed)} failed; {each:.0f} a second")
    return 1 if failed else 0


def _play_all(seeds: range, jobs: int, began: float) -> list[int]:
    """The seeds that failed; ends early where there are enough of them to look at."""
    failed: list[int] = []
    blocks = [seeds[at : at + _BLOCK] for at in range(0, len(seeds), _BLOCK)]
    played, printed = 0, began
    with multiprocessing.get_context("spawn").Pool(jobs) as pool:
        for block, wrong in pool.imap_unordered(_play_block, blocks):
            failed += wrong
            played += len(block)
            if time.monotonic() - printed > _PROGRESS:
                printed = time.monotonic()
                print(
                    f"{played} of {len(seeds)} schedules, {len(failed)} failed, {played / (printed - began):.0f} a second"
                )
                sys.stdout.flush()
            if len(failed) >= _SHOWN:
                break
    return sorted(failed)


def _play_block(seeds: range) -> tuple[range, list[int]]:
    warnings.simplefilter("ignore", RuntimeWarning)
    sys.unraisablehook = lambda _: None
    wrong = [seed for seed in seeds if play(Plan.of(seed))[0]]
    gc.collect()
    return seeds, wrong


def _story_of(seed: int) -> str:
    plan = shrink(Plan.of(seed))
    wrong, story = play(plan)
    return "\n".join([f"seed {seed}, shrunk to {plan}:", *story, *(f"  VIOLATION {sentence}" for sentence in wrong)])


def _until_noticed(seeds: range, folder: str) -> int:
    """Print what was noticed, after how many schedules, and the last seed. The engine has to be the one in *folder*."""
    if not Path(usher.__file__).is_relative_to(folder):
        sys.exit(f"the engine comes from {usher.__file__}, not from {folder}")
    for number, seed in enumerate(seeds, 1):
        wrong, _ = play(Plan.of(seed))
        if wrong:
            print(*wrong, number, seed, sep="\n")
            return 1
    print(len(seeds), seeds[-1], sep="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
