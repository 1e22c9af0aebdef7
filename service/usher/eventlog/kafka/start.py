"""The first offsets of a group. Hides how they are committed: explicitly, before anything is read, and only once.

Kafka itself is the fence: it takes a commit without a membership only while the group has no members. The start is looked up
*before* it is checked that nothing is committed. So when two workers start together, the slower one can at most set the start
back, never forward over records that came in between.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection, Mapping
from typing import Final

import structlog
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import CommitFailedError, GroupLoadInProgressError, KafkaError
from aiokafka.structs import OffsetAndMetadata

from usher.eventlog.kafka.client import COMMIT_TIMEOUT, Clients, stop

_logger = structlog.get_logger(__name__)
_PATIENCE: Final = 15.0
_PAUSE: Final = 0.25

Offsets = dict[TopicPartition, int]


async def committed(
    admin: AIOKafkaAdminClient, group: str, partitions: Collection[TopicPartition]
) -> dict[TopicPartition, OffsetAndMetadata]:
    """Return what *group* has committed. Partitions without a commit are left out.

    Raises:
        KafkaError
    """
    if not partitions:
        return {}
    found = await admin.list_consumer_group_offsets(group, partitions=list(partitions))
    # A coordinator that is still loading answers with no partitions at all, and aiokafka returns that as an answer. To believe
    # it would be to start an old group again from its first offsets.
    if found.keys() != set(partitions):
        raise GroupLoadInProgressError(f"the offsets of group {group} can't be read yet")
    return {partition: offset for partition, offset in found.items() if offset.offset >= 0}


class Start:
    """The place where a new group starts: ``latest``, ``earliest`` or Unix seconds."""

    def __init__(self, clients: Clients, admin: AIOKafkaAdminClient, group: str, start_from: str | float) -> None:
        self._clients = clients
        self._admin = admin
        self._group = group
        self._start_from = start_from

    async def ensure(self, topics: Mapping[str, int], made_anew: Collection[str]) -> Offsets:
        """Commit a start for every partition of each topic that has no commit at all yet.

        *topics* are partition counts. Those of them *made_anew* start at their beginning: the group has read an earlier topic of
        that name, and the brokers have forgotten the commits with it. Returns the starts that could not be committed, because
        the group has members that do not read these topics: the owner of such a partition commits its start.

        Raises:
            KafkaError
        """
        consumer = self._clients.committer(self._group)
        await consumer.start()
        try:
            give_up = asyncio.get_running_loop().time() + _PATIENCE
            while starts := await self._missing(consumer, topics, made_anew):
                if await self._commit(consumer, starts):
                    return {}
                if asyncio.get_running_loop().time() > give_up:
                    return starts
                await asyncio.sleep(_PAUSE)
        finally:
            await stop(consumer)
        return {}

    async def _missing(
        self, consumer: AIOKafkaConsumer, topics: Mapping[str, int], made_anew: Collection[str]
    ) -> Offsets:
        """Return the starts of the topics that have no commit at all."""
        partitions = {
            topic: [TopicPartition(topic, number) for number in range(count)] for topic, count in topics.items()
        }
        known = await committed(self._admin, self._group, [each for some in partitions.values() for each in some])
        new = [topic for topic, some in partitions.items() if not known.keys() & set(some)]
        if not new:
            return {}
        starts = await self._look_up(consumer, [each for topic in new for each in partitions[topic]])
        starts |= await consumer.beginning_offsets([each for each in starts if each.topic in made_anew])
        known = await committed(self._admin, self._group, list(starts))
        taken = {partition.topic for partition in known}
        return {partition: offset for partition, offset in starts.items() if partition.topic not in taken}

    async def _look_up(self, consumer: AIOKafkaConsumer, partitions: list[TopicPartition]) -> Offsets:
        if self._start_from == "earliest":
            return dict(await consumer.beginning_offsets(partitions))
        ends = dict(await consumer.end_offsets(partitions))
        if self._start_from == "latest":
            return ends
        since = int(float(self._start_from) * 1_000)
        found = await consumer.offsets_for_times(dict.fromkeys(partitions, since))
        return {each: there.offset if (there := found[each]) else ends[each] for each in partitions}

    async def _commit(self, consumer: AIOKafkaConsumer, starts: Offsets) -> bool:
        """Commit *starts*, and log them. False where the group has members: they have committed them, or will soon be gone."""
        first = dict(await consumer.beginning_offsets(list(starts)))
        consumer.assign(list(starts))
        try:
            async with asyncio.timeout(COMMIT_TIMEOUT):
                await consumer.commit({each: (offset, "") for each, offset in starts.items()})
        except CommitFailedError:
            return False
        except TimeoutError as error:
            raise KafkaError("the start could not be committed in time") from error
        for topic in sorted({each.topic for each in starts}):
            skipped = sum(offset - first[each] for each, offset in starts.items() if each.topic == topic)
            level = logging.WARNING if skipped else logging.INFO
            _logger.log(level, "starting at %s", self._start_from, topic=topic, group=self._group, skipped=skipped)
        return True
