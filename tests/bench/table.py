"""The parking table as a bench needs it: thousands of parked deliveries, written where a worker finds them.

Hides that they are written by us and not by failures of a handler: a worker sees no difference.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from tests.bench.records import record
from tests.bench.scene import PARTITIONS
from tests.kafka import Broker

from usher.delivery import Delivery, Origin, lane_of
from usher.delivery.headers import delivery_headers
from usher.eventlog.names import retry_topic
from usher.systems.decode import decode

HANDLER = "bench"
_FIRST_USER = 10_000_000


async def source(broker: Broker, topic: str, count: int) -> None:
    """A source topic with so many records that are nobody's: parked deliveries have offsets that must have been read."""
    await broker.create_topic(topic, PARTITIONS)
    async with _producer(broker) as producer:
        for number in range(count + PARTITIONS):
            await producer.send(topic, value=b"{}", partition=number % PARTITIONS)
        await producer.flush()


async def park(broker: Broker, topic: str, group: str, count: int, due: Callable[[int], float]) -> None:
    """Park *count* deliveries of as many users, of the group's retry topic; *due* gives the Unix time of each."""
    retry = retry_topic(group, topic)
    await broker.create_topic(retry, PARTITIONS, cleanup_policy="compact")
    async with _producer(broker) as producer:
        for number in range(count):
            delivery = _delivery(topic, number, due(number))
            await producer.send(
                retry,
                key=delivery.key.encode(),
                value=delivery.value,
                headers=delivery_headers(delivery),
                partition=number % PARTITIONS,
            )
        await producer.flush()


async def start_at(broker: Broker, topic: str, group: str, count: int) -> None:
    """Commit the place after the records of `source`, as if the group had read them and then left."""
    consumer = AIOKafkaConsumer(bootstrap_servers=broker.servers, group_id=group, enable_auto_commit=False)
    await consumer.start()
    try:
        partitions = [TopicPartition(topic, number) for number in range(PARTITIONS)]
        consumer.assign(partitions)
        await consumer.commit({each: (_offset(count + each.partition), "") for each in partitions})
    finally:
        await consumer.stop()


def _producer(broker: Broker) -> AIOKafkaProducer:
    return AIOKafkaProducer(bootstrap_servers=broker.servers, linger_ms=20, max_batch_size=262_144)


def _offset(number: int) -> int:
    return number // PARTITIONS


def _delivery(topic: str, number: int, due: float) -> Delivery:
    due_ms = math.ceil(due * 1000)
    key, value = record(number, _FIRST_USER + number, at=due_ms / 1000)
    uid = _IDENTITY._replace(id=f"{number:016x}")
    origin = Origin(topic, number % PARTITIONS, _offset(number), due_ms - 3_600_000, key)
    delivery = Delivery(HANDLER, uid, lane_of(*uid[:2], key.decode(), ""), origin, value)
    return delivery.failed(attempt=1, due=due_ms, now=due_ms - 60_000, error="told to fail", error_type="usher.Retry")


_IDENTITY = decode(record(0, 0, at=0.0)[1]).uid
