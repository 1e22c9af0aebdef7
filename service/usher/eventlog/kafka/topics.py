"""The topics of a group on Kafka. Hides how they are looked up, created and widened, and which command does it by hand."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from aiokafka.admin import AIOKafkaAdminClient, NewPartitions, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import InvalidPartitionsError, KafkaError, TopicAlreadyExistsError, for_code

from usher.eventlog.browse import TopicState
from usher.eventlog.errors import LogMisconfigured
from usher.eventlog.kafka.topic import READ_CONFIGS, Topic, configs
from usher.eventlog.kafka.topic_ids import seen
from usher.eventlog.names import checkpoints_topic, dead_letter_topic, receipts_topic, retry_topic
from usher.eventlog.port import LogConfig

_SEEN_WITHIN: Final = 10.0


class KafkaTopics:
    """The source topics of a group, our own two for each, the one of receipts if it has any, and the one of checkpoints."""

    def __init__(self, admin: AIOKafkaAdminClient, servers: str, config: LogConfig) -> None:
        self._admin = admin
        self._servers = servers
        self._group = config.group
        self._sources = config.topics
        self._receipts, self._keep = config.receipts, config.keep

    async def verified(self) -> Mapping[str, Topic]:
        """Return all topics by name. The sources must exist; our own are created or widened to match.

        One of our own may have too few partitions all the same, where it may not be widened: see `narrow`.

        Raises:
            LogMisconfigured: with the commands to run.
            KafkaError: Kafka could not answer.
        """
        known = await self.look_up()
        missing = [name for name in self._sources if name not in known]
        if missing:
            commands = "; ".join(self._create_command(name, 6, 3, {}) for name in missing)
            raise LogMisconfigured(
                f"source topic {', '.join(missing)} does not exist or may not be seen; create it: {commands}"
            )
        if await self._mend(known, widened=False):
            known = await self.look_up()
        for source, name, kind in self._own():
            if name not in known or known[name].loses(kind)[0]:
                state, about = self._state(known, source, name, kind), f" for {source}" if source else ""
                raise LogMisconfigured(f"topic {name} does not fit{about}: {state.wrong}; run: {state.remedy}")
        return known

    def narrow(self, known: Mapping[str, Topic], source: str, partition: int) -> tuple[str, str] | None:
        """Return what keeps *partition* of *source* from being read: one of our own topics has too few partitions, and the command."""
        for name in (retry_topic(self._group, source), dead_letter_topic(self._group, source)):
            if known[name].partitions <= partition:
                count = max(partition + 1, known[source].partitions)
                return f"topic {name} has {known[name].partitions} partitions", self._widen_command(name, count)
        return None

    def too_narrow(self, known: Mapping[str, Topic]) -> Sequence[str]:
        """Return a complaint about each of our own topics that has fewer partitions than it needs. Receipts need no certain number."""
        own = [
            (name, kind, self._like(known, source, kind)) for source, name, kind in self._own() if kind != "receipts"
        ]
        faults = [(name, self._narrowness(name, kind, known[name], like)) for name, kind, like in own if name in known]
        return [f"topic {name} does not fit: {wrong}; run: {remedy}" for name, (wrong, remedy) in faults if remedy]

    async def create_missing(self) -> Sequence[str]:
        """Create or widen our own topics. Returns the names of those that were created or widened.

        Raises:
            LogMisconfigured, KafkaError
        """
        return await self._mend(await self.look_up())

    async def states(self, strangers: Mapping[str, str] | None = None) -> Sequence[TopicState]:
        """Describe the topics: source, retry, dead letters for each source topic, then the receipts and the checkpoints.

        *strangers* says whose records are in topics of ours, where they are another's.
        """
        known = await self.look_up()
        states = [self._state(known, source, name, kind) for source, name, kind in self._all()]
        return [
            state._replace(wrong=shared(state.topic, owner, self._group), remedy="")
            if (owner := (strangers or {}).get(state.topic))
            else state
            for state in states
        ]

    async def partitions(self, topic: str) -> int:
        """Return how many partitions *topic* has: 0 where it does not exist."""
        known = await seen(self._admin._client, [topic])
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
        """Yield source topic, name and kind of each topic. Those of receipts and checkpoints belong to no source topic."""
        for source in self._sources:
            yield source, source, "source"
            yield source, retry_topic(self._group, source), "retry"
            yield source, dead_letter_topic(self._group, source), "dlt"
        if self._receipts:
            yield "", receipts_topic(self._group), "receipts"
        yield "", checkpoints_topic(self._group), "checkpoints"

    def _own(self) -> Iterable[tuple[str, str, str]]:
        return (each for each in self._all() if each[2] != "source")

    def names(self) -> list[str]:
        return [name for _, name, _ in self._all()]

    async def look_up(self) -> dict[str, Topic]:
        """Return all topics that exist, by name."""
        return await self._look_up(self.names())

    async def _look_up(self, names: Sequence[str]) -> dict[str, Topic]:
        found = await seen(self._admin._client, names)
        set_to = await self._configs(list(found))
        return {
            name: Topic(topic.partitions, topic.replicas, set_to.get(name, {}), topic.id)
            for name, topic in found.items()
        }

    async def _configs(self, names: Sequence[str]) -> Mapping[str, Mapping[str, str]]:
        if not names:
            return {}
        resources = [ConfigResource(ConfigResourceType.TOPIC, name, dict.fromkeys(READ_CONFIGS)) for name in names]
        answers: list[Any] = await self._admin.describe_configs(resources)
        return {
            name: {entry[0]: entry[1] for entry in entries}
            for answer in answers
            for error, _, _, name, entries in answer.resources
            if not error
        }

    def _like(self, known: Mapping[str, Topic], source: str, kind: str) -> Topic | None:
        """Return what a topic of ours must be like in partitions and replicas; None where that is not known."""
        sources = [known[name] for name in self._sources if name in known]
        if kind == "checkpoints":
            return Topic(1, min((each.replicas for each in sources), default=1))
        if kind == "receipts":
            return max(sources, key=lambda each: each.partitions, default=None)
        return known.get(source)

    async def _mend(self, known: Mapping[str, Topic], *, widened: bool = True) -> list[str]:
        """Create and widen our own topics. Where one may not be widened that is an error if all must be *widened*."""
        mended: dict[str, int] = {}
        for source, name, kind in self._own():
            if (like := self._like(known, source, kind)) is None:
                continue
            if (topic := known.get(name)) is None:
                await self._create(name, like, configs(kind, self._keep))
                mended[name] = like.partitions
            elif topic.partitions < like.partitions:
                try:
                    await self._widen(name, like.partitions)
                    mended[name] = like.partitions
                except LogMisconfigured:
                    if widened:
                        raise
        await self._until_seen(mended)
        return list(mended)

    async def _until_seen(self, wanted: Mapping[str, int]) -> None:
        """Wait until the brokers list the topics that were created or widened. *wanted* are partition counts."""
        async with asyncio.timeout(_SEEN_WITHIN):
            while wanted:
                with contextlib.suppress(KafkaError):
                    known = await seen(self._admin._client, list(wanted))
                    if all(name in known and known[name].partitions >= count for name, count in wanted.items()):
                        return
                await asyncio.sleep(0.1)

    async def _create(self, name: str, like: Topic, set_to: Mapping[str, str]) -> None:
        answer: Any = await self._admin.create_topics(
            [NewTopic(name, like.partitions, like.replicas, topic_configs=dict(set_to))]
        )
        for _, code, message in answer.topic_errors:
            error = for_code(code)
            if code and error is not TopicAlreadyExistsError:
                command = self._create_command(name, like.partitions, like.replicas, set_to)
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

    def _state(self, known: Mapping[str, Topic], source: str, name: str, kind: str) -> TopicState:
        topic = known.get(name)
        wrong, remedy = self._fault(name, kind, topic, self._like(known, source, kind))
        return TopicState(
            topic=name,
            kind=kind,
            partitions=topic.partitions if topic else 0,
            compacted=topic.compacted if topic else None,
            writable=None,
            remedy=remedy,
            wrong=wrong,
        )

    def _fault(self, name: str, kind: str, topic: Topic | None, like: Topic | None) -> tuple[str, str]:
        """Return what is wrong with a topic, which should be like *like*, and the command that mends it; both empty if it is right."""
        if topic is None:
            partitions, replicas, *_ = like or (6, 3)
            return "missing", self._create_command(name, partitions, replicas, configs(kind, self._keep))
        wrong, config = topic.loses(kind)
        if not wrong and kind == "receipts":
            wrong, config = topic.keeps_otherwise(self._keep)
        if config:
            return wrong, self._config_command(name, config)
        if wrong or kind == "source":
            return wrong, ""
        return self._narrowness(name, kind, topic, like)

    def _narrowness(self, name: str, kind: str, topic: Topic, like: Topic | None) -> tuple[str, str]:
        """Return what is wrong with the partitions of a topic of ours, and the command that widens it, where that would mend it."""
        if like is None or topic.partitions == like.partitions:
            return "", ""
        wrong = f"{topic.partitions} partitions, {_model(kind)} {like.partitions}"
        if topic.partitions < like.partitions:
            return wrong, self._widen_command(name, like.partitions)
        return "" if kind == "receipts" else wrong, ""

    def _config_command(self, name: str, config: str) -> str:
        tool = f"kafka-configs.sh --bootstrap-server {self._servers} --entity-type topics --entity-name {name}"
        return f"{tool} --alter --add-config {config}"

    def _create_command(self, name: str, partitions: int, replicas: int, set_to: Mapping[str, str]) -> str:
        extra = "".join(f" --config {key}={value}" for key, value in set_to.items())
        sizes = f"--partitions {partitions} --replication-factor {replicas}"
        return f"kafka-topics.sh --bootstrap-server {self._servers} --create --topic {name} {sizes}{extra}"

    def _widen_command(self, name: str, partitions: int) -> str:
        return f"kafka-topics.sh --bootstrap-server {self._servers} --alter --topic {name} --partitions {partitions}"


def _model(kind: str) -> str:
    return {"checkpoints": "and needs", "receipts": "the largest source topic has"}.get(kind, "its source topic has")


def shared(topic: str, owner: str, group: str) -> str:
    """Say that a topic of *group* holds records of *owner*."""
    return (
        f"{topic} holds records of {owner}, and group {group} would write its own there: each would take the other's for its own; "
        "give one of the two another USHER_GROUP, or delete the topic once nothing in it is needed"
    )
