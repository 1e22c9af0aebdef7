"""Mutants of the engine: each takes one rule or promise away, and the simulation has to notice.

Hides how a mutant is made and run: a copy of the package with one text replaced, on the path of a child process before the
real one. The production code has no switches for this. A text that does not occur exactly once makes a mutant out of date.

Not here: that the end of the retry partition is read after the committed offset (rule 5). The engine gets the committed
offset with the claim, and the log reads that end when it is first asked, so the engine can't turn the two around; the
contract suite of the logs holds them to it.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "service" / "usher"
_PATIENCE = 240.0
"""Seconds after which a mutant counts as not noticed."""


@dataclass(frozen=True)
class Mutant:
    """What *breaks* (a rule of docs/parking.md or a promise) when *old* becomes *new* in *file*, for each of *edits*.

    *seed* is the first to be played: one that is known to notice soon. *unnoticed* says that the schedules do not tell it
    from the engine yet, or can't, and why; it is kept in the list and left out of the test.
    """

    name: str
    breaks: str
    file: str
    edits: tuple[tuple[str, str], ...]
    seed: int = 0
    unnoticed: str = ""


class OutOfDate(Exception):
    """The text that a mutant replaces is not in the engine exactly once."""


MUTANTS = (
    Mutant(
        "another-than-the-head-runs",
        "rule 1",
        "engine/parked.py",
        (("WHERE lane = ? ORDER BY offset LIMIT 1", "WHERE lane = ? ORDER BY offset DESC LIMIT 1"),),
        seed=1,
    ),
    Mutant(
        "two-drivers-of-one-lane",
        "rule 1",
        "engine/driver.py",
        (("if shard.open and not lane.driven:", "if shard.open:"),),
        seed=6,
    ),
    Mutant(
        "settled-before-the-park-is-acknowledged",
        "rule 2",
        "engine/settle.py",
        (
            (
                "        headers = [*parked.headers(), (WRITER, shard.writer)]\n",
                (
                    "        headers = [*parked.headers(), (WRITER, shard.writer)]\n"
                    "        shard.ledger.settle(parked.offset, parked.handler)\n"
                ),
            ),
        ),
        seed=154,
    ),
    Mutant(
        "queued-behind-what-is-parked",
        "rule 3",
        "engine/driver.py",
        (
            (
                "if lane.parking or len(lane.queue) >= self._limits.per_lane or shard.table.holds_lane(lane.key):",
                "if len(lane.queue) >= self._limits.per_lane:",
            ),
        ),
    ),
    Mutant(
        "no-tombstone-after-done",
        "rule 4",
        "engine/settle.py",
        (("if not flight.parked and shard.ours:", "if shard.ours:"),),
    ),
    Mutant(
        "the-next-of-the-lane-is-not-started",
        "rule 4",
        "engine/driver.py",
        (
            (
                "            while shard.open and (flight := shard.next_in(lane, self.now_ms())) is not None:",
                "            if shard.open and (flight := shard.next_in(lane, self.now_ms())) is not None:",
            ),
        ),
    ),
    Mutant(
        "gate-opened-before-the-table-is-folded",
        "rule 5",
        "engine/tail.py",
        (
            (
                "        async for part in self.log.parked(shard.claim):\n",
                "        await self.opened(shard)\n        async for part in self.log.parked(shard.claim):\n",
            ),
            ("                await self.opened(shard)\n", ""),
        ),
        seed=1,
    ),
    Mutant(
        "heads-are-not-freed",
        "rule 5",
        "engine/tail.py",
        (("for _ in shard.table.free_heads(self.engine.now_ms()):", "for _ in ():"),),
        seed=8,
    ),
    Mutant(
        "what-is-parked-is-not-skipped",
        "rule 6",
        "engine/intake.py",
        ((" and f.delivery.key not in shard.table]", "]"),),
        unnoticed="400 schedules from seed 0 passed; whether it can be seen is not known",
    ),
    Mutant(
        "what-has-a-tombstone-is-not-skipped",
        "rule 6",
        "engine/intake.py",
        (("if f.delivery.key not in shard.known_done and", "if"),),
        unnoticed="400 schedules from seed 0 passed; whether it can be seen is not known",
    ),
    Mutant(
        "parked-runs-before-the-source",
        "rule 7",
        "engine/lanes.py",
        (
            (
                "        if parked.offset >= self.position:  # rule 7",
                "        if False:  # rule 7",
            ),
        ),
        unnoticed="250 schedules from seed 0 passed; whether it can be seen is not known",
    ),
    Mutant(
        "a-stranger-is-not-answered",
        "rule 8",
        "engine/tail.py",
        (
            (
                "            self.engine.spawn(shard, self.settler.answer_stranger(shard, delivery))\n            return\n",
                "            return\n",
            ),
        ),
        unnoticed="250 schedules from seed 0 passed; whether it can be seen is not known",
    ),
    Mutant(
        "a-stranger-is-always-believed",
        "rule 8",
        "engine/tail.py",
        (("if delivery is not None and shard.done_for_good(delivery):", "if False:"),),
        unnoticed="250 schedules from seed 0 passed; whether it can be seen is not known",
    ),
    Mutant(
        "fewer-attempts-win",
        "rule 8",
        "engine/parked.py",
        (("if row is None or delivery.attempt >= row[0]:", "if row is None or delivery.attempt <= row[0]:"),),
        unnoticed="250 schedules from seed 0 passed; whether it can be seen is not known",
    ),
    Mutant(
        "a-strangers-put-removes",
        "rule 8",
        "engine/tail.py",
        (
            (
                "        else:\n            shard.table.merge(delivery)\n        if flight is not None:",
                "        else:\n            shard.table.remove(key)\n        if flight is not None:",
            ),
        ),
        seed=143,
    ),
    Mutant(
        "a-late-success-writes-no-tombstone",
        "rule 9",
        "engine/driver.py",
        (("if not shard.ours and not isinstance(verdict, Done):", "if not shard.ours:"),),
        unnoticed="what outlives its claim is excused, whenever the repeat began",
    ),
    Mutant(
        "a-late-failure-is-written",
        "rule 9",
        "engine/driver.py",
        (("if not shard.ours and not isinstance(verdict, Done):", "if False:"),),
        unnoticed="nothing checks yet who wrote a park or a dead letter",
    ),
    Mutant(
        "a-replay-parks",
        "rule 10",
        "engine/attempt.py",
        (("may_park=delivery.replay is None,", "may_park=True,"),),
        seed=7,
    ),
    Mutant(
        "a-replay-is-not-answered",
        "rule 10",
        "engine/tail.py",
        (("if DROPPED not in outcomes and await self.settler.answer(shard, request.replay.id):", "if not outcomes:"),),
        seed=2,
    ),
    Mutant(
        "an-expired-replay-runs",
        "rule 10",
        "engine/attempt.py",
        (
            (
                "return delivery.replay is None or not delivery.replay.even_expired",
                "return delivery.replay is None",
            ),
        ),
        seed=4,
    ),
    Mutant(
        "committed-before-it-is-settled",
        "promise 1: commit after the acknowledgement",
        "engine/claims.py",
        (
            (
                "undone = {offset: pending.done for offset, pending in self._pending.items()}",
                "undone: dict[int, int] = {}",
            ),
        ),
        seed=1,
    ),
    Mutant(
        "mark-not-carried-forward",
        "promise 1: the Mark",
        "engine/claims.py",
        (("            undone |= carried\n", ""),),
        seed=18,
    ),
    Mutant(
        "mark-of-another-base-is-used",
        "promise 1: the Mark",
        "engine/claims.py",
        (("        if found != base:\n            return None\n", ""),),
        seed=3,
    ),
    Mutant(
        "tombstone-before-the-dead-letter",
        "promise 1, rule 4",
        "engine/settle.py",
        (
            (
                "        delivery = flight.delivery\n        headers = letter_headers(delivery, reason=verdict.reason,",
                (
                    "        delivery = flight.delivery\n"
                    "        if flight.parked and delivery.replay is None and not await self._tombstone(shard, delivery):\n"
                    "            return False\n"
                    "        headers = letter_headers(delivery, reason=verdict.reason,"
                ),
            ),
        ),
        seed=8,
    ),
    Mutant(
        "settled-before-the-dead-letter",
        "promise 1",
        "engine/settle.py",
        (
            (
                "        delivery = flight.delivery\n        headers = letter_headers(delivery, reason=verdict.reason,",
                (
                    "        delivery = flight.delivery\n"
                    "        shard.ledger.settle(delivery.offset, delivery.handler)\n"
                    "        headers = letter_headers(delivery, reason=verdict.reason,"
                ),
            ),
        ),
        unnoticed="250 schedules from seed 0 passed; whether it can be seen is not known",
    ),
    Mutant(
        "two-at-once",
        "promise 3",
        "engine/driver.py",
        (
            ("while (other := self._running.get(lane.key)) is not None:", "while (other := None) is not None:"),
            ("            del self._running[lane.key]\n", "            self._running.pop(lane.key, None)\n"),
        ),
        seed=19,
    ),
    Mutant(
        "no-drain",
        "promise 4: a graceful move repeats nothing",
        "engine/worker.py",
        (("deadline = clock() + self._limits.drain", "deadline = clock()"),),
        unnoticed="what outlives its claim is excused, however long the drain was",
    ),
    Mutant(
        "no-commit-when-a-claim-goes",
        "promise 4: a graceful move repeats nothing",
        "engine/worker.py",
        (("            await self._commit([shard], orderly=True)\n", "            pass\n"),),
        seed=54,
    ),
    Mutant(
        "a-second-arrival-is-not-known",
        "promise 4: duplicates in the topic",
        "engine/lanes.py",
        (("if known is not None and known[0] < offset and timestamp - known[1] <= self._window:", "if False:"),),
        unnoticed="no event is appended twice yet",
    ),
    Mutant(
        "due-rounded-down",
        "no early retry",
        "engine/attempt.py",
        (("due = math.ceil(verdict.due * 1000)", "due = math.floor(verdict.due * 1000)"),),
        seed=4,
    ),
    Mutant(
        "jitter-takes-away",
        "no early retry",
        "outcome.py",
        (("(1 + self.jitter * rng.random())", "(1 - self.jitter * rng.random())"),),
    ),
    Mutant(
        "nothing-expires",
        "promise 7",
        "engine/attempt.py",
        (("if self._too_late(handler, event, delivery):", "if False:"),),
        seed=1,
    ),
    Mutant(
        "memory-without-bound",
        "promise 6",
        "engine/driver.py",
        (
            (
                "return self.records >= limits.records * limits.fresh or self._size >= limits.size * limits.fresh",
                "return False",
            ),
        ),
        unnoticed="the checks do not look at what is in memory yet",
    ),
    Mutant(
        "a-claim-without-bound",
        "promise 6",
        "engine/worker.py",
        (("min(limits.read, limits.per_claim - fullest, fitting)", "limits.read"),),
        unnoticed="the checks do not look at what is in memory yet",
    ),
)


@dataclass(frozen=True)
class Verdict:
    """What came of a mutant: *sentences* are the violations that gave it away, after so many *schedules*."""

    sentences: Sequence[str]
    schedules: int
    seconds: float
    last_seed: int


def mutate(mutant: Mutant, folder: Path) -> None:
    """Put a mutated copy of the package into *folder*.

    Raises:
        OutOfDate: the engine has changed.
    """
    copy = folder / "usher"
    shutil.copytree(PACKAGE, copy)
    path = copy / mutant.file
    text = path.read_text()
    for old, new in mutant.edits:
        if text.count(old) != 1:
            raise OutOfDate(
                f"mutant {mutant.name}: {mutant.file} holds {text.count(old)} times {old!r}; say anew what it replaces"
            )
        text = text.replace(old, new)
    path.write_text(text)


def hunt(mutant: Mutant, *, schedules: int, seed: int | None = None) -> Verdict:
    """Play *schedules* with the mutant, beginning at *seed*, until one of them notices.

    Raises:
        OutOfDate: the engine has changed.
        RuntimeError: the child ended otherwise than by a verdict.
    """
    first = mutant.seed if seed is None else seed
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="mutant-") as name:
        mutate(mutant, Path(name))
        paths = [name, str(ROOT)]
        command = [sys.executable, "-m", "tests.simulation.run", "--seed", str(first), "--schedules", str(schedules)]
        child = subprocess.run(
            [*command, "--until-noticed", name],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=_PATIENCE,
            check=False,
        )
    lines = child.stdout.splitlines()
    if child.returncode not in {0, 1} or not lines:
        raise RuntimeError(f"mutant {mutant.name}: {child.stderr[-2000:] or child.stdout[-2000:]}")
    played = int(lines[-1])
    return Verdict(lines[:-1], played, time.monotonic() - began, first + played - 1)


def main() -> int:
    parser = argparse.ArgumentParser(prog="mutants", description="See that the simulation notices each mutant.")
    parser.add_argument("names", nargs="*", help="these only")
    parser.add_argument("--schedules", type=int, default=1000)
    parser.add_argument("--seed", type=int, help="the first seed, instead of the known one")
    options = parser.parse_args()
    survived = 0
    for mutant in MUTANTS:
        if options.names and mutant.name not in options.names:
            continue
        if mutant.unnoticed and not options.names:
            print(f"{mutant.name:42} left out: {mutant.unnoticed}")
            continue
        try:
            verdict = hunt(mutant, schedules=options.schedules, seed=options.seed)
        except OutOfDate as error:
            print(f"OUT OF DATE: {error}")
            survived += 1
            continue
        survived += not verdict.sentences
        told = verdict.sentences[0] if verdict.sentences else "SURVIVED"
        print(
            f"{mutant.name:42} {verdict.schedules:5} schedules {verdict.seconds:5.1f} s  seed {verdict.last_seed}  {told}"
        )
        sys.stdout.flush()
    return 1 if survived else 0


if __name__ == "__main__":
    sys.exit(main())
