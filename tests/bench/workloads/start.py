"""From the start of the process to readiness, as an orchestrator sees it."""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

from tests.bench.outcome import Outcome
from tests.bench.scene import PARTITIONS, Scene
from tests.kafka import unique
from tests.measures import Measure
from tests.service import environment, running
from tests.stats import median


def to_ready(scene: Scene) -> Outcome:
    """`usher run` with the bundled handlers, a group that has been there before."""
    times = 2 * scene.rounds + 1
    topic = unique("start")
    asyncio.run(scene.broker.create_topic(topic, PARTITIONS))
    on_kafka = environment(event_log=f"kafka://{scene.broker.servers}", topics=topic, group=unique("start"))
    kafka = asyncio.run(_measured(on_kafka, times))
    embedded = asyncio.run(_measured(environment(), times))
    for title, found in (("Kafka", kafka), ("embedded", embedded)):
        print(f"  {title:<10} first {found[0]:.2f} s, then {median(found[1:]):.2f} s", flush=True)
    return Outcome(
        [
            Measure("start to ready", "on Kafka", median(kafka[1:]), 1.5, " s"),
            Measure("start to ready", "embedded log", median(embedded[1:]), 1.0, " s"),
        ],
        notes=[f"start to ready, in a new group: {kafka[0]:.2f} s on Kafka, {embedded[0]:.2f} s on the embedded log"],
    )


async def _measured(env: Mapping[str, str], times: int) -> list[float]:
    """Seconds, for the first start and *times* more."""
    found: list[float] = []
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        for _ in range(times + 1):
            began = time.perf_counter()
            async with running(Path(folder), env, cold=True):
                found.append(time.perf_counter() - began)
    return found
