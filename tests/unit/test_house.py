"""The house rules that a reader counts on: names that resolve, one class for one name, modules and functions of a readable size."""

from __future__ import annotations

import ast
import functools
import importlib
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
CODE = sorted((ROOT / "service").rglob("*.py")) + sorted((ROOT / "handlers").rglob("*.py"))
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]

MODULE_LINES, FUNCTION_LINES = 300, 40

_REFERENCE = re.compile(r"`(usher(?:_handlers)?(?:\.\w+)+)`")
_NO_CODE = {"usher.checkpoints", "usher.handlers", "usher.toml"}
"""Names in the same form that are no code: a topic, and the group of entry points."""

Function = ast.FunctionDef | ast.AsyncFunctionDef


@functools.cache
def trees() -> dict[Path, ast.Module]:
    """All code, parsed, by its path below the root."""
    return {path.relative_to(ROOT): ast.parse(path.read_text("utf-8")) for path in CODE}


@functools.cache
def nodes() -> dict[Path, list[ast.AST]]:
    """Everything in it."""
    return {path: list(ast.walk(tree)) for path, tree in trees().items()}


def references() -> Iterator[tuple[Path, str]]:
    """Every dotted name of ours between backticks, in the pages and in the code's texts."""
    for page in PAGES:
        yield from ((page.relative_to(ROOT), name) for name in _REFERENCE.findall(page.read_text("utf-8")))
    for path, inside in nodes().items():
        texts = (node.value for node in inside if isinstance(node, ast.Constant) and isinstance(node.value, str))
        yield from ((path, name) for text in texts for name in _REFERENCE.findall(text))


def resolves(name: str) -> bool:
    """Whether a module, a class or an attribute has this dotted name; a dataclass's field counts."""
    parts = name.split(".")
    for count in range(len(parts), 0, -1):
        try:
            found = importlib.import_module(".".join(parts[:count]))
        except ModuleNotFoundError:
            continue
        return _has(found, parts[count:])
    return False


def _has(found: object, rest: list[str]) -> bool:
    for part in rest:
        if part in getattr(found, "__annotations__", {}) and not hasattr(found, part):
            return True
        if not hasattr(found, part):
            return False
        found = getattr(found, part)
    return True


def length_of(node: Function) -> int:
    """Lines of a function without its docstring."""
    body = node.body
    has_docstring = isinstance(body[0], ast.Expr) and isinstance(body[0].value, ast.Constant)
    docstring = (body[0].end_lineno or 0) - body[0].lineno + 1 if has_docstring else 0
    return (node.end_lineno or 0) - node.lineno + 1 - docstring


def test_every_reference_leads_to_code() -> None:
    """A name such as `usher.event.User`, in a page or a docstring, is there."""
    wrong = {f"{path}: {name}" for path, name in references() if name not in _NO_CODE and not resolves(name)}
    assert wrong == set()


def test_a_reference_can_be_wrong() -> None:
    """The check would notice: a class that moved, a method that never was."""
    assert resolves("usher.event.User")
    assert resolves("usher.outcome.RetryPolicy.delays")
    assert not resolves("usher.event.Person")
    assert not resolves("usher.nowhere.User")
    assert not resolves("usher.outcome.RetryPolicy.hours")


def test_no_class_has_the_name_of_another() -> None:
    """One name, one class: who searches for it finds one."""
    found: dict[str, list[str]] = defaultdict(list)
    for path, tree in trees().items():
        for node in tree.body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                found[node.name].append(str(path))
    assert {name: paths for name, paths in found.items() if len(paths) > 1} == {}


def test_modules_are_of_a_readable_size() -> None:
    """No module is longer than CONTRIBUTING allows."""
    lengths = {path.relative_to(ROOT): len(path.read_text("utf-8").splitlines()) for path in CODE}
    assert {str(path): lines for path, lines in lengths.items() if lines > MODULE_LINES} == {}


def test_functions_are_of_a_readable_size() -> None:
    """No function is longer than CONTRIBUTING allows; its docstring does not count."""
    found = {
        f"{path}:{node.lineno} {node.name}": length
        for path, inside in nodes().items()
        for node in inside
        if isinstance(node, Function) and (length := length_of(node)) > FUNCTION_LINES
    }
    assert found == {}


def test_contributing_names_these_limits() -> None:
    """The page and the test say the same numbers."""
    text = (ROOT / "CONTRIBUTING.md").read_text("utf-8")
    assert f"under {FUNCTION_LINES} lines" in text.replace("about ", "")
    assert f"under {MODULE_LINES}" in text
