"""Open transactions that hold a partition: its records are there, and nobody may read them yet. Hides how that is noticed."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Final, NamedTuple

import structlog
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError

from usher.eventlog.kafka.client import Clients, stop
from usher.eventlog.kafka.ranges import read_between

_logger = structlog.get_logger(__name__)
_LONG: Final = 10.0
"""Seconds after which a transaction that is open is worth a line: most take less than one."""
_AGAIN: Final = 60.0
_PATIENCE: Final = 5.0


class _Hold(NamedTuple):
    """Where a partition is held: *offset* is the first record that may not be read, *since* when it was written, as far as known."""

    offset: int
    noticed: float
    since: str = ""
    said: float | None = None


class Holds:
    """The partitions that open transactions hold. Each gets its line after ten seconds, and then one a minute."""

    def __init__(self, clients: Clients) -> None:
        self._clients = clients
        self._holds: dict[TopicPartition, _Hold] = {}

    async def look(
        self, asker: AIOKafkaConsumer, read_to: Mapping[TopicPartition, int], ends: Mapping[TopicPartition, int]
    ) -> None:
        """Compare where the partitions are *read_to* with what may be read of them. *ends* are those of all records.

        Raises:
            KafkaError, TimeoutError
        """
        behind = [each for each, end in ends.items() if read_to.get(each, end) < end]
        readable = await asker.end_offsets(behind) if behind else {}
        held = {each: offset for each, offset in readable.items() if read_to[each] >= offset < ends[each]}
        for gone in self._holds.keys() - held.keys():
            del self._holds[gone]
        now = asyncio.get_running_loop().time()
        for partition, offset in held.items():
            hold = self._holds.get(partition)
            if hold is None or hold.offset != offset:
                self._holds[partition] = _Hold(offset, now)
            elif now - hold.noticed >= _LONG and (hold.said is None or now - hold.said >= _AGAIN):
                await self._say(partition, hold, now, ends[partition])

    async def _say(self, partition: TopicPartition, hold: _Hold, now: float, end: int) -> None:
        since = hold.since or await self._written(partition, hold.offset) or _iso(time.time() - (now - hold.noticed))
        self._holds[partition] = hold._replace(since=since, said=now)
        _logger.warning(
            "an open transaction holds a partition",
            topic=partition.topic,
            partition=partition.partition,
            offset=hold.offset,
            since=since,
            waiting=end - hold.offset,
        )

    async def _written(self, partition: TopicPartition, offset: int) -> str:
        """Return when the record at *offset* was written; empty where that can't be read."""
        consumer = self._clients.reader(committed=False)
        try:
            async with asyncio.timeout(_PATIENCE):
                await consumer.start()
                async for records in read_between(consumer, {partition: (offset, offset + 1)}):
                    return _iso(records[0].timestamp / 1_000)
        except (KafkaError, TimeoutError):
            pass
        finally:
            await stop(consumer)
        return ""


def _iso(moment: float) -> str:
    return datetime.fromtimestamp(max(0.0, moment), UTC).isoformat(timespec="seconds")
