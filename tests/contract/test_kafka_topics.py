"""Topics on a real Kafka that are not what they were, or not what they must be: nothing is skipped, created or silent."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from aiokafka import TopicPartition as KafkaPartition
from aiokafka.admin import NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from structlog.testing import capture_logs
from tests.contract.logs import PATIENCE, Worker, loaded, parked
from tests.contract.test_kafka_log import Group, grouped, values
from tests.kafka import Broker, unique

from usher.delivery.headers import owner_headers
from usher.eventlog.errors import LogMisconfigured
from usher.eventlog.kafka import KafkaBrowser, KafkaLog
from usher.eventlog.kafka.known_topics import KnownTopic
from usher.eventlog.kafka.topic_ids import seen
from usher.eventlog.names import checkpoints_topic, dead_letter_topic, own_topics, receipts_topic, retry_topic
from usher.eventlog.port import Claim, LogConfig, Position, TopicPartition

pytestmark = pytest.mark.kafka
NewGroup = Callable[[int], Awaitable[Group]]


@pytest.fixture
async def new_group(kafka: Broker) -> AsyncIterator[NewGroup]:
    async with grouped(kafka) as new:
        yield new


async def make_anew(broker: Broker, topic: str, partitions: int = 1, **configs: str) -> None:
    """Delete a topic and create it again, as a script does it."""
    async with broker.admin() as admin:
        await admin.delete_topics([topic])
        async with asyncio.timeout(PATIENCE):
            while True:
                answer: Any = await admin.create_topics(
                    [NewTopic(topic, partitions, 1, topic_configs={k.replace("_", "."): v for k, v in configs.items()})]
                )
                if not answer.topic_errors[0][1]:
                    break
                await asyncio.sleep(0.1)
            while len((await described(broker, topic)).get(topic, ())) != partitions:  # noqa: ASYNC110 - only by asking
                await asyncio.sleep(0.05)


async def described(broker: Broker, topic: str) -> dict[str, range]:
    async with broker.admin() as admin:
        return {name: range(there.partitions) for name, there in (await seen(admin._client, [topic])).items()}


async def configured(broker: Broker, topic: str, *configs: str) -> dict[str, str]:
    async with broker.admin() as admin:
        asked = [ConfigResource(ConfigResourceType.TOPIC, topic, dict.fromkeys(configs))]
        described: Any = await admin.describe_configs(asked)
        return {entry[0]: entry[1] for entry in described[0].resources[0][4]}


async def read_to(worker: Worker, claim: Claim, offset: int) -> None:
    """Read and commit up to *offset*."""
    await worker.take(offset - claim.start, [claim])
    await worker.log.commit({claim: Position(offset, "mark")})


# A source topic that was made anew


async def test_a_source_topic_made_anew_under_the_worker_is_read_from_its_start(new_group: NewGroup) -> None:
    """Its records are all read, the log says what happened, and the new claim has the id of the new topic."""
    group = await new_group(1)
    await group.produce([b"old %d" % number for number in range(30)])
    worker = await group.worker()
    [old] = worker.claims
    await read_to(worker, old, 30)

    with capture_logs() as lines:
        await make_anew(group.broker, group.topic)
        await group.produce([b"new %d" % number for number in range(40)])
        await worker.until(lambda: any(claim.topic_id != old.topic_id for claim in worker.claims))
    [new] = worker.claims

    assert (new.start, new.mark, new.remade, old.remade) == (0, "", True, False)
    assert values(await worker.take(40)) == [b"new %d" % number for number in range(40)]
    [line] = [line for line in lines if line["event"] == "source topic was made anew"]
    assert (line["log_level"], line["topic"], line["offset"]) == ("error", group.topic, 0)


@pytest.mark.parametrize("start_from", ["latest", "earliest"])
async def test_a_source_topic_made_anew_while_no_worker_ran_is_read_from_its_start(
    new_group: NewGroup, start_from: str
) -> None:
    """Also where it has grown past the old offset, and where the brokers have forgotten the commit with the old topic."""
    group = await new_group(1)
    await group.produce([b"old"] * 5)
    first = await group.worker()
    await read_to(first, first.claims[0], 5)
    await first.log.close()
    await make_anew(group.broker, group.topic)
    await group.produce([b"new %d" % number for number in range(9)])

    second = await group.worker(start_from=start_from)

    assert values(await second.take(9)) == [b"new %d" % number for number in range(9)]


async def test_a_worker_that_comes_after_the_reset_goes_on_where_the_new_topic_was_left(new_group: NewGroup) -> None:
    """Once begun, the new topic is as any other: its commits count, and records of ours without an id are of the earlier one."""
    group = await new_group(1)
    first = await group.worker()
    await first.log.close()
    await make_anew(group.broker, group.topic)
    await group.produce([b"a", b"b", b"c"])
    second = await group.worker()
    await read_to(second, second.claims[0], 2)
    await second.log.close()

    third = await group.worker()

    [claim] = third.claims
    assert (claim.start, claim.mark, claim.remade) == (2, "mark", True)


async def test_what_is_queued_of_the_old_topic_is_handed_over_before_the_claim_goes(new_group: NewGroup) -> None:
    """Nobody can read it again: the owner is notified, and then asked to release."""
    group = await new_group(1)
    worker = await group.worker()
    [old] = worker.claims
    order: list[str] = []

    async def remade(claims: Sequence[Claim]) -> None:
        order.append(f"remade {len(claims)}")

    async def released(claims: Sequence[Claim]) -> None:
        order.append(f"released {len(claims)}")
        await worker.log.park(old, "k", b"handed over", [])

    worker.remade = remade  # type: ignore[method-assign]
    worker.on_release = released
    await make_anew(group.broker, group.topic)
    await worker.until(lambda: any(claim.topic_id != old.topic_id for claim in worker.claims))
    worker.on_release = None

    assert order == ["remade 1", "released 1"]
    async with parked(worker, worker.claims[0]) as stream:
        assert values(await loaded(stream)) == [b"handed over"]


async def test_a_group_without_notes_goes_on_at_its_commits(new_group: NewGroup) -> None:
    """So an upgrade repeats nothing, nor does a mirror without the topic of checkpoints. With its notes a mirror is another topic."""
    group = await new_group(1)
    await group.produce([b"old"] * 5)
    first = await group.worker()
    await read_to(first, first.claims[0], 3)
    await first.log.close()
    await make_anew(group.broker, checkpoints_topic(group.config.group), cleanup_policy="compact")

    second = await group.worker()
    assert [claim.start for claim in second.claims] == [3]
    await second.log.close()
    key = f"topic-id/{group.topic}/0".encode()
    await group.broker.produce(
        checkpoints_topic(group.config.group), [(key, KnownTopic("of-another-cluster").encode())]
    )

    third = await group.worker()
    assert [(claim.start, claim.remade) for claim in third.claims] == [(0, True)]


async def test_a_log_that_was_cut_off_stops_its_partition_until_somebody_decides(new_group: NewGroup) -> None:
    """The same topic ends before the offset: nothing of it is read, also when it has grown past it, and after a restart."""
    group = await new_group(1)
    await group.produce([b"a", b"b"])
    first = await group.worker()
    await read_to(first, first.claims[0], 2)
    await first.log.commit({first.claims[0]: Position(9, "mark")})  # as if the brokers had lost seven records
    await first.log.close()
    where = TopicPartition(group.topic, 0)

    with capture_logs() as lines:
        second = await group.worker()
        await second.until(lambda: any(line["event"] == "partition stopped" for line in lines))
    assert list(second.log.stopped()) == [where]
    await group.produce([b"later"] * 20)
    assert await second.log.read(second.claims, 10, 1.0) == []
    await second.log.close()
    third = await group.worker()
    assert await third.log.read(third.claims, 10, 1.0) == []
    assert list(third.log.stopped()) == [where]
    await third.log.close()
    await set_offset(group, 4)
    fourth = await group.worker()

    assert values(await fourth.take(18)) == [b"later"] * 18
    assert list(fourth.log.stopped()) == []
    [line] = [line for line in lines if line["event"] == "partition stopped"]
    assert "kafka-consumer-groups.sh" in line["hint"]


async def set_offset(group: Group, offset: int) -> None:
    """As ``kafka-consumer-groups.sh --reset-offsets`` does it."""
    worker = group.new()
    consumer = worker.log._clients.committer(group.config.group)  # type: ignore[attr-defined]
    await consumer.start()
    try:
        consumer.assign([KafkaPartition(group.topic, 0)])
        async with asyncio.timeout(PATIENCE):
            while True:
                with contextlib.suppress(Exception):
                    await consumer.commit({KafkaPartition(group.topic, 0): (offset, "")})
                    return
                await asyncio.sleep(0.2)
    finally:
        await consumer.stop()


# Our own topics


async def test_own_topics_that_are_deleted_are_made_again_as_they_must_be(new_group: NewGroup) -> None:
    """Brokers that create topics by themselves make nothing meanwhile; a delivery can be parked in each partition again."""
    group = await new_group(3)
    worker = await group.worker()
    retries = retry_topic(group.config.group, group.topic)
    own = list(own_topics(group.config.group, [group.topic]))

    with capture_logs() as lines:
        async with group.broker.admin() as admin:
            await admin.delete_topics(own)
        async with asyncio.timeout(PATIENCE):
            for name in own:
                while name not in await described(group.broker, name):
                    await worker.log.read((), 1, 0.1)
            await worker.until(lambda: {line.get("topic") for line in lines} >= set(own))

    assert {line["topic"] for line in lines if line["event"] == "a topic of ours was made anew"} == set(own)

    assert {name: len((await described(group.broker, name))[name]) for name in own} == dict(
        zip(own, (3, 3, 3, 1), strict=True)
    )
    assert await configured(group.broker, retries, "cleanup.policy") == {"cleanup.policy": "compact"}
    await worker.until(lambda: len(worker.held) == 3)
    async with asyncio.timeout(PATIENCE):
        for claim in worker.claims:
            while True:
                with contextlib.suppress(Exception):
                    await worker.log.park(claim, "a", b"1", [])
                    break


@pytest.mark.parametrize(
    ("kind", "partitions", "configs", "says"),
    [
        ("retry", 2, {"cleanup_policy": "compact,delete"}, "deleted by age"),
        ("dlt", 2, {"retention_ms": "60000"}, "retention.ms=60000"),
        ("dlt", 2, {"retention_bytes": "1048576"}, "deleted by size"),
        ("dlt", 2, {"max_message_bytes": "1000"}, "max.message.bytes=1000"),
        ("dlt", 2, {"cleanup_policy": "compact"}, "compacted"),
        ("retry", 2, {"cleanup_policy": "compact", "delete_retention_ms": "0"}, "delete.retention.ms=0"),
        ("receipts", 2, {"cleanup_policy": "compact"}, "compacted"),
        ("receipts", 2, {"retention_ms": "60000"}, "retention.ms=60000"),
        ("receipts", 2, {"retention_bytes": "1048576"}, "deleted by size"),
        ("checkpoints", 1, {"cleanup_policy": "delete"}, "not compacted"),
    ],
)
async def test_an_own_topic_made_anew_as_it_must_not_be_is_a_complaint(
    new_group: NewGroup, kind: str, partitions: int, configs: dict[str, str], says: str
) -> None:
    """While it is so the worker is not ready, and says the command; the same at the next start, and in the plan."""
    group = await new_group(2)
    name = {
        "retry": retry_topic(group.config.group, group.topic),
        "dlt": dead_letter_topic(group.config.group, group.topic),
        "receipts": receipts_topic(group.config.group),
        "checkpoints": checkpoints_topic(group.config.group),
    }[kind]
    worker = await group.worker()
    assert not worker.log.complaints()

    await make_anew(group.broker, name, partitions, **configs)
    await worker.until(lambda: bool(worker.log.complaints()))
    [complaint] = worker.log.complaints()
    assert name in complaint
    assert says in complaint
    assert f"kafka-configs.sh --bootstrap-server {group.broker.servers}" in complaint
    async with group.browser() as browser:
        [state] = [state for state in await browser.topics() if state.topic == name]
    assert says in state.wrong
    assert "kafka-configs.sh" in state.remedy
    await worker.log.close()
    other = group.new()
    with pytest.raises(LogMisconfigured, match=name):
        await other.log.open(other)


@pytest.mark.parametrize("name", [retry_topic, dead_letter_topic])
async def test_an_own_topic_with_records_of_another_group_is_refused(
    kafka: Broker, name: Callable[[str, str], str]
) -> None:
    """Group ``g`` on topic ``eu.t`` and group ``g.eu`` on topic ``t`` would share it: the error names both, and so does the plan."""
    group = unique("g")
    await kafka.create_topic(f"eu.{group}")
    await kafka.create_topic(retry_topic(group, f"eu.{group}"), cleanup_policy="compact")
    await kafka.produce(name(group, f"eu.{group}"), [(b"k", b"v")], headers=owner_headers(f"{group}.eu", group))
    config = LogConfig(group, (f"eu.{group}",))
    log = KafkaLog(kafka.address, config)

    with pytest.raises(LogMisconfigured, match=f"(?s)group {group}.eu, topic {group}.*group {group} would"):
        await log.open(Worker(log, "worker", []))
    await log.close()
    async with KafkaBrowser(kafka.address, config) as browser:
        wrong = {state.topic: state.wrong for state in await browser.topics()}
    assert f"group {group}.eu, topic {group}" in wrong[name(group, f"eu.{group}")]


async def test_nothing_that_is_asked_for_is_created(kafka: Broker, tmp_path: Path) -> None:
    """On brokers that create what clients name, a worker whose source topic is deleted leaves it to its producers."""
    async with grouped(kafka) as new_group:
        group = await new_group(1)
        worker = await group.worker()
        async with group.broker.admin() as admin:
            await admin.delete_topics([group.topic])
        await worker.until(lambda: bool(worker.log.complaints()))
        for _ in range(20):
            await worker.log.read(worker.claims, 1, 0.1)

        assert await described(group.broker, group.topic) == {}
        [complaint] = worker.log.complaints()
        assert f"source topic {group.topic} does not exist" in complaint
