"""``python -m tests.bench``: the benchmark of Usher beside its limits and its peers.

The parts of a run are kept; once all are there, docs/benchmarks.* and the short form in the README are written.
"""

from __future__ import annotations

import argparse
import logging
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

from tests import machine
from tests.bench.contenders import CONTENDERS, present
from tests.bench.kept import Kept, Part
from tests.bench.outcome import Outcome
from tests.bench.picture import picture, picture_of_growth
from tests.bench.report import page, with_short_form
from tests.bench.scene import Scene
from tests.bench.workloads import embedded, growth, latency, mails, parked, retries, start, throughput
from tests.java import CACHE, ServerMissing
from tests.kafka import Broker
from tests.measures import goals

README = Path(__file__).parents[2] / "README.md"
DOCS = README.parent / "docs"
WORKLOADS: Mapping[str, Callable[[Scene], Outcome]] = {
    **{f"mail-{answer}": partial(mails.welcome, answer=answer) for answer in mails.ANSWERS},
    "filter": throughput.filter_path,
    **{f"handler-{work}": partial(throughput.handlers, work=work) for work in throughput.WORKS},
    **{f"growth-{name}": partial(growth.growing, axis=axis) for name, axis in growth.AXES.items()},
    "parked": parked.full_table,
    "latency": latency.open_loop,
    "retries": retries.due_evenly,
    "embedded": embedded.webhooks,
    "start": start.to_ready,
}
_MEASURED = (
    "service",
    "handlers",
    "tests/bench",
    *(f":!tests/bench/{name}.py" for name in ("picture", "reasons", "report")),
)
"""Paths of what is measured, and of what measures: parts of a run count as one while none of it changes."""


def main() -> None:
    options = _options()
    logging.getLogger("aiokafka").setLevel(
        logging.CRITICAL
    )  # a new topic's leader is not known at once, and it says so
    form = f"{'whole' if options.full else 'short'} form, {options.rounds} rounds"
    kept = Kept(CACHE / "bench" / form.replace(", ", "-").replace(" ", "-"), machine.state(*_MEASURED))
    if not options.page:
        _measure(options, kept)
    parts = kept.parts(WORKLOADS)
    absent = [name for name in WORKLOADS if name not in parts]
    if absent:
        print(f"the page is written once these were measured too, with the same code: {' '.join(absent)}")
    else:
        _write(parts, form)


def _measure(options: argparse.Namespace, kept: Kept) -> None:
    """Run the workloads that were asked for; what everybody took part in is kept."""
    names = _chosen(options.workloads)
    there, missing = present([each for each in CONTENDERS if each.name in options.contenders])
    for title, reason in missing.items():
        print(f"without {title}: {reason}")
    whole = options.contenders == _everybody() and not options.profile
    with tempfile.TemporaryDirectory(prefix="bench-kafka-") as folder:
        broker = Broker(Path(folder))
        broker.start()
        try:
            scene = Scene(broker, there, options.full, options.rounds, options.profile)
            for part in _run(names, scene, missing):
                if whole:
                    kept.keep(*part)
        finally:
            broker.stop()


def _chosen(asked: Sequence[str]) -> list[str]:
    """The workloads of these names, and where there is none of a name, those whose names begin so."""
    names = [
        name
        for name in WORKLOADS
        if any(name == each or (each not in WORKLOADS and name.startswith(each)) for each in asked)
    ]
    if not names:
        sys.exit(f"no workload is named {' or '.join(asked)}; there are {', '.join(WORKLOADS)}")
    return names


def _run(names: Sequence[str], scene: Scene, missing: Mapping[str, str]) -> Iterator[tuple[str, Part]]:
    """Each workload's part, by its name; says how far it is."""
    began = time.monotonic()
    for number, name in enumerate(names, start=1):
        print(f"{name}: {number} of {len(names)}, {_minutes(time.monotonic() - began)} so far", flush=True)
        start = time.monotonic()
        outcome = WORKLOADS[name](scene)
        took = time.monotonic() - start
        print(f"{goals(outcome.measures)}\n{name} took {_minutes(took)}", flush=True)
        yield name, Part(outcome, took, missing)


def _write(parts: Mapping[str, Part], form: str) -> None:
    outcomes = [part.outcome for part in parts.values()]
    missing = {title: reason for part in parts.values() for title, reason in part.missing.items()}
    took = _minutes(sum(part.seconds for part in parts.values()))
    about = {**machine.about(), "run": f"{form}, {took} in all"}
    where = f"{about['cores']}; {about['date']}, commit {about['commit']}"
    rates = [outcome.rates for outcome in outcomes if outcome.rates is not None]
    growths = [outcome.growth for outcome in outcomes if outcome.growth is not None]
    (DOCS / "benchmarks.svg").write_text(picture(rates, f"Done in a second, more is better. {where}"))
    (DOCS / "benchmarks-growth.svg").write_text(
        picture_of_growth(growths, f"No bar is longer than the first one: the cost is linear. {where}")
    )
    text = page(outcomes, about=about, missing=missing, picture="benchmarks.svg", growth="benchmarks-growth.svg")
    (DOCS / "benchmarks.md").write_text(text)
    README.write_text(with_short_form(README.read_text(), text))
    print("written: docs/benchmarks.md, its two pictures, and the short form in README.md")


def _minutes(seconds: float) -> str:
    return f"{seconds / 60:.1f} minutes"


def _everybody() -> list[str]:
    return [contender.name for contender in CONTENDERS]


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument(
        "workloads", nargs="*", default=[""], help=f"by names, or how these begin: {', '.join(WORKLOADS)}; default: all"
    )
    parser.add_argument(
        "--contenders",
        type=lambda text: text.split(","),
        default=_everybody(),
        help=f"comma separated: {', '.join(_everybody())}",
    )
    parser.add_argument("--rounds", type=int, default=2, help="how often each is measured; the medians count")
    parser.add_argument("--full", action="store_true", help="at the size of the goals")
    parser.add_argument("--page", action="store_true", help="measure nothing: write the page from what is there")
    parser.add_argument("--profile", action="store_true", help="show where the time of each child in Python goes")
    return parser.parse_args()


if __name__ == "__main__":
    try:
        main()
    except ServerMissing as reason:
        sys.exit(f"no benchmark without a broker: {reason}")
