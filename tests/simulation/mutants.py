"""Mutants of the engine: each takes one rule or promise away, and the simulation has to notice.

Hides how a mutant is made and run: a copy of the package with one text replaced, on the path of a child process before the
real one. The production code has no switches for this. A text that does not occur exactly once makes a mutant out of date.
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
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from tests.simulation.catalogue import MUTANTS, Mutant

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "service" / "usher"
_PATIENCE = 240.0
"""Seconds after which a mutant counts as not noticed."""


class OutOfDate(Exception):
    """The text that a mutant replaces is not in the engine exactly once."""


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
    for file, edits in ((mutant.file, mutant.edits), *([mutant.also] if mutant.also else [])):
        path = copy / file
        text = path.read_text()
        for old, new in edits:
            if text.count(old) != 1:
                raise OutOfDate(
                    f"mutant {mutant.name}: {file} holds {text.count(old)} times {old!r}; say anew what it replaces"
                )
            text = text.replace(old, new)
        path.write_text(text)


def hunt(mutant: Mutant, *, schedules: int, seed: int = 0) -> Verdict:
    """Play *schedules* of the mutant's family with it, from *seed* on, until one of them notices.

    Raises:
        OutOfDate: the engine has changed.
        RuntimeError: the child ended otherwise than by a verdict.
    """
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="mutant-") as name:
        mutate(mutant, Path(name))
        paths = [name, str(ROOT)]
        command = [sys.executable, "-m", "tests.simulation.run", "--seed", str(seed), "--schedules", str(schedules)]
        child = subprocess.run(
            [*command, "--family", mutant.family, "--until-noticed", name],
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
    *sentences, played, last = lines
    return Verdict(sentences, int(played), time.monotonic() - began, int(last))


def main() -> int:
    parser = argparse.ArgumentParser(prog="mutants", description="See that the simulation notices each mutant.")
    parser.add_argument("names", nargs="*", help="these only")
    parser.add_argument("--schedules", type=int, default=600)
    parser.add_argument("--seed", type=int, default=0, help="where each mutant's family begins")
    parser.add_argument("--jobs", type=int, default=1, help="mutants that are played at once")
    options = parser.parse_args()
    chosen = [mutant for mutant in MUTANTS if (mutant.name in options.names or not options.names)]
    with ThreadPoolExecutor(options.jobs) as pool:
        survived = 0
        for line, noticed in pool.map(lambda mutant: _tell(mutant, options), chosen):
            print(line, flush=True)
            survived += not noticed
    return 1 if survived else 0


def _tell(mutant: Mutant, options: argparse.Namespace) -> tuple[str, bool]:
    """A line about what came of a mutant, and whether it is well."""
    if mutant.unnoticed and not options.names:
        return f"{mutant.name:44} left out: {mutant.unnoticed}", True
    try:
        verdict = hunt(mutant, schedules=options.schedules, seed=options.seed)
    except OutOfDate as error:
        return f"OUT OF DATE: {error}", False
    why = verdict.sentences[0] if verdict.sentences else "SURVIVED"
    told = (
        f"{mutant.name:44} {verdict.schedules:4} schedules {verdict.seconds:5.1f} s  seed {verdict.last_seed:4}  {why}"
    )
    return told, bool(verdict.sentences)


if __name__ == "__main__":
    sys.exit(main())
