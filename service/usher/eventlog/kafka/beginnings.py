"""Where a claim begins: at the offset that was committed, unless that is of another log than the one that is there now.

Hides how it is known that a topic was made anew: by the topic id that the group keeps beside its offset. Where the brokers give
no ids, an end before the offset is the sign.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Collection, Mapping
from typing import Final, NamedTuple

import structlog
from aiokafka import AIOKafkaConsumer
from aiokafka import TopicPartition as KafkaPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import UnknownTopicOrPartitionError
from aiokafka.structs import OffsetAndMetadata

from usher.eventlog.kafka.errors import brief
from usher.eventlog.kafka.known_topics import KnownTopic, KnownTopics
from usher.eventlog.kafka.offsets import each_alone
from usher.eventlog.kafka.start import Offsets, committed
from usher.eventlog.kafka.topic_ids import seen
from usher.eventlog.notes import GroupStart

_logger = structlog.get_logger(__name__)
_NUMBERED: Final = "~"


class Beginning(NamedTuple):
    """Where a claim begins. Not *committed*: it must be committed before anything is read.

    *topic_id* and *remade* are those of the claim. *stopped*: nothing may be read, since the log was cut off before the offset.
    """

    offset: int
    mark: str = ""
    committed: bool = True
    topic_id: str = ""
    remade: bool = False
    stopped: bool = False

    @property
    def known(self) -> KnownTopic:
        return KnownTopic(self.topic_id, self.remade, self.offset if self.stopped else None)


Beginnings = Mapping[KafkaPartition, Beginning]


class Located(NamedTuple):
    """Where claims begin, and which partitions can't be claimed now: each with what is wrong, and the way out."""

    beginnings: Beginnings
    stopped: Mapping[KafkaPartition, tuple[str, str]] = {}


def decide(
    known: KnownTopic | None, topic_id: str, at: OffsetAndMetadata | None, *, first: int, end: int, start: int
) -> Beginning:
    """Decide where a partition begins. *at* is what the group has committed, *first* and *end* are the bounds of its log.

    *topic_id* is that of the topic now, *start* the offset to begin at where nothing is known.
    """
    named, remade = (known.topic_id, known.remade) if known is not None else ("", False)
    comparable = bool(topic_id) and not numbered(named)
    beyond = at is not None and at.offset > end
    if (comparable and named != topic_id) or (beyond and not comparable):
        return Beginning(first, committed=False, topic_id=topic_id or _next(named), remade=True)
    if at is None:
        return Beginning(start, committed=False, topic_id=topic_id or named, remade=remade)
    decided = not at.metadata  # an operator has set the offset: our own commits have a Mark
    stopped = beyond or (known is not None and known.stopped_at is not None and not decided)
    return Beginning(at.offset, at.metadata, topic_id=topic_id or named, remade=remade, stopped=stopped)


def start_of(noted: GroupStart | None, known: KnownTopic | None, beginning: Beginning, now: int) -> GroupStart | None:
    """Return where the group began to read a partition, *noted* being what it has noted of that; None where nobody knows.

    An earlier Usher noted nothing. Where an operator has set the offset further back, the group begins there. *now*: Unix milliseconds.
    """
    if not beginning.committed or (known is None and noted is None and not beginning.mark):
        return GroupStart(beginning.topic_id, beginning.offset, now)
    if noted is None or (noted.topic_id != beginning.topic_id and not numbered(noted.topic_id)):
        return None
    return noted._replace(topic_id=beginning.topic_id, offset=min(noted.offset, beginning.offset))


def numbered(topic_id: str) -> bool:
    """Return whether an id is one of ours, for a broker that gives none."""
    return topic_id[:1] in {"", _NUMBERED}


def _next(named: str) -> str:
    """Return the id of our own that follows *named*, where the brokers give none: topics of one name are numbered."""
    return f"{_NUMBERED}{int(named[1:] or 0) + 1 if numbered(named) else 1}"


class Locator:
    """Locates the beginnings of claims, and keeps the topic ids by which later ones are decided."""

    def __init__(self, group: str, known_topics: KnownTopics) -> None:
        self._group = group
        self._known_topics = known_topics
        self.ids: dict[str, str] = {}
        """The ids of the source topics as they were last seen."""
        self.starts: Offsets = {}
        """The starts of a new group that are still to be committed."""

    async def made_anew(self, asker: AIOKafkaConsumer, ids: Mapping[str, str]) -> Collection[str]:
        """Return those topics of *ids* that the group has read under another id.

        Raises:
            KafkaError, TimeoutError
        """
        known_topics = await self._known_topics.read(asker)
        return {
            each.topic
            for each, known in known_topics.items()
            if known.topic_id and (now := ids.get(each.topic)) and known.topic_id != now
        }

    async def locate(
        self, admin: AIOKafkaAdminClient, asker: AIOKafkaConsumer, partitions: Collection[KafkaPartition]
    ) -> Located:
        """Return where each partition begins. Without a commit: at a start still to be committed, or, if it is new, its beginning.

        One that has no leader stands still, and does not hold up the others.

        Raises:
            KafkaError, TimeoutError, LogUnavailable
        """
        topics = {each.topic for each in partitions}
        there = await seen(admin._client, topics)
        if missing := topics - there.keys():
            raise UnknownTopicOrPartitionError(f"{', '.join(sorted(missing))}: deleted?")
        known_topics = await self._known_topics.read(asker)
        await self._known_topics.keep_key()
        found = await committed(admin, self._group, partitions)
        firsts, ends = await asyncio.gather(
            each_alone(asker.beginning_offsets, partitions), each_alone(asker.end_offsets, partitions)
        )
        self.ids |= {topic: there[topic].id for topic in topics}
        beginnings, stopped = {}, {}
        for each in partitions:
            first, end = firsts[each], ends[each]
            if isinstance(first, BaseException) or isinstance(end, BaseException):
                errors = [brief(error) for error in (first, end) if isinstance(error, BaseException)]
                stopped[each] = (errors[0], "see whether the partition has a leader")
                continue
            at, topic_id, start = found.get(each), there[each.topic].id, self.starts.get(each, first)
            beginnings[each] = decide(known_topics.get(each), topic_id, at, first=first, end=end, start=start)
            _log_topic_made_anew(each, at, beginnings[each], known_topics.get(each))
        return Located(beginnings, stopped)

    async def settled(self, beginnings: Beginnings) -> None:
        """Keep the topics of claims whose beginnings are committed, and where the group began. Nothing is read before that.

        Raises:
            LogUnavailable
        """
        kept, now = self._known_topics, int(time.time() * 1_000)
        for each, beginning in beginnings.items():
            if (start := start_of(kept.start_of(each), kept.known(each), beginning, now)) is not None:
                await kept.keep_start(each, start)
        await self._known_topics.keep({each: beginning.known for each, beginning in beginnings.items()})


def _log_topic_made_anew(
    each: KafkaPartition, at: OffsetAndMetadata | None, beginning: Beginning, known: KnownTopic | None
) -> None:
    before = at.offset if at is not None else None
    if not beginning.committed and beginning.remade and (known is None or known.topic_id != beginning.topic_id):
        _logger.error(
            "source topic was made anew",
            topic=each.topic,
            partition=each.partition,
            offset=beginning.offset,
            before=before,
            topic_id=beginning.topic_id,
        )


_RESET: Final = "kafka-consumer-groups.sh --reset-offsets --group {group} --topic {topic}:{partition} {to} --execute"


def cut_off(group: str, topic: str, partition: int) -> tuple[str, str]:
    """Return the error of a partition whose log ends before the group's offset, and the way out."""
    reset = _RESET.format(group=group, topic=topic, partition=partition, to="--to-offset N")
    hint = (
        "records were lost by the brokers, and others may have their offsets now; stop all workers, choose where to go on, "
        f"and set it: {reset}"
    )
    return "its log ends, or has ended, before the offset that the group has read to", hint


def deleted(group: str, topic: str, partition: int) -> tuple[str, str]:
    """Return the error of a partition whose next record is gone, and the way out."""
    reset = _RESET.format(group=group, topic=topic, partition=partition, to="--to-earliest")
    return "its records were deleted before they were read", f"stop all workers and go on with the rest: {reset}"
