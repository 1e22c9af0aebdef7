"""The figures in the page of guarantees: each phase between marks of its own, so that a run replaces those that it has played."""

from __future__ import annotations

from collections.abc import Mapping

from tests.measures import goals
from tests.soak.stand import Options, Played

SHOWN = ("date", "cores", "system", "broker")
"""What is said of the machine."""


def with_figures(page: str, name: str, played: Played, options: Options, about: Mapping[str, str]) -> str:
    """*page* with what a phase has measured, with which options and where.

    Raises:
        ValueError: the page has no marks for the phase.
    """
    before, mark, rest = page.partition(f"<!-- soak: {name} -->\n")
    _, end, after = rest.partition(f"<!-- /soak: {name} -->")
    if not (mark and end):
        raise ValueError(f"the page has no marks for {name}: <!-- soak: {name} --> and <!-- /soak: {name} -->")
    where = "; ".join(f"{name}: {about[name]}" for name in SHOWN)
    how = (
        f"`make soak KILLS={options.kills} MINUTES={options.minutes:g} RATE={options.rate:g} OUTAGE={options.outage:g}`"
    )
    notes = "\n".join(f"- {note}." for note in played.notes)
    return f"{before}{mark}{how}, {where}.\n\n{goals(played.measures)}\n\n{notes}\n{end}{after}"
