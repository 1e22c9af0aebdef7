"""Offsets of partitions. Hides that a question about several of them fails as a whole where one has no leader."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Collection, Mapping

from aiokafka import AIOKafkaConsumer
from aiokafka import TopicPartition as KafkaPartition
from aiokafka.errors import KafkaError

from usher.delivery import stated_time
from usher.eventlog.kafka.ranges import read_between

Ask = Callable[[list[KafkaPartition]], Awaitable[Mapping[KafkaPartition, int]]]


async def known(ask: Ask, partitions: Collection[KafkaPartition]) -> Mapping[KafkaPartition, int]:
    """Ask for an offset of each partition. Those that have no leader now are left out.

    Raises:
        KafkaError, TimeoutError: it is a single one.
    """
    try:
        return dict(await ask(list(partitions)))
    except (KafkaError, TimeoutError):
        if len(partitions) == 1:
            raise
        answers = await each_alone(ask, partitions)
        return {each: offset for each, offset in answers.items() if isinstance(offset, int)}


async def each_alone(ask: Ask, partitions: Collection[KafkaPartition]) -> Mapping[KafkaPartition, int | BaseException]:
    """Ask for an offset of each partition. One that has no leader gets its error, and does not hold up the answer of the others."""
    answers = await asyncio.gather(*(ask([each]) for each in partitions), return_exceptions=True)
    return {
        each: answer if isinstance(answer, BaseException) else answer[each]
        for each, answer in zip(partitions, answers, strict=True)
    }


async def first_within(
    consumer: AIOKafkaConsumer, partition: KafkaPartition, start: int, window: float, limit: int
) -> int:
    """Return the offset of the first record before *start* that is within *window* and *limit*."""
    beginning: int = (await consumer.beginning_offsets([partition]))[partition]
    end = (await consumer.end_offsets([partition]))[partition]
    now = time.time() * 1_000
    async for records in read_between(consumer, {partition: (start, min(end, start + 1))}):
        now = min(now, stated_time(records[0].timestamp, int(now)))  # the clock of its producer may be ahead
    since = {partition: max(0, int(now - window * 1_000))}
    found = (await consumer.offsets_for_times(since))[partition]
    first: int = start if found is None else found.offset
    return min(start, max(first, beginning, start - limit))
