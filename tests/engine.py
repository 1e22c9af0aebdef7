"""A worker on the in-memory log, for tests of the engine: handlers with a script, and waits on conditions."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import random
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, cast

import structlog
from tests.fakes.memory_log import MemoryBroker, MemoryLog
from tests.jumping_loop import now

from usher import Context, Event, RetryPolicy, on
from usher.delivery import Delivery
from usher.delivery.headers import read_delivery
from usher.engine.attempt import Attempts
from usher.engine.dead_letters import DeadLetter, fold
from usher.engine.limits import Limits
from usher.engine.worker import Worker
from usher.eventlog.names import dead_letter_topic, receipts_topic, retry_topic
from usher.eventlog.port import LogConfig, TopicPartition
from usher.handler import Handler, Router
from usher.metrics import Metrics
from usher.receipts import Receipt, unpack
from usher.receipts.keys import AddressKeys

TOPIC = "identity.events"
CONFIG = LogConfig(group="usher", topics=(TOPIC,), start_from="earliest")
PATIENCE = 60.0
"""Seconds that anything may take: reached only by a test that fails."""
_ids = itertools.count(1)


def raw(user: str = "u1", *, event_id: str = "", triggered_by: str = "admin_api", type_: str = "user.created") -> bytes:
    """An Authgear event of a user."""
    number = next(_ids)
    event = {
        "id": event_id or f"{number:016x}",
        "seq": number,
        "type": type_,
        "payload": {"user": {"id": user, "standard_attributes": {"email": f"{user}@example.org"}}},
        "context": {"timestamp": int(now()), "user_id": user, "triggered_by": triggered_by, "app_id": "demo"},
    }
    return json.dumps(event).encode()


Act = Callable[[Event, Context], Any]


@dataclass
class Script:
    """A handler that records each attempt and calls *act* with the event. Without *act* it succeeds."""

    name: str = "script"
    done: list[tuple[str, str]] = field(default_factory=list)
    attempts: list[tuple[str, str, int, float]] = field(default_factory=list)
    running: set[str] = field(default_factory=set)
    twice: list[str] = field(default_factory=list)
    act: Act | None = None

    def handler(self, **options: Any) -> Handler:
        async def script(event: Event, ctx: Context) -> None:
            user = event.user.id or ""
            self.attempts.append((user, event.id, ctx.attempt, now()))
            if user in self.running:
                self.twice.append(user)
            self.running.add(user)
            try:
                if self.act is not None:
                    result = self.act(event, ctx)
                    if asyncio.iscoroutine(result):
                        await result
                self.done.append((user, event.id))
            finally:
                self.running.discard(user)

        script.__name__ = self.name
        return on("user.created", **options)(script)


@dataclass
class Bench:
    """One broker, and the workers that a test starts on it."""

    broker: MemoryBroker
    policy: RetryPolicy = field(default_factory=lambda: RetryPolicy(("50ms", "50ms"), jitter=0))
    now: Callable[[], float] = now
    """The wall clock of its workers."""
    sender: Any = None
    receipts_on: bool = True

    def __post_init__(self) -> None:
        self.broker.clock = now

    def worker(self, handlers: Iterable[Handler], **limits: Any) -> Worker:
        event_log = MemoryLog(CONFIG, self.broker)
        logger = structlog.get_logger()
        unused = cast("Any", None)
        metrics, rng = Metrics(), random.Random()
        attempts = Attempts(
            router=Router(handlers, ["admin_api"]),
            sender=self.sender,
            http=unused,
            settings={},
            policy=self.policy,
            metrics=metrics,
            logger=logger,
            now=self.now,
            rng=rng,
        )

        async def keys() -> AddressKeys:
            return AddressKeys([await event_log.address_key()])

        return Worker(
            event_log,
            attempts,
            group="usher",
            metrics=metrics,
            logger=logger,
            rng=rng,
            limits=Limits(**{"commit_every": 0.02, "drain": 2.0, **limits}),
            find_keys=keys if self.receipts_on else None,
        )

    @contextlib.asynccontextmanager
    async def running(self, *handlers: Handler, **limits: Any) -> AsyncIterator[Worker]:
        """A worker that is ready; it stops in good order at the end."""
        worker = self.worker(handlers, **limits)
        task = asyncio.create_task(worker.run())
        try:
            await until(lambda: worker.ready or task.done())
            yield worker
        finally:
            worker.stop()
            await asyncio.wait_for(task, PATIENCE)
            await worker.event_log.close()

    async def crashing(self, *handlers: Handler, when: Callable[[], object], **limits: Any) -> None:
        """Run a worker until *when*, then end it as kill -9 does: nothing is drained, committed or handed over."""
        worker = self.worker(handlers, **limits)
        event_log = worker.event_log
        task = asyncio.create_task(worker.run())
        before = asyncio.all_tasks()
        await until(when)
        assert isinstance(event_log, MemoryLog)
        self.broker.evict(event_log)
        for other in asyncio.all_tasks() - before | {task}:
            other.cancel()
        worker.claims.states.clear()
        await asyncio.gather(task, return_exceptions=True)

    async def emit(self, *values: bytes, key: bytes = b"k") -> None:
        for value in values:
            await self.broker.write(TopicPartition(TOPIC, self.broker.partition_of(key)), key, value, ())

    def committed(self, partition: int = 0) -> int:
        return self.broker.group("usher").committed[TopicPartition(TOPIC, partition)].next

    def parked(self, partition: int = 0) -> dict[str, Delivery]:
        table: dict[str, Delivery] = {}
        for record in self.broker.partition(retry_topic("usher", TOPIC), partition).records:
            key = (record.key or b"").decode()
            if record.value is None:
                table.pop(key, None)
            else:
                table[key] = read_delivery(record)
        return table

    def receipts(self, partition: int = 0) -> list[Receipt]:
        """The receipts on the log, in order."""
        records = self.broker.partition(receipts_topic("usher"), partition).records
        return [receipt for record in records for receipt in unpack(record.value or b"")]

    def dead_letters(self, partition: int = 0) -> list[DeadLetter]:
        dead_letters: dict[str, DeadLetter] = {}
        fold(self.broker.partition(dead_letter_topic("usher", TOPIC), partition).records, dead_letters)
        return list(dead_letters.values())


async def until(condition: Callable[[], object], within: float = PATIENCE) -> None:
    """Wait until *condition* is true."""
    async with asyncio.timeout(within):
        while not condition():  # noqa: ASYNC110 - the condition may be anything: no event announces it
            await asyncio.sleep(0.005)
