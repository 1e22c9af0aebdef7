"""Whose records a topic of ours holds. Hides that only the last records of each partition are looked at."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from aiokafka import AIOKafkaConsumer, TopicPartition

from usher.delivery.headers import Head, foreign
from usher.eventlog.kafka.client import Clients, stop
from usher.eventlog.kafka.ranges import read_between
from usher.eventlog.names import checkpoints_topic, dead_letter_topic, receipts_topic, retry_topic

_LOOKED_AT: Final = 50
_LOOKED_AT_RECEIPTS: Final = 3
"""A record has the receipts of many deliveries."""


async def strangers(
    clients: Clients, group: str, sources: Sequence[str], partitions: Mapping[str, int]
) -> Mapping[str, str]:
    """Return for each topic of ours that holds records of another group or source topic: whose these are.

    *partitions* are those of the topics that exist. What can't be read now is not judged: the worker reads it later, and warns.

    Raises:
        KafkaError
    """
    own = {name(group, source): source for source in sources for name in (retry_topic, dead_letter_topic)}
    own |= dict.fromkeys((receipts_topic(group), checkpoints_topic(group)), "")
    present = {name: source for name, source in own.items() if partitions.get(name)}
    if not present:
        return {}
    consumer = clients.reader()
    try:
        await consumer.start()
        found = {
            name: await _stranger(consumer, group, source, [TopicPartition(name, at) for at in range(partitions[name])])
            for name, source in present.items()
        }
    finally:
        await stop(consumer)
    return {name: owner for name, owner in found.items() if owner}


async def _stranger(consumer: AIOKafkaConsumer, group: str, source: str, partitions: Sequence[TopicPartition]) -> str:
    last = _LOOKED_AT_RECEIPTS if partitions[0].topic == receipts_topic(group) else _LOOKED_AT
    try:
        first, ends = await consumer.beginning_offsets(partitions), await consumer.end_offsets(partitions)
        bounds = {each: (max(first[each], ends[each] - last), ends[each]) for each in partitions}
        async for records in read_between(consumer, bounds):
            for record in records:
                if owner := foreign(Head(record.headers), group, source):
                    return owner
    except Exception:  # noqa: BLE001 - no right, no answer, or a damaged batch, which makes a decompressor raise anything
        return ""
    return ""
