"""``python -m tests.bench``: the benchmark of Usher beside its limits and its peers."""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

from tests.bench.contenders import CONTENDERS, present
from tests.bench.scene import Scene
from tests.bench.workloads import throughput
from tests.kafka import Broker

WORKLOADS: dict[str, Callable[[Scene], object]] = {
    "filter": throughput.filter_path,
    **{f"handler-{work}": partial(throughput.handlers, work=work) for work in throughput.WORKS},
}


def main() -> None:
    options = _options()
    chosen = [c for c in CONTENDERS if not options.contenders or c.name in options.contenders.split(",")]
    there, missing = present(chosen)
    for title, reason in missing.items():
        print(f"without {title}: {reason}")
    names = [name for name in WORKLOADS if not options.workloads or name.startswith(tuple(options.workloads))]
    with tempfile.TemporaryDirectory(prefix="bench-kafka-") as folder:
        broker = Broker(Path(folder))
        broker.start()
        try:
            scene = Scene(broker, there, options.full, options.rounds, options.profile)
            for name in names:
                print(name, flush=True)
                WORKLOADS[name](scene)
        finally:
            broker.stop()


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument(
        "workloads", nargs="*", help=f"by their names or how these begin: {', '.join(WORKLOADS)}; default: all"
    )
    parser.add_argument("--contenders", default="", help=f"comma separated: {', '.join(c.name for c in CONTENDERS)}")
    parser.add_argument("--rounds", type=int, default=2, help="how often each is measured; the medians count")
    parser.add_argument("--full", action="store_true", help="at the size of the goals")
    parser.add_argument("--profile", action="store_true", help="tell where the time of each child in Python goes")
    return parser.parse_args()


if __name__ == "__main__":
    main()
