"""``python -m tests.bench``: the benchmark of Usher beside its limits and its peers. A whole run writes docs/benchmarks.*."""

from __future__ import annotations

import argparse
import logging
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

from tests import machine
from tests.bench.contenders import CONTENDERS, present
from tests.bench.outcome import Outcome
from tests.bench.picture import picture
from tests.bench.report import page, with_short_form
from tests.bench.scene import Scene
from tests.bench.workloads import embedded, latency, mails, parked, retries, start, throughput
from tests.java import ServerMissing
from tests.kafka import Broker
from tests.measures import goals

README = Path(__file__).parents[2] / "README.md"
DOCS = README.parent / "docs"
WORKLOADS: Mapping[str, Callable[[Scene], Outcome]] = {
    **{f"mail-{answer}": partial(mails.welcome, answer=answer) for answer in mails.ANSWERS},
    "filter": throughput.filter_path,
    **{f"handler-{work}": partial(throughput.handlers, work=work) for work in throughput.WORKS},
    "latency": latency.open_loop,
    "retries": retries.due_evenly,
    "parked": parked.full_table,
    "embedded": embedded.webhooks,
    "start": start.to_ready,
}


def main() -> None:
    options = _options()
    logging.getLogger("aiokafka").setLevel(
        logging.CRITICAL
    )  # a new topic's leader is not known at once, and it says so
    there, missing = present([each for each in CONTENDERS if each.name in options.contenders])
    for title, reason in missing.items():
        print(f"without {title}: {reason}")
    names = [name for name in WORKLOADS if name.startswith(tuple(options.workloads))]
    if not names:
        sys.exit(f"no workload is named {' or '.join(options.workloads)}; there are {', '.join(WORKLOADS)}")
    with tempfile.TemporaryDirectory(prefix="bench-kafka-") as folder:
        broker = Broker(Path(folder))
        broker.start()
        try:
            outcomes = _run(names, Scene(broker, there, options.full, options.rounds, options.profile))
        finally:
            broker.stop()
    print(goals([measure for outcome in outcomes for measure in outcome.measures]))
    if len(names) == len(WORKLOADS) and options.contenders == _everybody() and not options.profile:
        _write(outcomes, missing, full=options.full, rounds=options.rounds)


def _run(names: Sequence[str], scene: Scene) -> list[Outcome]:
    outcomes = []
    for name in names:
        print(name, flush=True)
        outcomes.append(WORKLOADS[name](scene))
    return outcomes


def _write(outcomes: Sequence[Outcome], missing: Mapping[str, str], *, full: bool, rounds: int) -> None:
    form = f"{'whole' if full else 'short'} form, {rounds} rounds"
    about = {**machine.about(), "run": form}
    rates = [outcome.rates for outcome in outcomes if outcome.rates is not None]
    caption = f"Records a second, more is better. {about['cores']}; {about['date']}, commit {about['commit']}"
    (DOCS / "benchmarks.svg").write_text(picture(rates, caption))
    text = page(outcomes, about=about, missing=missing, picture="benchmarks.svg")
    (DOCS / "benchmarks.md").write_text(text)
    README.write_text(with_short_form(README.read_text(), text))
    print("written: docs/benchmarks.md, docs/benchmarks.svg, and the short form in README.md")


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
    parser.add_argument("--profile", action="store_true", help="show where the time of each child in Python goes")
    return parser.parse_args()


if __name__ == "__main__":
    try:
        main()
    except ServerMissing as reason:
        sys.exit(f"no benchmark without a broker: {reason}")
