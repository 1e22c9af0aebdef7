"""The flood: strangers by the thousand at one worker that may open 1,024 descriptors, and whether its health answers."""

from __future__ import annotations

import asyncio
import math
import sys
import time
from collections.abc import Coroutine, Mapping
from pathlib import Path
from typing import Any

import aiohttp
from tests.chaos.fleet import Worker
from tests.measures import Measure, number
from tests.soak.memory import watched
from tests.soak.stand import Played, Scene, under_load
from tests.stats import percentile

_ROOT = Path(__file__).parents[2]
DESCRIPTORS = 1_024
WAVES: Mapping[str, int] = {"half": 3_000, "bodies": 300, "signed-bodies": 300, "idle": 1_300, "idle-after-one": 1_300}
P99, SLOWEST, MEMORY = 100.0, 1_000.0, 250.0
_SECONDS = 20.0
"""How long each wave stays."""
_EVERY = 0.05
_PATIENCE = aiohttp.ClientTimeout(total=5)


async def flood(scene: Scene) -> Played:
    """One kind of strangers after the other. Each probe of health is a new connection, as an orchestrator makes one."""
    share = scene.options.flood
    seconds = _SECONDS * share
    measures = []
    async with under_load(scene, "flood", workers=1, descriptors=DESCRIPTORS) as load:
        [worker] = load.run.fleet.workers
        async with watched([worker.pid], 0.2) as memory:
            alone = percentile(await _probed(worker, asyncio.sleep(seconds)), 0.99)
            for kind, whole in WAVES.items():
                count = math.ceil(whole * share)
                scene.say(f"{count} {kind}")
                times = await _probed(worker, _strangers(worker, kind, count, seconds))
                during = f"health while {count:,} {kind}, {len(times)} probes"
                measures += [
                    Measure("flood", f"{during}: p99", percentile(times, 0.99), P99, " ms"),
                    Measure("flood", f"{during}: slowest", max(times), SLOWEST, " ms"),
                ]
        kept = await load.judged("flood")
    kept = kept.also(*measures, Measure("flood", "most memory", memory.peak, MEMORY, " MB"))
    return Played(kept.measures, [f"health before they come: p99 {number(alone)} ms", *kept.notes])


async def _strangers(worker: Worker, kind: str, count: int, seconds: float) -> None:
    """Let them come, and wait until the last one is gone."""
    port = worker.url.rpartition(":")[2]
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.soak.strangers", port, kind, str(count), str(seconds), cwd=_ROOT
    )
    try:
        await process.wait()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def _probed(worker: Worker, meanwhile: Coroutine[Any, Any, object]) -> list[float]:
    """Ask for health *meanwhile*: how long the answers took, in ms; inf: there was none, or a bad one."""
    times = []
    async with (
        asyncio.TaskGroup() as group,
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(force_close=True), timeout=_PATIENCE) as http,
    ):
        busy = group.create_task(meanwhile)
        while not busy.done():
            times.append(await _probe(http, f"{worker.url}/healthz"))
            await asyncio.wait([busy], timeout=_EVERY)
    return times


async def _probe(http: aiohttp.ClientSession, url: str) -> float:
    began = time.perf_counter()
    try:
        async with http.get(url) as answer:
            good = answer.status == 200
    except (aiohttp.ClientError, TimeoutError):
        good = False
    return (time.perf_counter() - began) * 1000 if good else math.inf
