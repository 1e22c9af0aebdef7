"""Durable writes to Kafka. Hides that a producer that failed is thrown away, and that the next write makes another one."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, Final

import structlog
from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError, MessageSizeTooLargeError, RecordListTooLargeError
from aiokafka.record.default_records import DefaultRecordBatchBuilder

from usher.delivery import Headers
from usher.eventlog.errors import LogUnavailable, TooLarge
from usher.eventlog.kafka.client import CLOSE_TIMEOUT, Clients, bounded
from usher.eventlog.kafka.topic import DEFAULT_MAX_BYTES
from usher.eventlog.port import TopicPartition

_logger = structlog.get_logger(__name__)
_PROBE_TIMEOUT: Final = 3.0


class Writer:
    """Writes records durably. It replaces a producer after an error: one rejected record spoils later writes to that partition."""

    def __init__(self, clients: Clients) -> None:
        self._clients = clients
        self._limits: Mapping[str, int] = {}
        self._producer: AIOKafkaProducer | None = None
        self._starting = asyncio.Lock()
        self._ending: set[asyncio.Task[None]] = set()
        self._closed = False

    def limit(self, limits: Mapping[str, int]) -> None:
        """Set the largest batch of each topic, in bytes."""
        self._limits = limits

    async def write(
        self, topic: str, key: bytes | None, value: bytes | None, headers: Headers, partition: int | None = None
    ) -> TopicPartition:
        """Append one record. Returns when all replicas have it.

        Raises:
            TooLarge, LogUnavailable
        """
        self._check_size(topic, key, value, headers)
        producer = await self._started()
        try:
            async with asyncio.timeout(self._clients.timeout):
                await self._know(producer, topic, partition)
                sent = await _send(producer, topic, key, value, headers, partition)
                # A cancelled write can't be taken back, and must not cancel the future that the producer still sets.
                written = await asyncio.shield(sent)
        except (MessageSizeTooLargeError, RecordListTooLargeError) as error:
            self._throw_away(producer, error)
            raise TooLarge(f"topic {topic} does not take the record: {error}") from error
        except (KafkaError, TimeoutError) as error:
            self._throw_away(producer, error)
            raise self._clients.unavailable(error, f"write to {topic}") from error
        return TopicPartition(written.topic, written.partition)

    async def writable(self) -> bool:
        """Return whether a broker answers the producer, and every known topic has its leaders."""
        try:
            async with asyncio.timeout(_PROBE_TIMEOUT):
                producer = await self._started()
                for topic in self._limits:
                    await producer.partitions_for(topic)
                if not await producer.client.force_metadata_update():
                    return False
        except (KafkaError, LogUnavailable, TimeoutError):
            return False
        cluster = producer.client.cluster
        return all(
            cluster.partitions_for_topic(topic) == cluster.available_partitions_for_topic(topic)
            for topic in self._limits
        )

    @property
    def producer(self) -> AIOKafkaProducer | None:
        """The producer of now; None before the first write, and after an error."""
        return self._producer

    def replace(self) -> None:
        """Let the next write make a new producer."""
        if self._producer is not None:
            self._throw_away(self._producer)

    async def close(self) -> None:
        """Send the records that wait, for a limited time. Safe to call twice."""
        self._closed = True
        if (producer := self._producer) is not None:
            self._throw_away(producer)
        if self._ending:
            await asyncio.wait(self._ending)

    def _check_size(self, topic: str, key: bytes | None, value: bytes | None, headers: Headers) -> None:
        size = DefaultRecordBatchBuilder.estimate_size_in_bytes(key, value, list(headers))
        limit = self._limits.get(topic, DEFAULT_MAX_BYTES)
        if size > limit:
            raise TooLarge(f"the record has about {size} bytes, topic {topic} takes {limit} (max.message.bytes)")

    async def _started(self) -> AIOKafkaProducer:
        async with self._starting:
            if self._closed:
                raise LogUnavailable("the event log is closed")
            if self._producer is None:
                producer = self._clients.producer(max(self._limits.values(), default=DEFAULT_MAX_BYTES))
                try:
                    async with asyncio.timeout(self._clients.timeout):
                        await producer.start()
                except BaseException as error:
                    self._dispose(producer)
                    if isinstance(error, (KafkaError, TimeoutError)):
                        raise self._clients.unavailable(error, "start a producer") from error
                    raise
                self._producer = producer
            return self._producer

    @staticmethod
    async def _know(producer: AIOKafkaProducer, topic: str, partition: int | None) -> None:
        """Refresh the metadata where *partition* is not known: it may have been added."""
        if partition is not None and partition not in await producer.partitions_for(topic):
            await producer.client.force_metadata_update()
            if partition not in await producer.partitions_for(topic):
                raise KafkaError(f"there is no partition {partition} of {topic}")

    def _throw_away(self, producer: AIOKafkaProducer, error: BaseException | None = None) -> None:
        if producer is not self._producer:
            return
        self._producer = None
        if error is not None:
            _logger.warning("producer replaced", error=type(error).__name__)
        self._dispose(producer)

    def _dispose(self, producer: AIOKafkaProducer) -> None:
        task = asyncio.create_task(_end(producer))
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)


async def _send(  # noqa: PLR0917 a record is what it is
    producer: AIOKafkaProducer,
    topic: str,
    key: bytes | None,
    value: bytes | None,
    headers: Headers,
    partition: int | None,
) -> asyncio.Future[Any]:
    if key is not None or value is not None:
        sent: asyncio.Future[Any] = await producer.send(topic, value, key, partition, headers=list(headers))
        return sent
    # send() refuses a record with headers only; Kafka takes it.
    batch = producer.create_batch()
    batch.append(timestamp=None, key=None, value=None, headers=list(headers))
    sent = await producer.send_batch(batch, topic, partition=partition or 0)
    return sent  # noqa: RET504 where it gets its type


async def _end(producer: AIOKafkaProducer) -> None:
    """Let the writes that are under way finish, then make sure that nothing is sent any more.

    An idempotent producer tries for ever, and its own stop() waits for that: a write that was given up would appear much later.
    """
    await bounded(producer.flush())
    producer._closed = True
    await bounded(producer._sender.close(), CLOSE_TIMEOUT)
    await bounded(producer.client.close())
