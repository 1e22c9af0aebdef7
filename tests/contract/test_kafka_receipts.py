"""The topic of receipts on a real Kafka, and what a group notes beside it: made as it must be, widened, missing, made anew."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping

import pytest
from aiokafka import TopicPartition as KafkaPartition
from aiokafka.admin import NewPartitions, RecordsToDelete
from tests.contract.logs import PATIENCE, Worker, drained
from tests.contract.test_kafka_log import Group, grouped, values
from tests.contract.test_kafka_topics import configured, described, make_anew
from tests.kafka import Broker, unique

from usher.delivery.headers import owner_headers
from usher.eventlog.errors import LogMisconfigured, LogUnavailable
from usher.eventlog.kafka import KafkaBrowser, KafkaLog
from usher.eventlog.names import checkpoints_topic, own_topics, receipts_topic
from usher.eventlog.port import LogConfig, Position

pytestmark = pytest.mark.kafka
NewGroup = Callable[[int], Awaitable[Group]]
MONTH = 30 * 86_400.0


@pytest.fixture
async def new_group(kafka: Broker) -> AsyncIterator[NewGroup]:
    async with grouped(kafka) as new:
        yield new


def name(group: Group) -> str:
    return receipts_topic(group.config.group)


async def wrong(browser: KafkaBrowser) -> Mapping[str, tuple[str, str]]:
    """What is wrong with each of the topics, and the command."""
    async with browser:
        return {state.topic: (state.wrong, state.remedy) for state in await browser.topics()}


async def filed(worker: Worker, value: bytes) -> None:
    """File a receipt, as soon as the log takes it."""
    async with asyncio.timeout(PATIENCE):
        while True:
            with contextlib.suppress(LogUnavailable):
                await worker.log.file(worker.claims[0], [value])
                return
            await worker.log.read((), 1, 0.1)


async def test_the_topic_is_made_as_wide_as_the_largest_source_topic_and_widened_with_it(new_group: NewGroup) -> None:
    """Its retention is the one that is set. The receipts of a source partition go to that number modulo its partitions."""
    small, large = await new_group(1), await new_group(3)
    both = dataclasses.replace(large.config, topics=(small.topic, large.topic), keep=MONTH)
    worker = large.new(topics=both.topics, keep=MONTH)
    await worker.log.open(worker)
    await worker.until(lambda: len(worker.held) == 4)

    assert len((await described(large.broker, name(large)))[name(large)]) == 3
    configs = await configured(large.broker, name(large), "cleanup.policy", "retention.ms", "retention.bytes")
    assert configs == {"cleanup.policy": "delete", "retention.ms": str(int(MONTH * 1_000)), "retention.bytes": "-1"}
    for claim in worker.claims:
        await worker.log.file(claim, [f"{claim.partition}".encode()])
    async with large.broker.admin() as admin:
        await admin.create_partitions({large.topic: NewPartitions(5)})
    await worker.until(lambda: len(worker.held) == 6)
    for claim in worker.claims:
        await worker.log.file(claim, [f"{claim.partition}".encode()])

    assert len((await described(large.broker, name(large)))[name(large)]) == 5
    async with KafkaBrowser(large.broker.address, both) as browser:
        records = await drained(browser.receipts({}))
    assert sorted((record.partition, record.value) for record in records) == sorted(
        (number, f"{number}".encode()) for number in (0, 0, 1, 2, 0, 0, 1, 2, 3, 4)
    )


async def test_a_partition_of_a_source_topic_needs_none_of_its_own_among_the_receipts(new_group: NewGroup) -> None:
    """Where the topic may not be as wide, it is shared: a topic with more source partitions than its own is taken as it is."""
    group = await new_group(3)
    worker = await group.worker()
    worker.log._topics = {  # type: ignore[attr-defined]  # as where Usher may not widen it
        topic: there._replace(partitions=2) if topic == name(group) else there
        for topic, there in worker.log._topics.items()  # type: ignore[attr-defined]
    }

    for claim in worker.claims:
        await worker.log.file(claim, [b"%d" % claim.partition])

    async with group.browser() as browser:
        records = await drained(browser.receipts({}))
    assert {(record.partition, record.value) for record in records} == {(0, b"0"), (1, b"1"), (0, b"2")}


async def test_another_retention_than_the_set_one_is_in_the_plan_and_stops_nobody(new_group: NewGroup) -> None:
    """The plan has the command; the worker starts, and is ready."""
    group = await new_group(1)
    first = await group.worker()
    await first.log.close()

    worker = await group.worker(keep=MONTH)

    assert not worker.log.complaints()
    config = dataclasses.replace(group.config, keep=MONTH)
    [said, remedy] = (await wrong(KafkaBrowser(group.broker.address, config)))[name(group)]
    assert said == "retention.ms=7776000000: USHER_RECEIPTS__KEEP is 2592000000 ms"
    assert remedy.endswith(f"--entity-name {name(group)} --alter --add-config retention.ms=2592000000")


async def test_without_receipts_there_is_no_such_topic(new_group: NewGroup) -> None:
    """None is made, none is asked for, and one that does not fit is nobody's concern."""
    group = await new_group(1)
    worker = await group.worker(receipts=False)
    config = dataclasses.replace(group.config, receipts=False)

    assert name(group) not in await wrong(KafkaBrowser(group.broker.address, config))
    assert await described(group.broker, name(group)) == {}
    async with group.browser() as browser:
        assert await browser.receipts_state() is None
        assert await drained(browser.receipts({})) == []
    await worker.log.close()
    await group.broker.create_topic(name(group), 1, cleanup_policy="compact")
    await group.worker(receipts=False)


async def test_a_topic_with_receipts_of_another_group_is_refused(kafka: Broker) -> None:
    """Whoever wrote them: the error names the group, and so does the plan."""
    config = LogConfig(unique("g"), (unique("t"),))
    await kafka.create_topic(config.topics[0])
    topic = receipts_topic(config.group)
    await kafka.create_topic(topic)
    await kafka.produce(topic, [(b"k", b"v")], headers=owner_headers("somebody", ""))
    log = KafkaLog(kafka.address, config)

    with pytest.raises(LogMisconfigured, match=f"{topic} holds records of group somebody"):
        await log.open(Worker(log, "worker", []))
    await log.close()
    assert "group somebody" in (await wrong(KafkaBrowser(kafka.address, config)))[topic][0]


async def test_receipts_made_anew_have_another_id_and_are_filed_again(new_group: NewGroup) -> None:
    """Who follows them sees that its offsets are of another topic."""
    group = await new_group(1)
    worker = await group.worker()
    await filed(worker, b"old")
    async with group.browser() as browser:
        before = await browser.receipts_state()
    await make_anew(group.broker, name(group), 1, retention_ms="7776000000")

    await filed(worker, b"new")

    async with group.browser() as browser:
        after = await browser.receipts_state()
        assert values(await drained(browser.receipts({0: 50}))) == []
        records = await drained(browser.receipts({}))
    assert before is not None
    assert after is not None
    assert before.topic_id != after.topic_id
    assert values(records) == [b"new"]


async def test_receipts_that_are_not_kept_any_more_are_passed_over(new_group: NewGroup) -> None:
    """The first offset that is kept is said, and a reader whose position is before it goes on there."""
    group = await new_group(1)
    worker = await group.worker()
    for number in range(5):
        await filed(worker, b"%d" % number)
    async with group.broker.admin() as admin:
        await admin.delete_records({KafkaPartition(name(group), 0): RecordsToDelete(3)})

    async with group.browser() as browser:
        state = await browser.receipts_state()
        records = await drained(browser.receipts({0: 1}))

    assert state is not None
    assert state.partitions == {0: (3, 5)}
    assert values(records) == [b"3", b"4"]


async def test_notes_made_anew_under_a_worker_are_written_again(new_group: NewGroup) -> None:
    """Where the group began, and the key: receipts that were written with it are still found."""
    group = await new_group(1)
    worker = await group.worker()
    key = await worker.log.address_key()
    async with group.browser() as browser:
        starts = await browser.starts()
    [claim] = worker.claims

    await make_anew(group.broker, checkpoints_topic(group.config.group), cleanup_policy="compact")
    await worker.until(lambda: bool(worker.ended) and bool(worker.held))

    assert worker.claims[0] is not claim
    async with group.browser() as browser:
        assert await browser.starts() == starts
        assert await browser.address_key() == key
    assert await worker.log.address_key() == key


async def test_a_group_that_starts_at_the_latest_notes_what_lies_before(new_group: NewGroup) -> None:
    """A partition that is added later is read from its beginning, and noted as such."""
    group = await new_group(2)
    await group.produce([b"old"] * 3)

    worker = group.new(start_from="latest")
    await worker.log.open(worker)
    await worker.until(lambda: len(worker.held) == 2)
    async with group.broker.admin() as admin:
        await admin.create_partitions({group.topic: NewPartitions(3)})
    await worker.until(lambda: len(worker.held) == 3)

    async with group.browser() as browser:
        starts = await browser.starts()
    assert [(at.partition, start.offset) for at, start in sorted(starts.items())] == [(0, 3), (1, 0), (2, 0)]
    assert {start.topic_id for start in starts.values()} == {claim.topic_id for claim in worker.claims}


async def test_a_group_of_an_usher_that_noted_no_start_has_none(new_group: NewGroup) -> None:
    """Nobody may call an event of then older than the group."""
    group = await new_group(1)
    await group.produce([b"a", b"b"])
    first = await group.worker()
    await first.take(2)
    await first.log.commit({first.claims[0]: Position(2, "mark")})
    await first.log.close()
    await make_anew(group.broker, checkpoints_topic(group.config.group), cleanup_policy="compact")

    await group.worker()

    async with group.browser() as browser:
        assert await browser.starts() == {}


async def test_all_own_topics_are_created_by_the_command(new_group: NewGroup) -> None:
    """`usher topics apply` makes the topic of receipts with the others, and nothing is wrong then."""
    group = await new_group(2)

    async with group.browser() as browser:
        assert sorted(await browser.create_topics()) == sorted(own_topics(group.config.group, [group.topic]))

    assert {said for said, _ in (await wrong(group.browser())).values()} == {""}
