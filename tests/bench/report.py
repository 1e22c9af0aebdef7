"""The outcomes as a page: the goals, everybody's rates, and what it was measured on."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from tests.bench.contenders import CONTENDERS, Contender
from tests.bench.outcome import Measure, Outcome, Rates

_REACHED = {True: "yes", False: "**no**", None: "not measured"}


def page(outcomes: Sequence[Outcome], *, about: Mapping[str, str], missing: Mapping[str, str], picture: str) -> str:
    """The page in Markdown. *about* is the machine and the versions, *missing* who could not take part, and why."""
    rates = [outcome.rates for outcome in outcomes if outcome.rates is not None]
    notes = [f"- {note}." for outcome in outcomes for note in outcome.notes]
    return "\n".join(
        [
            _INTRODUCTION,
            "## Against the goals\n",
            goals([measure for outcome in outcomes for measure in outcome.measures]),
            "\n## Records a second\n",
            f"![Records a second of each contender]({picture})\n",
            _rates(rates),
            "\n## Peak memory, MB\n",
            _memory(rates),
            "\n## Also seen\n",
            *notes,
            *(f"- {title} did not take part: {reason}." for title, reason in missing.items()),
            "\n## The contenders\n",
            *(f"- **{contender.title}**: {contender.remark}." for contender in CONTENDERS),
            "\n## Where\n",
            _rows([["", ""], *([name, value] for name, value in about.items())]),
            "",
        ]
    )


def goals(measures: Sequence[Measure]) -> str:
    """A table: each figure beside its goal."""
    rows = [["work", "what", "measured", "goal", "reached"]]
    for each in measures:
        sign = "≥" if each.at_least else "≤"
        goal = f"{sign} {_number(each.goal)}{each.unit}" if each.goal else "0"
        rows.append([each.work, each.what, f"{_number(each.value)}{each.unit}", goal, _REACHED[each.reached]])
    return _rows(rows)


def _rates(rates: Sequence[Rates]) -> str:
    return _by_contender([(each.work, each.rates) for each in rates])


def _memory(rates: Sequence[Rates]) -> str:
    return _by_contender([(each.work, each.memory) for each in rates])


def _by_contender(columns: Sequence[tuple[str, Mapping[Contender, float]]]) -> str:
    rows = [["", *(title for title, _ in columns)]]
    for contender in CONTENDERS:
        cells = [values.get(contender, math.nan) for _, values in columns]
        if not all(map(math.isnan, cells)):
            rows.append([contender.title, *("" if math.isnan(cell) else f"{cell:,.0f}" for cell in cells)])
    return _rows(rows)


def _rows(rows: Sequence[Sequence[str]]) -> str:
    head, *body = rows
    lines = [head, ["---"] * len(head), *body]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _number(value: float) -> str:
    """Three digits that count: 0.713, 41.5, 30,000."""
    if math.isnan(value):
        return "-"
    if value == 0 or abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.{max(0, 2 - math.floor(math.log10(abs(value))))}f}".rstrip("0").rstrip(".")


_INTRODUCTION = """\
# Benchmarks

`make bench` wrote this page. It runs everybody side by side: on the same machine, broker and records, each in a process of its own, in
turns; the medians of the rounds count. The broker and the producer share the machine's cores with the one that is
measured, so the ratios are the result, not the times. Records are Authgear's events of about 1.3 kB, of 1,000 users, keyed
by user, on 6 partitions. A run is measured by the process that does the work, from its first record to its last.

`make bench FULL=1` takes longer and runs all at the size of the goals. `python -m tests.bench NAME` runs one workload alone,
with `--profile` to see where the time goes.
"""


def with_short_form(readme: str, page: str) -> str:
    """*readme* with the rates of *page* between its marks."""
    rates = page.partition("## Records a second")[2].partition("\n## ")[0]
    table = "\n".join(line for line in rates.splitlines() if line.startswith("|"))
    before, mark, rest = readme.partition("<!-- benchmarks -->\n")
    return f"{before}{mark}{table}\n<!-- /benchmarks -->{rest.partition('<!-- /benchmarks -->')[2]}"
