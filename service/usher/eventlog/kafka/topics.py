"""The topics of a group on Kafka. Hides how they are looked up, created and widened, and which command does it by hand."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple

from aiokafka.admin import AIOKafkaAdminClient, NewPartitions, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import InvalidPartitionsError, KafkaError, TopicAlreadyExistsError, for_code

from usher.eventlog.browse import TopicState
from usher.eventlog.errors import LogMisconfigured
from usher.eventlog.port import checkpoints_topic, dead_letter_topic, retry_topic

DEFAULT_MAX_BYTES: Final = 1_048_588
_SEEN_WITHIN: Final = 10.0
_RETENTION: Final = str(90 * 24 * 3_600 * 1_000)
_KINDS: Final = {
    "retry": {"cleanup.policy": "compact"},
    "dlt": {"cleanup.policy": "delete", "retention.ms": _RETENTION},
    "checkpoints": {"cleanup.policy": "compact"},
}


class Topic(NamedTuple):
    """A topic that exists. *configs* is empty where they may not be read."""

    partitions: int
    replicas: int
    configs: Mapping[str, str] = {}

    @property
    def max_bytes(self) -> int:
        """The largest batch that it takes, in bytes."""
        return int(self.configs.get("max.message.bytes", DEFAULT_MAX_BYTES))

    @property
    def compacted(self) -> bool | None:
        policy = self.configs.get("cleanup.policy")
        return None if policy is None else "compact" in policy


class KafkaTopics:
    """The source topics of a group and our own two for each."""

    def __init__(self, admin: AIOKafkaAdminClient, servers: str, group: str, sources: Sequence[str]) -> None:
        self._admin = admin
        self._servers = servers
        self._group = group
        self._sources = sources

    async def verified(self) -> Mapping[str, Topic]:
        """Return all topics by name. The sources must exist; our own two of each are created or widened to match.

        One of our own may have too few partitions all the same, where it may not be widened: see `narrow`.

        Raises:
            LogMisconfigured: with the commands to run.
            KafkaError: Kafka could not answer.
        """
        known = await self._look_up(self._names())
        missing = [name for name in self._sources if name not in known]
        if missing:
            commands = "; ".join(self._create_command(name, 6, 3, {}) for name in missing)
            raise LogMisconfigured(
                f"source topic {', '.join(missing)} does not exist or may not be seen; create it: {commands}"
            )
        if await self._mend(known, widened=False):
            known = await self._look_up(self._names())
        self._check_own(known)
        return known

    def narrow(self, known: Mapping[str, Topic], source: str, partition: int) -> tuple[str, str] | None:
        """Return what keeps *partition* of *source* from being read: one of our own topics has too few partitions, and the command."""
        for name in (retry_topic(self._group, source), dead_letter_topic(self._group, source)):
            if known[name].partitions <= partition:
                count = max(partition + 1, known[source].partitions)
                return f"topic {name} has {known[name].partitions} partitions", self._widen_command(name, count)
        return None

    async def create_missing(self) -> Sequence[str]:
        """Create or widen our own topics. Returns the names of those that were created or widened.

        Raises:
            LogMisconfigured, KafkaError
        """
        return await self._mend(await self._look_up(self._names()))

    async def ensure_checkpoints(self) -> None:
        """Create the topic of checkpoints where it is missing: one partition, with as many replicas as the sources have.

        Raises:
            LogMisconfigured: it can't be created, or is not compacted; with the command to run.
            KafkaError, TimeoutError
        """
        name = checkpoints_topic(self._group)
        known = await self._look_up([name, *self._sources])
        if (topic := known.get(name)) is None:
            replicas = min((source.replicas for source in known.values()), default=1)
            await self._create(name, Topic(1, replicas), _KINDS["checkpoints"])
            await self._until_seen({name: 1})
        elif topic.compacted is False:
            raise LogMisconfigured(f"topic {name} is not compacted: {self._compact_command(name)}")

    async def states(self) -> Sequence[TopicState]:
        """Describe the topics, in the order source, retry, dead letters for each source topic."""
        known = await self._look_up(self._names())
        return [self._state(known, name, kind, known.get(source)) for source, name, kind in self._all()]

    async def partitions(self, topic: str) -> int:
        """Return how many partitions *topic* has: 0 where it does not exist."""
        known = await self._look_up([topic])
        return known[topic].partitions if topic in known else 0

    async def max_bytes(self, topic: str) -> int:
        """Return the largest batch that *topic* takes, in bytes; the default where its config may not be read.

        Raises:
            LogMisconfigured: there is no such topic.
        """
        known = await self._look_up([topic])
        if topic not in known:
            raise LogMisconfigured(
                f"topic {topic} does not exist or may not be seen; `usher topics plan` says how to create it"
            )
        return known[topic].max_bytes

    def _all(self) -> Iterable[tuple[str, str, str]]:
        for source in self._sources:
            yield source, source, "source"
            yield source, retry_topic(self._group, source), "retry"
            yield source, dead_letter_topic(self._group, source), "dlt"

    def _own(self) -> Iterable[tuple[str, str, str]]:
        return (each for each in self._all() if each[2] != "source")

    def _names(self) -> list[str]:
        return [name for _, name, _ in self._all()]

    async def _look_up(self, names: Sequence[str]) -> dict[str, Topic]:
        # List all topics: to name one could create it, where the brokers create topics by themselves.
        found = {topic["topic"]: topic for topic in await self._admin.describe_topics() if not topic["error_code"]}
        present = [name for name in names if name in found]
        configs = await self._configs(present)
        return {
            name: Topic(
                len(found[name]["partitions"]),
                max((len(partition["replicas"]) for partition in found[name]["partitions"]), default=1),
                configs.get(name, {}),
            )
            for name in present
        }

    async def _configs(self, names: Sequence[str]) -> Mapping[str, Mapping[str, str]]:
        if not names:
            return {}
        wanted = {"max.message.bytes": None, "cleanup.policy": None}
        resources = [ConfigResource(ConfigResourceType.TOPIC, name, wanted) for name in names]
        answers: list[Any] = await self._admin.describe_configs(resources)
        return {
            name: {entry[0]: entry[1] for entry in entries}
            for answer in answers
            for error, _, _, name, entries in answer.resources
            if not error
        }

    async def _mend(self, known: Mapping[str, Topic], *, widened: bool = True) -> list[str]:
        """Create and widen our own topics. Where one may not be widened that is an error if all must be *widened*."""
        created = []
        for source, name, kind in self._own():
            if (like := known.get(source)) is None:
                continue
            if (topic := known.get(name)) is None:
                await self._create(name, like, _KINDS[kind])
                created.append(name)
            elif topic.partitions < like.partitions:
                try:
                    await self._widen(name, like.partitions)
                    created.append(name)
                except LogMisconfigured:
                    if widened:
                        raise
        if created:
            await self._until_seen(
                {name: known[source].partitions for source, name, _ in self._own() if name in created}
            )
        return created

    async def _until_seen(self, wanted: Mapping[str, int]) -> None:
        """Wait until the brokers list the topics that were created or widened. *wanted* are partition counts."""
        async with asyncio.timeout(_SEEN_WITHIN):
            while True:
                known = await self._look_up(list(wanted))
                if all(name in known and known[name].partitions >= count for name, count in wanted.items()):
                    return
                await asyncio.sleep(0.1)

    async def _create(self, name: str, like: Topic, configs: dict[str, str]) -> None:
        answer: Any = await self._admin.create_topics(
            [NewTopic(name, like.partitions, like.replicas, topic_configs=configs)]
        )
        for _, code, message in answer.topic_errors:
            error = for_code(code)
            if code and error is not TopicAlreadyExistsError:
                command = self._create_command(name, like.partitions, like.replicas, configs)
                raise LogMisconfigured(
                    f"topic {name} could not be created ({message or error.__name__}); create it: {command}"
                )

    async def _widen(self, name: str, partitions: int) -> None:
        try:
            await self._admin.create_partitions({name: NewPartitions(partitions)})
        except InvalidPartitionsError:
            return  # it has them: another worker was quicker, or a broker answered with an old state
        except KafkaError as error:
            if error.retriable:
                raise
            raise LogMisconfigured(
                f"topic {name} has too few partitions ({error}): {self._widen_command(name, partitions)}"
            ) from error

    def _check_own(self, known: Mapping[str, Topic]) -> None:
        for source, name, kind in self._own():
            if kind == "retry" and known[name].compacted is False:
                raise LogMisconfigured(f"topic {name} does not fit {source}: {self._compact_command(name)}")

    def _state(self, known: Mapping[str, Topic], name: str, kind: str, source: Topic | None) -> TopicState:
        topic = known.get(name)
        return TopicState(
            topic=name,
            kind=kind,
            partitions=topic.partitions if topic else 0,
            compacted=topic.compacted if topic else None,
            writable=None,
            remedy=self._remedy(name, kind, topic, source),
        )

    def _remedy(self, name: str, kind: str, topic: Topic | None, source: Topic | None) -> str:
        like = source or Topic(6, 3)
        if topic is None:
            return self._create_command(name, like.partitions, like.replicas, _KINDS.get(kind, {}))
        if kind == "source":
            return ""
        if topic.partitions < like.partitions:
            return self._widen_command(name, like.partitions)
        if kind == "retry" and topic.compacted is False:
            return self._compact_command(name)
        return ""

    def _compact_command(self, name: str) -> str:
        tool = f"kafka-configs.sh --bootstrap-server {self._servers} --entity-type topics --entity-name {name}"
        return f"{tool} --alter --add-config cleanup.policy=compact"

    def _create_command(self, name: str, partitions: int, replicas: int, configs: Mapping[str, str]) -> str:
        extra = "".join(f" --config {key}={value}" for key, value in configs.items())
        sizes = f"--partitions {partitions} --replication-factor {replicas}"
        return f"kafka-topics.sh --bootstrap-server {self._servers} --create --topic {name} {sizes}{extra}"

    def _widen_command(self, name: str, partitions: int) -> str:
        return f"kafka-topics.sh --bootstrap-server {self._servers} --alter --topic {name} --partitions {partitions}"
