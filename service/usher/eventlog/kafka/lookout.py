"""The lookout: looks at the topics again and again, since what was true at the start need not stay so.

Hides what is looked at, and how often. A source topic that was made anew is claimed anew. Our own topics are created and widened
where that is allowed; where it is not, and for everything else, there is a complaint with the command that mends it.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Final

import structlog
from aiokafka import TopicPartition as KafkaPartition
from aiokafka.errors import KafkaError

from usher import background
from usher.eventlog.errors import LogMisconfigured, LogUnavailable
from usher.eventlog.kafka.asking import Asking
from usher.eventlog.kafka.beginnings import Locator, cut_off, deleted, numbered
from usher.eventlog.kafka.errors import brief
from usher.eventlog.kafka.known_topics import KnownTopic, KnownTopics
from usher.eventlog.kafka.member import Member
from usher.eventlog.kafka.table import TableReader
from usher.eventlog.kafka.topic import Topic
from usher.eventlog.kafka.topic_ids import SeenTopic, seen
from usher.eventlog.kafka.topics import KafkaTopics
from usher.eventlog.names import checkpoints_topic
from usher.eventlog.port import Claim, LogConfig
from usher.redact import Ours

_logger = structlog.get_logger(__name__)
_EVERY: Final = 5.0
_CLOSELY: Final = 12
"""Every so many looks our own topics are looked at with their configs."""


class Lookout:
    """Looks at the topics of a log while it is open, every *every* seconds at least."""

    def __init__(
        self,
        member: Member,
        locator: Locator,
        known_topics: KnownTopics,
        table: TableReader,
        *,
        config: LogConfig,
        every: float,
    ) -> None:
        self.complaints: Sequence[str] = ()
        """What is wrong with the topics, each with the way out."""
        self._member = member
        self._locator = locator
        self._known_topics = known_topics
        self._table = table
        self._config = config
        self._every = min(_EVERY, every)
        self._ids: dict[str, str] = {}
        self._explained: dict[Claim, tuple[str, str]] = {}
        self._wanted = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def begin(
        self,
        asking: Asking,
        topics: KafkaTopics,
        take: Callable[[Mapping[str, Topic]], None],
        known: Mapping[str, Topic],
    ) -> None:
        """Begin to look, in the background.

        *known* are the topics as they were found. *take* is called with them each time when they are as they must be.
        """
        self._take = take
        self.use(asking, topics)
        self._ids = {name: topic.id for name, topic in known.items() if topic.id}
        self._task = background.begin(self._run)

    def use(self, asking: Asking, topics: KafkaTopics) -> None:
        """Use these clients from now on."""
        self._asking, self._topics = asking, topics

    async def end(self) -> None:
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    def soon(self) -> None:
        """Look soon, and closely: a write has failed."""
        self._wanted.set()

    async def _run(self) -> None:
        looks = 0
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._every):
                    await self._wanted.wait()
                    await asyncio.sleep(min(1.0, self._every))  # many writes fail at once
            looks += 1
            closely = self._wanted.is_set() or looks % _CLOSELY == 0
            self._wanted.clear()
            try:
                await self._look(closely=closely)
                await self._explain_stops()
            except (KafkaError, LogUnavailable, TimeoutError) as error:
                _logger.debug("the topics can't be looked at", error=brief(error))

    async def _look(self, *, closely: bool) -> None:
        names = self._topics.names()
        there = await seen(self._asking.admin._client, names)
        anew = {name for name, topic in there.items() if topic.id and self._ids.get(name, topic.id) != topic.id}
        self._ids |= {name: topic.id for name, topic in there.items() if topic.id}
        if closely or anew or self.complaints or len(there) < len(names):
            await self._verify()
        for name in anew - set(self._config.topics):
            _logger.error("a topic of ours was made anew", topic=name)
            self._table.rewind(name)
        remade = self._remade(there)
        if checkpoints_topic(self._config.group) in anew:
            self._known_topics.forget()  # the claims keep theirs again
        elif not remade:
            return
        await self._member.reopen(remade)

    def _remade(self, there: Mapping[str, SeenTopic]) -> Collection[str]:
        """Return the source topics that are others than those that were claimed."""
        now = {name: there[name].id for name in self._config.topics if name in there and there[name].id}
        remade = {name for name, id_ in now.items() if self._locator.ids.get(name, id_) != id_}
        self._locator.ids |= {name: now[name] for name in remade}
        return remade

    async def _verify(self) -> None:
        try:
            self._take(known := await self._topics.verified())
            complaints = self._topics.too_narrow(known)
        except LogMisconfigured as error:
            complaints = (str(error),)
        for complaint in complaints:
            if complaint not in self.complaints:
                _logger.error("topics are not as they must be", error=Ours(complaint))
        if self.complaints and not complaints:
            _logger.info("topics are as they must be again", group=self._config.group)
        self.complaints = complaints

    async def _explain_stops(self) -> None:
        """Say why partitions stand still, and see that they do so until somebody decides where they go on."""
        stopped = dict(self._member.polling.out_of_range)
        self._explained = {claim: why for claim, why in self._explained.items() if claim in stopped}
        await self._look_at_stops({claim: offset for claim, offset in stopped.items() if claim not in self._explained})
        for claim, (error, hint) in self._explained.items():
            self._member.polling.explain(claim, error, hint)

    async def _look_at_stops(self, fresh: Mapping[Claim, int]) -> None:
        if not fresh:
            return
        first = await self._asking.reader.beginning_offsets([KafkaPartition(*claim.topic_partition) for claim in fresh])
        for claim, offset in fresh.items():
            partition = KafkaPartition(*claim.topic_partition)
            about = (self._config.group, claim.topic, claim.partition)
            if offset < first[partition]:
                self._explained[claim] = deleted(*about)
            elif numbered(claim.topic_id):  # the broker tells no ids: an end before the offset means another topic
                await self._member.reopen([claim.topic])
                return
            else:
                await self._known_topics.keep({partition: KnownTopic(claim.topic_id, claim.remade, offset)})
                self._explained[claim] = cut_off(*about)
