"""What the workloads share: the broker with its topics, and how long and how often things are done."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from aiokafka import AIOKafkaProducer
from tests.bench.contenders import Contender
from tests.bench.records import Pair
from tests.kafka import Broker, unique

PARTITIONS = 6


@dataclass(frozen=True, slots=True)
class Scene:
    """Where a workload plays. *full*: at the size of the goals, else a short form of it."""

    broker: Broker
    contenders: Sequence[Contender]
    full: bool
    rounds: int
    profile: bool
    _shared: dict[str, str] = field(default_factory=dict)

    def topic(self, name: str, pairs: Iterable[Pair], partitions: int = PARTITIONS) -> str:
        """A new topic that holds these records; its name."""
        topic = unique(name)
        asyncio.run(self._fill(topic, pairs, partitions))
        return topic

    def shared_topic(self, name: str, pairs: Callable[[], Iterable[Pair]]) -> str:
        """The topic that several workloads read; it is filled for the first of them."""
        if name not in self._shared:
            self._shared[name] = self.topic(name, pairs())
        return self._shared[name]

    async def _fill(self, topic: str, pairs: Iterable[Pair], partitions: int) -> None:
        await self.broker.create_topic(topic, partitions)
        await fill(self.broker.servers, topic, pairs)

    def takes_part(self, contender: Contender) -> bool:
        return contender in self.contenders


async def fill(servers: str, topic: str, pairs: Iterable[Pair]) -> None:
    """Append records, as fast as it goes."""
    async with AIOKafkaProducer(bootstrap_servers=servers, linger_ms=20, max_batch_size=262_144) as producer:
        for key, value in pairs:
            await producer.send(topic, key=key, value=value)
        await producer.flush()
