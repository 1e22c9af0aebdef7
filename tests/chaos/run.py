"""One run of chaos: a fleet of workers on a real broker, a plan of faults carried out, everything healed, and the verdict."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aiokafka import TopicPartition
from aiokafka.admin import NewPartitions
from tests.chaos.fleet import Fleet, Worker
from tests.chaos.judge import Findings, judge
from tests.chaos.plan import SESSION, WORKERS, Fault, plan
from tests.chaos.provider import Provider
from tests.chaos.traffic import Traffic
from tests.kafka import Broker, unique
from tests.service import environment, usher

from usher.addresses import KafkaAddress
from usher.eventlog import open_browser
from usher.eventlog.port import LogConfig
from usher.receipts import unpack

HANDLERS = ("chaos_first", "chaos_second")
PARTITIONS = 6
REST_WITHIN = 180.0
AT_WORK_WITHIN = 15.0
_HANDLERS_DIR = Path(__file__).with_name("handlers")
_DELAYS = ",".join(["200ms", "500ms", "1s", "1s"] + ["2s"] * 100)
"""Long enough that nothing is given up because the provider fails: what is dead-lettered was meant to be."""


@dataclass
class Chaos:
    """What a run consists of. *faults* are those that were carried out, by kind; *say* gets a line for each thing that happens."""

    folder: Path
    broker: Broker
    provider: Provider
    fleet: Fleet
    traffic: Traffic
    topic: str
    group: str
    env: dict[str, str]
    say: Callable[[str], None]
    partitions: int = PARTITIONS
    faults: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    broker_lock: asyncio.Lock = field(default_factory=asyncio.Lock)

    # Faults

    async def carry_out(self, faults: list[Fault], seconds: float) -> None:
        """Each fault begins after its pause, also while earlier ones last; returns when all have ended."""
        give_up = time.monotonic() + seconds
        async with asyncio.TaskGroup() as under_way:
            for fault in faults:
                await asyncio.sleep(fault.after)
                if time.monotonic() > give_up:
                    break
                self.say(str(fault))
                self.faults[fault.kind] += 1
                task = under_way.create_task(self._carry_out(fault))
                if fault.kind == "add-partition":  # what came meanwhile would hit a fleet that has nothing to do
                    await task

    async def _carry_out(self, fault: Fault) -> None:
        match fault.kind:
            case "kill" | "stop" | "freeze":
                act = {"kill": self.kill, "stop": self._restart, "freeze": self._freeze}[fault.kind]
                await asyncio.gather(*(self._hit(self.fleet.workers[number], act, fault) for number in fault.workers))
            case "rolling":
                for worker in self.fleet.workers:
                    await self._hit(worker, self._restart, fault)
            case "broker-kill":
                await self.kill_broker(fault.lasts)
            case "provider-down":
                self.provider.down = True
                await asyncio.sleep(fault.lasts)
                self.provider.down = False
            case "undecodable":
                await self.traffic.send_garbage(12)
            case "too-large":
                await self.traffic.send_huge()
            case "add-partition":
                await self._add_partition()

    async def _hit(self, worker: Worker, act: Callable[[Worker, float], Awaitable[None]], fault: Fault) -> None:
        async with worker.lock:
            if fault.at_work:
                with contextlib.suppress(TimeoutError):  # the broker may be gone for longer than this worker is
                    await worker.ready(self.fleet.http, AT_WORK_WITHIN)
            await act(worker, fault.lasts)

    async def kill(self, worker: Worker, lasts: float) -> None:
        """Kill -9 it, and start another process *lasts* seconds later."""
        self.fleet.record("kill", worker.pid, self.provider.in_flight(worker.pid))
        await worker.kill()
        await asyncio.sleep(lasts)
        await worker.start()

    async def _restart(self, worker: Worker, lasts: float) -> None:
        await worker.stop()
        await asyncio.sleep(lasts)
        await worker.start()

    async def _freeze(self, worker: Worker, lasts: float) -> None:
        mishap = self.fleet.record("freeze", worker.pid, self.provider.in_flight(worker.pid))
        mishap.ended = float("inf")
        worker.freeze()
        await asyncio.sleep(lasts)
        mishap.ended = time.monotonic()
        worker.thaw()

    async def kill_broker(self, lasts: float) -> None:
        """Kill -9 the broker; it is back after *lasts* seconds, and what it takes to start."""
        async with self.broker_lock:
            mishap = self.fleet.record("broker-kill", None, 0)
            mishap.ended = float("inf")
            await asyncio.to_thread(self.broker.kill)
            await asyncio.sleep(lasts)
            await asyncio.to_thread(self.broker.start)
            mishap.ended = time.monotonic()

    async def _add_partition(self) -> None:
        """Users move to other partitions by that: order holds across it only if everything is at rest."""
        async with contextlib.AsyncExitStack() as locks:
            for lock in (*(worker.lock for worker in self.fleet.workers), self.broker_lock, self.traffic.flowing):
                await locks.enter_async_context(lock)
            await self._rest()
            self.partitions += 1
            async with self.broker.admin() as admin:
                await admin.create_partitions({self.topic: NewPartitions(self.partitions)})
            await self.traffic.renew()

    # The end

    async def heal(self) -> None:
        """Nothing fails any more: wait for rest, and see that a worker's end loses none of it."""
        self.provider.healthy = True
        await self._rest()
        await asyncio.gather(*(worker.stop() for worker in self.fleet.workers))
        self.wrong += await self._uncommitted()

    async def _rest(self) -> None:
        try:
            await self.fleet.ready()
            await self.fleet.rest(self.partitions, REST_WITHIN)
        except TimeoutError as error:
            self.wrong.append(f"it did not come to rest: {error}")

    async def _uncommitted(self) -> list[str]:
        topic_partitions = [TopicPartition(self.topic, number) for number in range(self.partitions)]
        async with self.broker.admin() as admin:
            committed = await admin.list_consumer_group_offsets(self.group, partitions=topic_partitions)
        ends = await self.traffic.ends(topic_partitions)
        return [
            f"partition {topic_partition.partition} is committed to {committed[topic_partition].offset} of {ends[topic_partition]}"
            for topic_partition in topic_partitions
            if committed[topic_partition].offset != ends[topic_partition]
        ]

    async def dead_letters(self) -> list[dict[str, Any]]:
        """The open dead letters, as an operator lists them."""
        code, out, err = await usher("dlq", "list", "--json", cwd=self.folder, env=self.env)
        if code:
            raise RuntimeError(f"`usher dlq list` failed: {err}")
        listed: list[dict[str, Any]] = json.loads(out)
        return listed

    async def receipts(self) -> set[tuple[str, str]]:
        """The deliveries (handler, event) that have a receipt."""
        address = KafkaAddress(tuple(self.broker.servers.split(",")))
        async with open_browser(address, LogConfig(self.group, (self.topic,))) as browser:
            records = [record async for batch in browser.receipts({}) for record in batch]
        return {(each.handler, each.event_id) for record in records for each in unpack(record.value or b"")}

    async def verdict(self) -> Findings:
        findings = judge(
            handlers=HANDLERS,
            sent=self.traffic.sent,
            garbage=self.traffic.garbage,
            attempts=self.provider.attempts,
            mishaps=self.fleet.mishaps,
            dead_letters=await self.dead_letters(),
            receipts=await self.receipts(),
        )
        findings.wrong += [*self.fleet.wrong, *self.wrong]
        return findings


async def chaos(
    broker: Broker, seed: int, seconds: float, folder: Path, say: Callable[[str], None]
) -> tuple[Findings, Chaos]:
    """Run the plan of *seed* for about *seconds* on a broker that runs; the workers' logs are in *folder*."""
    # aiokafka logs each broken connection; to break them is the point
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)
    faults = plan(seed, seconds)
    async with stage(broker, folder, random.Random(seed), say=say) as run:
        flowing = asyncio.create_task(run.traffic.flow())
        say(f"{WORKERS} workers are ready")
        await run.carry_out(faults, seconds)
        async with run.traffic.flowing:
            flowing.cancel()
        say("healing")
        await run.heal()
        return await run.verdict(), run


@contextlib.asynccontextmanager
async def stage(
    broker: Broker,
    folder: Path,
    rng: random.Random,
    *,
    say: Callable[[str], None] = lambda _: None,
    ready: bool = True,
    descriptors: int | None = None,
    workers: int = WORKERS,
    **settings: object,
) -> AsyncIterator[Chaos]:
    """A new topic, a provider double and a fleet (*ready*, or not started); gone at the end. *settings* are the workers'.

    A worker may open as many *descriptors*, or as the system lets it.
    """
    topic, group = unique("events"), unique("usher")
    await broker.create_topic(topic, PARTITIONS)
    async with Provider(random.Random(rng.random())) as provider:
        traffic = Traffic(
            broker.servers, topic, random.Random(rng.random()), refused=provider.refused, never=provider.never
        )
        env = worker_environment(broker.servers, topic, group, provider.url, **settings)
        async with Fleet([Worker(number, folder, env, descriptors) for number in range(workers)]) as fleet:
            try:
                if ready:
                    await fleet.start()
                yield Chaos(folder, broker, provider, fleet, traffic, topic, group, env, say)
            finally:
                await traffic.close()


def worker_environment(servers: str, topic: str, group: str, url: str, **more: object) -> dict[str, str]:
    """The settings of `usher run` with the two handlers that call the provider double at *url*."""
    settings: dict[str, object] = {
        "event_log": f"kafka://{servers}",
        "topics": topic,
        "group": group,
        "start_from": "earliest",
        "handlers": ",".join(HANDLERS),
        "handlers_dir": _HANDLERS_DIR,
        "retry_delays": _DELAYS,
        "log_format": "json",
        "kafka__session_timeout_ms": int(SESSION * 1_000),
        "kafka__metadata_max_age_ms": 1_000,
        **{f"{name}__url": url for name in HANDLERS},
    }
    found = environment(**(settings | more))
    if (path := os.environ.get("PYTHONPATH")) is not None:
        found["PYTHONPATH"] = path
    return found
