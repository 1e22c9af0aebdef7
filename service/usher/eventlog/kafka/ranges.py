"""Reads a range of partitions, up to an offset, over gaps. Hides that it needs no group."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from typing import Final

from aiokafka import AIOKafkaConsumer, TopicPartition

from usher.delivery import Record

_BATCH: Final = 1_000
_WAIT_MS: Final = 200
_STALLED: Final = 30.0

Bounds = Mapping[TopicPartition, tuple[int, int]]
"""For each partition its first offset and the one to stop before."""


async def read_between(consumer: AIOKafkaConsumer, bounds: Bounds) -> AsyncIterator[Sequence[Record]]:
    """Read the records within *bounds*, in order for each partition. Replaces the assignment of *consumer*.

    Raises:
        TimeoutError: nothing moved for half a minute.
        KafkaError
    """
    left = {partition: end for partition, (first, end) in bounds.items() if first < end}
    if not left:
        return
    consumer.assign(list(left))
    for partition in left:
        consumer.seek(partition, bounds[partition][0])
    loop = asyncio.get_running_loop()
    moved = loop.time()
    while left:
        partition = next(iter(left))
        before = await consumer.position(partition)
        read = await consumer.getmany(partition, timeout_ms=_WAIT_MS, max_records=_BATCH)
        position = await consumer.position(partition)
        records = read.get(partition, [])
        if records and records[-1].offset >= left[partition]:
            records = [record for record in records if record.offset < left[partition]]
        if records:
            yield records
        if position >= left[partition]:
            del left[partition]
        if position > before:
            moved = loop.time()
        elif loop.time() - moved > _STALLED:
            raise TimeoutError(f"{partition.topic}/{partition.partition} can't be read beyond offset {position}")


async def read_since(
    consumer: AIOKafkaConsumer, partitions: Collection[TopicPartition], moment: float
) -> AsyncIterator[Sequence[Record]]:
    """Read the records from the first one stamped at or after *moment* (Unix seconds) to the end as it is now.

    Raises:
        TimeoutError, KafkaError: as `read_between`.
    """
    ends = await consumer.end_offsets(partitions)
    found = await consumer.offsets_for_times(dict.fromkeys(partitions, max(0, round(moment * 1_000))))
    bounds = {each: (at.offset, ends[each]) for each, at in found.items() if at is not None}
    async for records in read_between(consumer, bounds):
        yield records
