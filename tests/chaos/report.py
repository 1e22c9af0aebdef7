"""The report of a run: one table for the promises, one for what the kills cost."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table
from tests.chaos.fleet import Mishap
from tests.chaos.judge import Findings
from tests.chaos.run import Chaos

_SHOWN = 10
_NAMES = {
    "lost": "lost",
    "order": "out of order",
    "twice": "two at once",
    "repeats_unexplained": "repeats that nothing explains",
    "not_ours": "attempts of what is not ours",
    "dead_letters_unexpected": "dead letters that should not be",
    "unreceipted": "ended without a receipt",
    "wrong": "workers that did not behave",
}


def show(console: Console, seed: int, findings: Findings, run: Chaos) -> None:
    """Print what was found, the broken promises last and in words."""
    console.print(_promises(seed, findings, run))
    console.print(_kills(findings, run.fleet.mishaps))
    for name, cases in findings.broken.items():
        console.print(f"[bold red]{_NAMES[name]}: {len(cases)}[/]")
        for case in cases[:_SHOWN]:
            console.print(f"  {case}", markup=False)
        if len(cases) > _SHOWN:
            console.print(f"  and {len(cases) - _SHOWN} more")


def _promises(seed: int, findings: Findings, run: Chaos) -> Table:
    table = Table("what", "found", title=f"chaos, SEED={seed}", title_justify="left")
    slowest = max((seconds for worker in run.fleet.workers for seconds in worker.starts), default=0.0)
    rows: list[tuple[str, object]] = [
        ("faults", ", ".join(f"{count} {kind}" for kind, count in sorted(run.faults.items()))),
        ("events sent, of them ours", f"{findings.events:,}, {findings.deliveries // 2:,}"),
        ("deliveries, of them delivered or rightly dead-lettered", f"{findings.deliveries:,}, {findings.delivered:,}"),
        ("requests at the provider", f"{len(run.provider.attempts):,}"),
        *((_NAMES[name], len(getattr(findings, name))) for name in _NAMES),
        ("two at once with a frozen worker", findings.twice_frozen),
        ("repeats, by cause", ", ".join(f"{n} {cause}" for cause, n in sorted(findings.repeats.items())) or "none"),
        (
            "dead letters, by reason",
            ", ".join(f"{n} {why}" for why, n in sorted(findings.dead_letters.items())) or "none",
        ),
        ("longest standstill", f"{findings.standstill:.1f} s"),
        ("longest start until ready, faults included", f"{slowest:.1f} s"),
    ]
    for what, found in rows:
        table.add_row(what, str(found))
    return table


def _kills(findings: Findings, mishaps: list[Mishap]) -> Table:
    table = Table(
        "mishap", "pid", "in flight then", "in flight or not surely committed", "repeats", title_justify="left"
    )
    for mishap in mishaps:
        at_risk = findings.at_risk.get(mishap)
        table.add_row(
            mishap.kind,
            str(mishap.pid or ""),
            str(mishap.in_flight) if mishap.pid else "",
            "" if at_risk is None else str(at_risk),
            str(findings.repeats_of.get(mishap, 0)),
        )
    return table
