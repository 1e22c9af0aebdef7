"""Mutants of the engine: each takes one rule or promise away, and the simulation has to notice.

Hides how a mutant is made and run: a copy of the package with some syntax nodes replaced, on the path of a child process before
the real one. The production code has no switches for this. An edit that does not fit exactly once makes a mutant out of date.
"""

from __future__ import annotations

import argparse
import ast
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

from tests.simulation.catalogue import MUTANTS, Edit, Mutant

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "service" / "usher"
_PATIENCE = 600.0
"""Seconds after which a mutant counts as not noticed."""


class OutOfDate(Exception):
    """What a mutant replaces is not in the engine exactly once."""


@dataclass(frozen=True)
class Verdict:
    """The verdict on a mutant: *sentences* are the violations that showed it, after so many *schedules*."""

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
    for file, text in mutated(mutant).items():
        (copy / file).write_text(text)


def mutated(mutant: Mutant) -> dict[str, str]:
    """Return the files that a mutant changes, as they are then.

    Raises:
        OutOfDate: the engine has changed.
    """
    trees: dict[str, ast.Module] = {}
    for edit in mutant.edits:
        module, _, name = edit.where.partition(":")
        file = module.replace(".", "/") + ".py"
        tree = trees.get(file) or ast.parse((PACKAGE / file).read_text())
        trees[file] = tree
        replaced = _replace(tree, name, edit)
        if replaced != 1:
            raise OutOfDate(
                f"mutant {mutant.name}: {edit.where} has {replaced} times {edit.old!r}; say what it replaces now"
            )
    return {file: ast.unparse(ast.fix_missing_locations(tree)) for file, tree in trees.items()}


def _replace(tree: ast.Module, name: str, edit: Edit) -> int:
    """Replace what *edit* says in the definition *name* of *tree*. Returns how often it was there."""
    place: ast.AST | None = tree
    for part in name.split("."):
        place = next((node for node in getattr(place, "body", ()) if part in _names(node)), None)
    if place is None:
        return 0
    swap = _Swap(ast.parse(edit.old.strip()).body, ast.parse(edit.new.strip()).body)
    swap.visit(place)
    return swap.found


def _names(node: ast.AST) -> Sequence[str]:
    """Return the names that a statement defines."""
    if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
        return [node.name]
    return [target.id for target in getattr(node, "targets", ()) if isinstance(target, ast.Name)]


class _Swap(ast.NodeTransformer):
    """Replaces statements by statements, or an expression by an expression; *found* counts. Compares their source as unparsed."""

    def __init__(self, old: Sequence[ast.stmt], new: Sequence[ast.stmt]) -> None:
        self.found = 0
        self._old = [ast.unparse(node) for node in old]
        self._new = list(new) or [ast.Pass()]
        expressions = [node.value for node in (*old, *self._new) if isinstance(node, ast.Expr)]
        self._expression = expressions[1] if len(expressions) == len(old) + len(self._new) == 2 else None
        """The new expression, where it is about expressions."""

    def visit(self, node: ast.AST) -> ast.AST:
        self.generic_visit(node)
        if self._expression is not None:
            if isinstance(node, ast.expr) and ast.unparse(node) == self._old[0]:
                self.found += 1
                return self._expression
            return node
        for name in ("body", "orelse", "finalbody"):
            statements = getattr(node, name, None)
            if isinstance(statements, list):
                setattr(node, name, self._swapped(statements))
        return node

    def _swapped(self, statements: list[ast.stmt]) -> list[ast.stmt]:
        length = len(self._old)
        for at in range(len(statements) - length + 1):
            if [ast.unparse(node) for node in statements[at : at + length]] == self._old:
                self.found += 1
                return [*statements[:at], *self._new, *self._swapped(statements[at + length :])]
        return statements


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
    parser.add_argument("--schedules", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0, help="where each mutant's family begins")
    parser.add_argument("--jobs", type=int, default=1, help="mutants that are played at once")
    options = parser.parse_args()
    chosen = [mutant for mutant in MUTANTS if (mutant.name in options.names or not options.names)]
    with ThreadPoolExecutor(options.jobs) as pool:
        survived = 0
        for line, noticed in pool.map(lambda mutant: _line(mutant, options), chosen):
            print(line, flush=True)
            survived += not noticed
    return 1 if survived else 0


def _line(mutant: Mutant, options: argparse.Namespace) -> tuple[str, bool]:
    """Play a mutant. Returns a line about it, and whether it is all right."""
    try:
        verdict = hunt(mutant, schedules=options.schedules, seed=options.seed)
    except OutOfDate as error:
        return f"OUT OF DATE: {error}", False
    except RuntimeError as error:
        return f"{error}", False
    except subprocess.TimeoutExpired:
        return f"{mutant.name:50} SURVIVED for {_PATIENCE:.0f} s", False
    why = verdict.sentences[0] if verdict.sentences else "SURVIVED"
    line = (
        f"{mutant.name:50} {verdict.schedules:4} schedules {verdict.seconds:5.1f} s  seed {verdict.last_seed:4}  {why}"
    )
    return line, bool(verdict.sentences)


if __name__ == "__main__":
    sys.exit(main())
