"""The events that are sent, and which of them the topic has acknowledged.

A user's next event is sent only when the one before is acknowledged, so that the source order is the order of the sequence
numbers whatever the broker goes through. What was not acknowledged is sent again, under the same id.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass
from typing import Literal

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.errors import KafkaError

Sort = Literal["plain", "refused", "huge", "foreign"]

USERS = 120
RATE = 100.0
"""Events a second, of all sorts."""
MOST_BYTES = 1_048_588
"""The brokers' default of ``max.message.bytes``."""


@dataclass(frozen=True, slots=True)
class Sent:
    """An event that the topic has acknowledged, *at* a time of `time.monotonic`."""

    event: str
    user: str
    sequence: int
    sort: Sort
    at: float


class Traffic:
    """Sends events until cancelled. It adds the events that the provider must not take to *refused* and *never*.

    A producer of its own sends them; if *webhook* is set, it is given every second one, and returns once it is acknowledged.
    """

    def __init__(
        self, servers: str, topic: str, rng: random.Random, *, refused: set[str], never: set[str], users: int = USERS
    ) -> None:
        self.sent: list[Sent] = []
        self.garbage: list[tuple[int, int]] = []
        self.flowing = asyncio.Lock()
        self.webhook: Callable[[bytes], Awaitable[None]] | None = None
        self._servers = servers
        self._topic = topic
        self._rng = rng
        self._refused = refused
        self._never = never
        self._users = [f"user-{number:03}" for number in range(users)]
        self._sequence: Counter[str] = Counter()
        self._ids = itertools.count(1)
        self._producer: AIOKafkaProducer | None = None

    async def flow(self, rate: float = RATE) -> None:
        """Send *rate* events a second, a handful at a time, except while another task has `flowing`. What was late is not made up."""
        due = time.monotonic()
        while True:
            async with self.flowing:
                due = max(due, time.monotonic()) + await self._tick() / rate
            await asyncio.sleep(due - time.monotonic())

    async def send(self, count: int, sort: Sort = "plain") -> None:
        """Send *count* events of as many users."""
        await self._all([self._event(user, sort) for user in self._rng.sample(self._users, count)])

    async def send_huge(self) -> None:
        """Send one that fits into its topic, and with a dead letter's headers into none."""
        async with self.flowing:
            await self.send(1, "huge")

    async def send_garbage(self, count: int) -> None:
        """Send records that are no events, all to one partition."""
        async with self.flowing:
            producer = await self._started()
            partition = self._rng.choice(sorted(await producer.partitions_for(self._topic)))
            for number in range(count):
                value = b'{"type": "user.created", "context": {"triggered_by": "admin_api"' + b"\xff" * number
                await self._until_sent(None, value, partition)

    async def renew(self) -> None:
        """Send through another producer from now on: it knows of new partitions."""
        await self._drop_producer()

    async def ends(self, topic_partitions: Collection[TopicPartition]) -> dict[TopicPartition, int]:
        """For each partition the offset after its last record."""
        async with AIOKafkaConsumer(bootstrap_servers=self._servers, group_id=None) as consumer:
            return dict(await consumer.end_offsets(list(topic_partitions)))

    async def close(self) -> None:
        await self._drop_producer()

    async def _tick(self) -> int:
        """Send a handful. Returns how many."""
        users = self._rng.sample(self._users, self._rng.randint(4, 10))
        events = [self._event(user, "refused" if self._rng.random() < 0.005 else "plain") for user in users]
        events += [self._event(f"else-{self._rng.randint(0, 99)}", "foreign") for _ in range(4)]
        await self._all(events)
        return len(events)

    def _event(self, user: str, sort: Sort) -> tuple[Sent, bytes]:
        id_, sequence = f"{next(self._ids):016x}", self._sequence[user]
        self._sequence[user] += 1
        if sort == "refused":
            self._refused.add(id_)
        elif sort == "huge":
            self._never.add(id_)
        document = {
            "id": id_,
            "seq": sequence,
            "type": "user.created",
            "payload": {"user": {"id": user, "standard_attributes": {"email": f"{user}@example.org"}}},
            "context": {
                "timestamp": int(time.time()),
                "user_id": user,
                "triggered_by": "user" if sort == "foreign" else "admin_api",
                "app_id": "chaos",
                "user_agent": "",
            },
        }
        value = json.dumps(document).encode()
        if sort == "huge":
            value = value.replace(b'"user_agent": "', b'"user_agent": "' + b"x" * (MOST_BYTES - len(value) - 200))
        return Sent(id_, user, sequence, sort, 0.0), value

    async def _all(self, events: list[tuple[Sent, bytes]]) -> None:
        async def one(event: Sent, value: bytes) -> None:
            if self.webhook is not None and self._rng.random() < 0.5:
                await self.webhook(value)
            else:
                await self._until_sent(event.user.encode(), value)
            self.sent.append(Sent(event.event, event.user, event.sequence, event.sort, time.monotonic()))

        async with asyncio.TaskGroup() as group:
            for event, value in events:
                group.create_task(one(event, value))

    async def _until_sent(self, key: bytes | None, value: bytes, partition: int | None = None) -> None:
        while True:
            try:
                topic_partition = await (await self._started()).send_and_wait(self._topic, value, key, partition)
            except (KafkaError, TimeoutError):
                await self._drop_producer()
                await asyncio.sleep(0.3)
            else:
                if key is None:
                    self.garbage.append((topic_partition.partition, topic_partition.offset))
                return

    async def _started(self) -> AIOKafkaProducer:
        while self._producer is None:
            producer = AIOKafkaProducer(
                bootstrap_servers=self._servers, acks="all", enable_idempotence=True, linger_ms=2,
                request_timeout_ms=5_000, max_request_size=2 * MOST_BYTES,
            )  # fmt: skip
            try:
                await producer.start()
            except KafkaError:
                await producer.stop()
                await asyncio.sleep(0.3)
            else:
                if self._producer is None:
                    self._producer = producer
                else:
                    await producer.stop()
        return self._producer

    async def _drop_producer(self) -> None:
        producer, self._producer = self._producer, None
        if producer is not None:
            with contextlib.suppress(KafkaError, TimeoutError):
                async with asyncio.timeout(2):
                    await producer.stop()
