"""An open loop: do failures of some hold up the others?"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace

from tests.bench.contenders import LANES, USHER, python
from tests.bench.job import Job
from tests.bench.outcome import Outcome
from tests.bench.process import Child
from tests.bench.scene import Scene
from tests.kafka import unique
from tests.measures import Measure
from tests.stats import median, ratio

RATE = 2_000
WARM_UP = 2.0
WORK = "open loop 2,000/s, handler 5 ms"


def open_loop(scene: Scene) -> Outcome:
    """2,000 events a second; of Usher's, none or every hundredth fails and is parked, and what is behind it in its lane too."""
    runs = [("Usher", "usher_latency", 0), ("Usher, 1 % failing", "usher_latency", 100)]
    if scene.takes_part(LANES):
        runs.insert(0, ("bare lanes", "lanes_latency", 0))
    found: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    if scene.takes_part(USHER):
        for _ in range(scene.rounds):
            for title, module, failing in runs:
                figures = _measured(scene, module, failing)
                for name, value in figures.items():
                    found[title][name].append(value)
                print(f"  {title:<20} p50 {figures['p50']:6.1f} ms  p99 {figures['p99']:6.1f} ms", flush=True)
    p99 = {title: median(figures["p99"]) for title, figures in found.items()}
    slower = ratio(p99.get(runs[-1][0], float("nan")), p99.get("Usher", float("nan")))
    notes = [
        f"{WORK}: {title}: p50 {median(figures['p50']):.1f} ms, p99 {median(figures['p99']):.1f} ms from the moment an event "
        "was to be produced to the end of its handler"
        for title, figures in found.items()
    ]
    return Outcome(
        [Measure(f"{WORK}, 1 % failing", "p99 of the others, of that without failures", slower, 1.2)], notes=notes
    )


def _measured(scene: Scene, module: str, failing: int) -> dict[str, float]:
    seconds = 30.0 if scene.full else 10.0
    options = {"rate": RATE, "warm_up": WARM_UP, "failing": failing}
    job = Job(scene.broker.servers, scene.topic("open", ()), unique("open"), "", work=0.005, options=options)
    job = replace(job, read=round(RATE * seconds), profile=scene.profile)
    # The end is a time, a second after the last event: those behind a parked one do not come back.
    with Child(python(module)(), replace(job, read=10 * job.read, limit=seconds + 1)) as contender:
        contender.ready()
        with Child(python("producer")(), replace(job, profile=False)) as producer:
            producer.result()
        figures = dict(contender.result().figures)
        if job.profile:
            print(contender.stderr)
        return figures
