"""README.md and docs/: links lead somewhere, and nothing that the service says or takes goes unexplained."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from prometheus_client import Counter
from tests.bench.report import with_short_form
from tests.unit.test_house import nodes

from usher import Context, Event, User, cli
from usher.engine import dead_letters
from usher.event import EventContext
from usher.event_types import CANONICAL_TYPES
from usher.metrics import Metrics
from usher.settings.table import settings_table
from usher.systems.canonical import canonical_document
from usher.systems.decode import decode

ROOT = Path(__file__).parents[2]
SERVICE = Path("service", "usher")
README = ROOT / "README.md"
PAGES = [README, ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]
OPERATING = (ROOT / "docs" / "operating.md").read_text("utf-8")

_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
_HEADING = re.compile(r"^#+ +(.*)$", re.MULTILINE)
_FENCE = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
_LOGGED = ("info", "warning", "error", "exception", "critical", "log", "_line", "_warn")
"""What a line is written with; debug is for developers, and left to the code."""


def prose(page: Path) -> str:
    """The text of a page without its code blocks."""
    return _FENCE.sub("", page.read_text("utf-8"))


def anchors(page: Path) -> set[str]:
    """The anchors that a page's headings have on GitHub."""
    plain = (re.sub(r"[^\w\- ]", "", heading.lower()) for heading in _HEADING.findall(prose(page)))
    return {heading.replace(" ", "-") for heading in plain}


def settings_markdown() -> str:
    """The README's table of settings."""
    rows = [("setting", "default", "what it is"), ("---", "---", "---")]
    rows += [(f"`{row.name}`", f"`{row.text}`" if row.text else "", row.note) for row in settings_table()]
    return "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |" for row in rows)


def service() -> Iterator[tuple[Path, list[ast.AST]]]:
    """Each file of the service, by its path there, and everything in it."""
    for path, inside in nodes().items():
        if path.is_relative_to(SERVICE):
            yield path.relative_to(SERVICE), inside


def log_lines() -> Iterator[tuple[str, str]]:
    """(file, event) of each line that the service writes at info or above, as docs/operating.md is to quote it.

    A backtick opens it, and closes it unless it is formatted: then what comes before the gap is enough.
    """
    for path, inside in service():
        if path.parts[0] in {"testing", "cli"}:
            continue
        for node in inside:
            if isinstance(node, ast.Call) and _name(node.func) in _LOGGED:
                for argument in node.args:
                    if (text := _text(argument)) is not None:
                        yield path.name, text
                        break


def _name(function: ast.expr) -> str:
    return (
        function.attr if isinstance(function, ast.Attribute) else function.id if isinstance(function, ast.Name) else ""
    )


def _text(argument: ast.expr) -> str | None:
    formatted = isinstance(argument, ast.JoinedStr)
    if isinstance(argument, ast.JoinedStr):
        argument = argument.values[0]
    if not isinstance(argument, ast.Constant) or not isinstance(argument.value, str):
        return None
    text, gap, _ = argument.value.partition("%s")
    return f"`{text.strip()}" if formatted or gap else f"`{text}`"


def reasons() -> set[str]:
    """Every reason of a dead letter: what the code gives as the first argument where it gives a delivery up."""
    found = set()
    for _, inside in service():
        for node in inside:
            if isinstance(node, ast.Call) and _name(node.func) in {"Dead", "_given_up"} and node.args:
                first = node.args[0]
                if isinstance(first, ast.Constant):
                    found.add(str(first.value))
                elif isinstance(first, ast.Name) and first.id.isupper():
                    found.add(getattr(dead_letters, first.id))
    return found


def commands(command: Any, name: str) -> Iterator[str]:
    """The full names of all commands that do something; *command* is one of click's, whichever click typer brings."""
    subcommands = getattr(command, "commands", None)
    if subcommands is None:
        yield name
    for sub, inner in (subcommands or {}).items():
        yield from commands(inner, f"{name} {sub}")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_leads_somewhere(page: Path) -> None:
    """Relative links name files that exist, and anchors headings that exist in them."""
    broken = []
    for link in _LINK.findall(prose(page)):
        target, _, anchor = link.partition("#")
        if "://" in link or link.startswith("mailto:"):
            continue
        file = (page.parent / target).resolve() if target else page
        if not file.exists() or (anchor and anchor not in anchors(file)):
            broken.append(link)

    assert broken == []


def test_every_page_of_docs_can_be_reached_from_the_readme() -> None:
    """Nobody has to guess that a page exists."""
    linked = {link.partition("#")[0] for link in _LINK.findall(prose(README))}

    assert {f"docs/{page.name}" for page in (ROOT / "docs").glob("*.md")} <= linked


def test_the_settings_table_is_the_generated_one() -> None:
    """README's table has each setting with the default and meaning that the code has."""
    match = re.search(r"<!-- settings -->\n(.*?)\n<!-- /settings -->", README.read_text("utf-8"), re.DOTALL)

    assert match is not None
    assert match[1] == settings_markdown()


def test_every_metric_is_explained() -> None:
    """Under the name that a scrape shows."""
    catalogue = [metric for metric in vars(Metrics()).values() if hasattr(metric, "describe")]
    names = [
        family.name + ("_total" if isinstance(metric, Counter) else "")
        for metric in catalogue
        for family in metric.describe()
    ]

    assert len(names) > 10
    assert [name for name in names if f"`{name}`" not in OPERATING] == []


def test_every_reason_of_a_dead_letter_is_explained() -> None:
    """An operator finds what `dlq list` shows."""
    found = reasons()

    assert {
        "rejected",
        "attempts-exhausted",
        "unknown-outcome",
        "too-large",
        "expired",
        "handler-gone",
        "undecodable",
    } <= found
    assert [reason for reason in sorted(found) if f"`{reason}`" not in OPERATING] == []


def test_every_log_line_is_explained() -> None:
    """An operator who is woken by a line finds what it means."""
    found = set(log_lines())

    assert {"`message sent`", "`parked`", "`dead-lettered`", "`ready`", "`channel paused`", "`starting at"} <= {
        line for _, line in found
    }
    assert [(file, line) for file, line in sorted(found) if line not in OPERATING] == []


def test_every_command_is_explained() -> None:
    """In the README or in docs/."""
    written = "".join(page.read_text("utf-8") for page in PAGES)
    known = list(commands(typer.main.get_command(cli.app), "usher"))

    assert "usher dlq replay" in known
    assert [name for name in known if name not in written] == []


def test_every_state_of_a_dead_letter_is_explained() -> None:
    """`dlq list --state` takes them."""
    states: tuple[str, ...] = dead_letters.State.__args__  # type: ignore[attr-defined]  # of a Literal

    assert [state for state in states if f"`{state}`" not in OPERATING] == []


def test_every_canonical_type_is_in_the_table_of_sources() -> None:
    """What a handler may name is explained where events are."""
    sources = (ROOT / "docs" / "sources.md").read_text("utf-8")

    assert [type_ for type_ in CANONICAL_TYPES if f"`{type_}`" not in sources] == []


def test_the_canonical_shape_is_decoded_as_it_is_shown() -> None:
    """docs/sources.md shows a document that a bridge may write; nothing of it is lost."""
    sources = (ROOT / "docs" / "sources.md").read_text("utf-8")
    shown = sources.partition("<!-- test: event -->\n```json\n")[2].partition("```")[0]

    event = canonical_document(decode(shown.encode()))

    assert event == json.loads(shown)


@pytest.mark.parametrize("name", ["event_types.py", "settings.py", "source.py", "open.py"])
def test_a_further_system_is_shown_as_it_is_tested(name: str) -> None:
    """docs/sources.md shows the very files of the system that tests/acceptance/test_toy_system.py runs."""
    sources = (ROOT / "docs" / "sources.md").read_text("utf-8")
    shown = sources.partition(f"<!-- test: toy {name} -->\n```python\n")[2].partition("```")[0]

    assert shown == (ROOT / "tests" / "acceptance" / "toy" / name).read_text("utf-8")


def public(kind: type) -> set[str]:
    """The public attributes of a class."""
    return {name for name in {*dir(kind), *getattr(kind, "__dataclass_fields__", ())} if name[0] != "_"}


@pytest.mark.parametrize(
    ("section", "root", "kind"),
    [
        ("The event", "event", Event),
        ("The event", "event.user", User),
        ("The event", "event.context", EventContext),
        ("The context", "ctx", Context),
    ],
)
def test_all_that_a_handler_is_given_is_listed(section: str, root: str, kind: type) -> None:
    """docs/handlers.md has a row for each public attribute of what a handler gets, and for nothing else."""
    page = (ROOT / "docs" / "handlers.md").read_text("utf-8")
    rows = page.partition(f"\n## {section}\n")[2].partition("\n## ")[0]
    firsts = "".join(row.split("|")[1] for row in rows.splitlines() if row.startswith("|"))
    listed = re.findall(rf"`(?:await )?{re.escape(root)}\.(\w+)(?:\([^`]*)?`", firsts)
    parts = {"user", "context"} if kind is Event else set()

    assert sorted(listed) == sorted(public(kind) - parts)


@pytest.mark.parametrize("rule", range(1, 11))
def test_every_rule_that_the_code_names_is_on_the_page(rule: int) -> None:
    """Comments in the engine say `rule 3`; docs/parking.md numbers them so."""
    parking = (ROOT / "docs" / "parking.md").read_text("utf-8")

    assert re.search(rf"^{rule}\. \*\*", parking, re.MULTILINE)


def test_every_check_that_a_guarantee_names_exists() -> None:
    """A promise points to the tests that would notice; a test that was renamed must not leave it pointing nowhere."""
    page = (ROOT / "docs" / "guarantees.md").read_text()
    named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", page)
    missing = [f"{path}::{name}" for path, name in named if f"def {name}(" not in (ROOT / path).read_text()]

    assert len(named) > 20
    assert missing == []


def test_the_readmes_rates_are_those_of_the_last_benchmark() -> None:
    """`make bench` writes both; nobody types a figure."""
    text = README.read_text("utf-8")

    assert with_short_form(text, (ROOT / "docs" / "benchmarks.md").read_text("utf-8")) == text
