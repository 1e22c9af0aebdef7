"""The outcomes as a page: the goals, everybody's rates, and what it was measured on."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from tests.bench.contenders import CONTENDERS, Contender
from tests.bench.outcome import Outcome, Rates
from tests.measures import goals, rows_of


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
            "\n## CPU a record, µs\n",
            _cpu(rates),
            "\n## Also seen\n",
            *notes,
            *(f"- {title} did not take part: {reason}." for title, reason in missing.items()),
            "\n## The contenders\n",
            *(f"- **{contender.title}**: {contender.remark}." for contender in CONTENDERS),
            "\n## Where\n",
            rows_of([["", ""], *([name, value] for name, value in about.items())]),
            "",
        ]
    )


def _rates(rates: Sequence[Rates]) -> str:
    return _by_contender([(each.work, each.rates) for each in rates])


def _memory(rates: Sequence[Rates]) -> str:
    return _by_contender([(each.work, each.memory) for each in rates])


def _cpu(rates: Sequence[Rates]) -> str:
    return _by_contender([(each.work, each.cpu) for each in rates])


def _by_contender(columns: Sequence[tuple[str, Mapping[Contender, float]]]) -> str:
    rows = [["", *(title for title, _ in columns)]]
    for contender in CONTENDERS:
        cells = [values.get(contender, math.nan) for _, values in columns]
        if not all(map(math.isnan, cells)):
            rows.append([contender.title, *("" if math.isnan(cell) else f"{cell:,.0f}" for cell in cells)])
    return rows_of(rows)


_INTRODUCTION = """\
# Benchmarks

`make bench` wrote this page. It runs everybody side by side: on the same machine, broker and records, each in a process of its own, in
turns; the medians of the rounds count. The broker and the producer share the machine's cores with the one that is
measured, so the ratios are the result, not the times. Records are Authgear's events of about 1.3 kB, of 1,000 users, keyed
by user, on 6 partitions. A run is measured by the process that does the work, from its first record to its last.

The real job is `welcome_email`: each user has an address of its own, every second one speaks German, and a SendGrid double in a process
of its own answers after 50 or 200 ms. At most 400 messages are sent at once.

`make bench FULL=1` takes longer and runs all at the size of the goals. `python -m tests.bench NAME` runs one workload alone,
with `--profile` to see where the time goes.
"""


def with_short_form(readme: str, page: str) -> str:
    """*readme* with the rates of *page* between its marks."""
    rates = page.partition("## Records a second")[2].partition("\n## ")[0]
    table = "\n".join(line for line in rates.splitlines() if line.startswith("|"))
    before, mark, rest = readme.partition("<!-- benchmarks -->\n")
    return f"{before}{mark}{table}\n<!-- /benchmarks -->{rest.partition('<!-- /benchmarks -->')[2]}"
