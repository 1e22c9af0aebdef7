"""The outcomes as a page: the goals, everybody's rates, how Usher's cost grows, and what it was measured on."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from tests.bench.contenders import CONTENDERS, USHER_BEFORE
from tests.bench.outcome import Growth, Outcome, Rates
from tests.bench.reasons import MISSED
from tests.measures import Measure, goals, number, rows_of

_SHORT = ("## The real job", "## Records a second")
"""The sections whose tables are the short form in the README, the first thing first."""


def page(
    outcomes: Sequence[Outcome], *, about: Mapping[str, str], missing: Mapping[str, str], picture: str, growth: str
) -> str:
    """The page in Markdown. *about* is the machine and the versions, *missing* who could not take part, and why.

    *picture* and *growth* are the files of the two pictures.
    """
    rates = [outcome.rates for outcome in outcomes if outcome.rates is not None]
    messages = [each for each in rates if each.unit == "message"]
    records = [each for each in rates if each.unit == "record"]
    measures = [measure for outcome in outcomes for measure in outcome.measures]
    notes = [f"- {note}." for outcome in outcomes for note in outcome.notes]
    return "\n".join(
        [
            _INTRODUCTION,
            "## Against the goals\n",
            goals(measures),
            *_missed(measures),
            f"\n{_SHORT[0]}\n",
            _JOB,
            _table([column for each in messages for column in _columns_of_messages(each)]),
            f"\n{_SHORT[1]}\n",
            f"![What each contender does in a second]({picture})\n",
            _table([(each.work, each.rates) for each in records]),
            "\n## Peak memory, MB\n",
            _table([(each.work, each.memory) for each in records]),
            "\n## CPU a record, µs\n",
            _table([(each.work, each.cpu) for each in records]),
            "\n## How Usher's cost grows\n",
            _GROWTH,
            f"![CPU a unit at each size]({growth})\n",
            _growth([outcome.growth for outcome in outcomes if outcome.growth is not None]),
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


def with_short_form(readme: str, page: str) -> str:
    """*readme* with the short form of *page* between its marks: a table for the real job, and one for the handlers.

    How Usher was before is for its developers, and left out.
    """
    sections = (page.partition(f"{heading}\n")[2].partition("\n## ")[0] for heading in _SHORT)
    tables = ("\n".join(line for line in section.splitlines() if _is_row(line)) for section in sections)
    before, mark, rest = readme.partition("<!-- benchmarks -->\n")
    short = "\n\n".join(filter(None, tables))
    return f"{before}{mark}{short}\n<!-- /benchmarks -->{rest.partition('<!-- /benchmarks -->')[2]}"


def _is_row(line: str) -> bool:
    return line.startswith("|") and not line.startswith(f"| {USHER_BEFORE.title} |")


def _missed(measures: Sequence[Measure]) -> list[str]:
    """Each missed goal with its reason."""
    missed = [(each.work, each.what) for each in measures if each.reached is False]
    lines = [f"- {work}, {what}: {MISSED.get((work, what), 'the reason is not known yet')}." for work, what in missed]
    return ["\n## What is missed, and why\n", *lines] if lines else []


def _columns_of_messages(rates: Rates) -> list[tuple[str, Mapping[str, float]]]:
    return [
        (f"{rates.work}: messages/s", rates.rates),
        ("CPU a message, µs", rates.cpu),
        ("peak memory, MB", rates.memory),
    ]


def _table(columns: Sequence[tuple[str, Mapping[str, float]]]) -> str:
    """A row for each contender that has something in one of the columns."""
    rows = [["", *(title for title, _ in columns)]]
    for contender in CONTENDERS:
        cells = [values.get(contender.name, math.nan) for _, values in columns]
        if not all(map(math.isnan, cells)):
            rows.append([contender.title, *("" if math.isnan(cell) else f"{cell:,.0f}" for cell in cells)])
    return rows_of(rows)


def _growth(growths: Sequence[Growth]) -> str:
    rows = [["what grows", "to", "a unit is a", "units a second", "CPU a unit, µs", "peak memory, MB"]]
    for each in growths:
        for point in each.points:
            figures = [f"{point.rate:,.0f}", number(point.cpu), f"{point.memory:,.0f}"]
            rows.append([each.what, point.label, each.unit, *figures])
    return rows_of(rows)


_JOB = """\
`welcome_email`: each user has an address of its own, every second one speaks German, and a SendGrid double in a process of its own
answers after 50 or 200 ms. At most 400 messages are sent at once.
"""

_GROWTH = """\
A unit costs no more at the largest size than at the smallest: that is what linear means here. It costs less where units share
something, as the handlers of one event share its decoding. Handlers take no time and read their events: nothing else hides what grows.
"""

_INTRODUCTION = """\
# Benchmarks

`make bench` wrote this page. It runs everybody side by side: on the same machine, broker and records, each in a process of its own, in
turns; the medians of the rounds count. The broker and the producer share the machine's cores with the one that is
measured, so the ratios are the result, not the times. Records are Authgear's events of about 1.3 kB, of 1,000 users, keyed
by user, on 6 partitions. A run is measured by the process that does the work, from its first record to its last.

A handler reads its event or does not: both are shown. Bare lanes give their handler a dict as it came; validating lanes give
it what Usher's handlers get, so the second ratio compares like with like.

`make bench FULL=1` takes longer and runs all at the size of the goals. It can be made in parts: `make bench FULL=1 ARGS='mail filter'`
measures these, and the page is written once all parts of the same code are there. `python -m tests.bench NAME --profile` shows
where the time goes.
"""
