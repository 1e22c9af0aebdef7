"""What a group keeps of each source partition beside its offset: the id of the topic that the offset is of.

Hides how that is written into the topic of checkpoints, and that only what is new there is read again. An offset alone is not
enough: after a topic was made anew it means another record, and the brokers may have forgotten it.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from typing import Final, NamedTuple

from aiokafka import AIOKafkaConsumer, TopicPartition

from usher.delivery.headers import ORIGINAL_GROUP
from usher.eventlog.kafka.ranges import read_between
from usher.eventlog.kafka.writer import Writer
from usher.eventlog.port import checkpoints_topic

_PREFIX: Final = "topic-id/"


class KnownTopic(NamedTuple):
    """The *topic_id* that the group's offset in a partition is of; empty where the brokers give no ids.

    *remade*: the group has read an earlier topic of this name. *stopped_at*: the log ended before this offset, under the same
    id. The partition stays stopped until an operator sets its offset, also when the log has grown past it.
    """

    topic_id: str
    remade: bool = False
    stopped_at: int | None = None

    def encode(self) -> bytes:
        return json.dumps(
            {name: value for name, value in self._asdict().items() if value is not None and value is not False}
        ).encode()

    @classmethod
    def decode(cls, text: bytes) -> KnownTopic | None:
        """Read one. None where *text* is something else: others may write to the topic too."""
        try:
            found = json.loads(text)
            known = cls(str(found["topic_id"]), bool(found.get("remade")), found.get("stopped_at"))
        except (ValueError, TypeError, KeyError, AttributeError):
            return None
        return known if known.stopped_at is None or isinstance(known.stopped_at, int) else None


class KnownTopics:
    """What *group* keeps of its source partitions, in its topic of checkpoints."""

    def __init__(self, writer: Writer, group: str) -> None:
        self._writer = writer
        self._partition = TopicPartition(checkpoints_topic(group), 0)
        self._headers = [(ORIGINAL_GROUP, group.encode())]
        self._known: dict[TopicPartition, KnownTopic] = {}
        self._next = 0
        self._reading = asyncio.Lock()

    def forget(self) -> None:
        """Read the topic from its beginning next time: it was made anew."""
        self._known, self._next = {}, 0

    async def read(self, consumer: AIOKafkaConsumer) -> Mapping[TopicPartition, KnownTopic]:
        """Return what is kept of each partition. *consumer* has no group, and reads nothing else.

        Raises:
            KafkaError, TimeoutError
        """
        async with self._reading:
            first = (await consumer.beginning_offsets([self._partition]))[self._partition]
            end = (await consumer.end_offsets([self._partition]))[self._partition]
            if end < self._next:
                self.forget()
            try:
                async for records in read_between(consumer, {self._partition: (max(first, self._next), end)}):
                    for record in records:
                        self._take(record.key, record.value)
            finally:
                consumer.unsubscribe()
            self._next = end
        return self._known

    async def keep(self, known_topics: Mapping[TopicPartition, KnownTopic]) -> None:
        """Write those of *known_topics* that are new. Returns once they are acknowledged.

        Raises:
            LogUnavailable
        """
        for partition, known in known_topics.items():
            if self._known.get(partition) != known:
                key = f"{_PREFIX}{partition.topic}/{partition.partition}".encode()
                await self._writer.write(self._partition.topic, key, known.encode(), self._headers, 0)
                self._known[partition] = known

    def _take(self, key: bytes | None, value: bytes | None) -> None:
        name = (key or b"").decode("utf-8", "replace")
        topic, _, number = name.removeprefix(_PREFIX).rpartition("/")
        if not name.startswith(_PREFIX) or not number.isdecimal():
            return
        partition = TopicPartition(topic, int(number))
        if value is not None and (known := KnownTopic.decode(value)) is not None:
            self._known[partition] = known
        elif value is None:
            self._known.pop(partition, None)
