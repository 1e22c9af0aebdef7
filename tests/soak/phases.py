"""The phases of the soak that play on a fleet: kills under load, steady load, and a time without a broker."""

from __future__ import annotations

import asyncio
import math
import time

from tests.chaos.provider import Attempt
from tests.measures import Measure
from tests.soak.memory import watched
from tests.soak.stand import Played, Scene, under_load

SLOPE = 0.2
BACK_WITHIN = 30.0
_WELL, _BUSY = 97, 3
"""Of a hundred calls in the steady phase the provider refuses so many for now: parking belongs to the steady state."""
_AROUND = 10.0
"""Seconds of load before and after the time without a broker."""
_SAMPLES = 200


async def kills(scene: Scene) -> Played:
    """One worker after the other is killed while it is at work."""
    count, in_flight = scene.options.kills, 0
    async with under_load(scene, "kills") as load:
        fleet, provider = load.run.fleet, load.run.provider
        try:
            for number in range(count):
                worker = load.rng.choice(fleet.workers)
                await worker.ready(fleet.http)
                await asyncio.sleep(load.rng.uniform(0.0, 1.0))
                in_flight += provider.in_flight(worker.pid)
                scene.say(f"kill {number + 1} of {count}: worker {worker.number}")
                await load.run.kill(worker, 0.0)
        except TimeoutError as error:
            load.run.wrong.append(str(error))
        kept = await load.judged("kills")
    killed = sum(mishap.kind == "kill" for mishap in fleet.mishaps)
    return kept.also(
        Measure("kills", "workers killed", killed, count, at_least=True),
        Measure("kills", "calls under way when they were", in_flight, count, at_least=True),
    )


async def steady(scene: Scene) -> Played:
    """Nothing happens but load. What duplicates are known by is full before the half of which the slope is taken."""
    seconds = scene.options.minutes * 60
    async with under_load(scene, "steady", dedupe_window=f"{max(1, seconds / 4):.0f}s") as load:
        load.run.provider.moods = {"well": _WELL, "busy": _BUSY}
        pids = [worker.pid for worker in load.run.fleet.workers]
        scene.say(f"{seconds:g} s of steady load")
        began = time.monotonic()
        async with watched(pids, seconds / _SAMPLES) as memory:
            await asyncio.sleep(seconds)
        lasted = time.monotonic() - began
        memory.write(load.run.folder / "memory.csv")
        kept = await load.judged("steady")
    return kept.also(
        Measure("steady", "minutes of load", lasted / 60, scene.options.minutes, at_least=True),
        Measure("steady", "growth of memory in the last half, MB a minute", memory.slope, SLOPE),
        Measure("steady", "most memory of a worker", memory.peak, 250, " MB"),
    )


async def outage(scene: Scene) -> Played:
    """The broker is gone for a while, and comes back; the workers are not touched."""
    seconds = scene.options.outage
    async with under_load(scene, "outage") as load:
        await asyncio.sleep(_AROUND)
        scene.say(f"{seconds:g} s without a broker")
        await load.run.kill_broker(seconds)
        scene.say("the broker is back")
        [mishap] = load.run.fleet.mishaps
        await asyncio.sleep(_AROUND)
        kept = await load.judged("outage")
        back = back_after(load.run.provider.attempts, mishap.began, mishap.ended)
    return kept.also(
        Measure("outage", "time without a broker", mishap.ended - mishap.began, seconds, " s", at_least=True),
        Measure("outage", "from the broker's return to the next delivery of what it took", back, BACK_WITHIN, " s"),
    )


def back_after(attempts: list[Attempt], began: float, ended: float) -> float:
    """Seconds from the end of an outage to the first attempt after it that is none of what was in flight when it began."""
    before = {(each.handler, each.event) for each in attempts if each.began < began}
    after = (
        each.began - ended for each in attempts if each.began >= ended and (each.handler, each.event) not in before
    )
    return min(after, default=math.nan)
