"""Many parked deliveries that become due evenly: none early, and how late?"""

from __future__ import annotations

import asyncio
import time

from tests.bench import table
from tests.bench.contenders import python
from tests.bench.job import Job
from tests.bench.outcome import Outcome
from tests.bench.process import Child
from tests.bench.scene import Scene
from tests.kafka import unique
from tests.measures import Measure


def due_evenly(scene: Scene) -> Outcome:
    """The deliveries are in the retry topic when the worker starts, and the first is due when it should have loaded them."""
    count, over = (100_000, 60.0) if scene.full else (20_000, 15.0)
    topic, group = unique("retries"), unique("retries")
    first = time.time() + count / 4_000 + 8

    async def prepare() -> None:
        await table.source(scene.broker, topic, count)
        await table.park(scene.broker, topic, group, count, lambda number: first + over * number / count)

    asyncio.run(prepare())
    job = Job(
        scene.broker.servers,
        topic,
        group,
        folder="",
        handled=count,
        limit=2 * over + 60,
        profile=scene.profile,
        options={"first_due": first},
    )
    with Child(python("retries")(), job) as child:
        run = child.result()
        if job.profile:
            print(child.stderr)
    figures = run.figures
    print(f"  {run.handled} of {count}: {figures}", flush=True)
    work = f"{count:,} retries, due evenly over {over:g} s"
    lost = count - run.handled
    note = (
        f"{work}: p50 {figures['p50']:.0f} ms late, at most {figures['max']:.0f} ms; the worker had loaded them "
        f"{figures['loaded']:.1f} s before the first was due"
    )
    return Outcome(
        [
            Measure(work, "run early, or not at all", figures["early"] + lost, 0),
            Measure(work, "p99 of the lateness", figures["p99"] / 1000, 1.0, " s"),
        ],
        notes=[note],
    )
