"""What a group keeps of each source partition beside its offset: the id of the topic that the offset is of, and its own notes.

Hides how the id is written into the topic of checkpoints, and that only what is new there is read again. An offset alone is not
enough: after a topic was made anew it means another record, and the brokers may have forgotten it.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Mapping
from typing import Final, NamedTuple

from aiokafka import AIOKafkaConsumer, TopicPartition

from usher.delivery import Record
from usher.delivery.headers import ORIGINAL_GROUP, Head
from usher.eventlog.kafka.ranges import read_between
from usher.eventlog.kafka.writer import Writer
from usher.eventlog.names import checkpoints_topic
from usher.eventlog.notes import GroupStart, Notes, key_record, new_key
from usher.eventlog.port import TopicPartition as SourcePartition

_PREFIX: Final = "topic-id/"
_KEY: Final = re.compile(rf"{_PREFIX}(.+)/([0-9]{{1,9}})", re.DOTALL)
_ID: Final = re.compile(r"[^~].*|~[0-9]{1,9}|", re.DOTALL)
"""What brokers tell, or a number of our own where they tell none."""


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
            known = cls(found["topic_id"], bool(found.get("remade")), found.get("stopped_at"))
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
            return None
        plain = type(known.topic_id) is str and _ID.fullmatch(known.topic_id)
        return known if plain and (known.stopped_at is None or type(known.stopped_at) is int) else None


class KnownTopics:
    """What *group* keeps of its source partitions, in its topic of checkpoints."""

    def __init__(self, writer: Writer, group: str) -> None:
        self._writer = writer
        self._partition = TopicPartition(checkpoints_topic(group), 0)
        self._group, self._headers = group, [(ORIGINAL_GROUP, group.encode())]
        self._known: dict[TopicPartition, KnownTopic] = {}
        self._notes = Notes(group)
        self._before = self._notes
        """The notes of the topic before it was made anew: what they say still holds."""
        self._next = 0
        self._reading = asyncio.Lock()

    def forget(self) -> None:
        """Read the topic from its beginning next time: it was made anew."""
        self._before, self._notes = self._notes, Notes(self._group)
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
                    self._notes.take(records)
                    for record in records:
                        if (found := known_topic_in(record, self._group)) is not None:
                            self._take(*found)
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
                await self._write(f"{_PREFIX}{partition.topic}/{partition.partition}".encode(), known.encode())
                self._known[partition] = known

    def known(self, partition: TopicPartition) -> KnownTopic | None:
        """Return what is kept of a partition, as it was last read."""
        return self._known.get(partition)

    def start_of(self, partition: TopicPartition) -> GroupStart | None:
        """Return where the group began to read a partition, as it was last read."""
        named = SourcePartition(*partition)
        return self._notes.starts.get(named) or self._before.starts.get(named)

    async def keep_start(self, partition: TopicPartition, start: GroupStart) -> None:
        """Write where the group began to read a partition, where that is new.

        Raises:
            LogUnavailable
        """
        named = SourcePartition(*partition)
        if self._notes.starts.get(named) != start:
            await self._write(*start.record(named))
            self._notes.starts[named] = start

    async def keep_key(self) -> None:
        """Write the key that the topic had before it was made anew, if it had one and has none now.

        Raises:
            LogUnavailable
        """
        if self._notes.address_key is None and self._before.address_key is not None:
            await self._write(*key_record(self._before.address_key))

    async def address_key(self, consumer: AIOKafkaConsumer) -> bytes:
        """Return the group's key for the HMAC of addresses. Write one where there is none; the first that was written counts.

        Raises:
            LogUnavailable, KafkaError, TimeoutError
        """
        while self._notes.address_key is None:
            await self.read(consumer)
            if self._notes.address_key is None:
                await self._write(*new_key())
        return self._notes.address_key

    async def _write(self, key: bytes, value: bytes) -> None:
        await self._writer.write(self._partition.topic, key, value, self._headers, 0)

    def _take(self, partition: TopicPartition, known: KnownTopic | None) -> None:
        if known is None:
            self._known.pop(partition, None)
        else:
            self._known[partition] = known


def known_topic_in(record: Record, group: str) -> tuple[TopicPartition, KnownTopic | None] | None:
    """Return the partition that a record of the topic of checkpoints is about, and what is kept of it; None there: nothing any more.

    None where the record is not as Usher writes it for *group*: others may write to the topic too.
    """
    match = _KEY.fullmatch((record.key or b"").decode("utf-8", "replace"))
    if match is None or Head(record.headers).text(ORIGINAL_GROUP, group) != group:
        return None
    known = None if record.value is None else KnownTopic.decode(record.value)
    if known is None and record.value is not None:
        return None
    return TopicPartition(match[1], int(match[2])), known
