"""What KafkaLog does beyond the common suite: the promises that only a real broker can put to the test."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import random
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from aiokafka import AIOKafkaProducer
from aiokafka import TopicPartition as KafkaPartition
from aiokafka.admin import NewPartitions, RecordsToDelete
from structlog.testing import capture_logs
from tests.contract.logs import PATIENCE, Journal, Worker, drained, following, loaded, parked
from tests.kafka import Broker, unique

from usher.delivery import Record
from usher.eventlog.errors import LogError, LogMisconfigured, LogUnavailable
from usher.eventlog.kafka import KafkaBrowser, KafkaLog
from usher.eventlog.port import Claim, LogConfig, Position, TopicPartition
from usher.kafka_options import NO_OPTIONS, KafkaOptions, kafka_options

FAST = kafka_options({"session_timeout_ms": 3_000, "heartbeat_interval_ms": 300, "metadata_max_age_ms": 500})


class Group:
    """A source topic and the workers of one group that read it."""

    def __init__(self, broker: Broker, partitions: int) -> None:
        self.broker = broker
        self.partitions = partitions
        self.config = LogConfig(
            group=unique("usher"), topics=(unique("identity.events"),), start_from="earliest", drain=5.0
        )
        self.journal: Journal = []
        self.workers: list[Worker] = []

    @property
    def topic(self) -> str:
        return self.config.topics[0]

    def new(self, options: KafkaOptions = FAST, **changes: object) -> Worker:
        """A worker that is not open yet; *changes* are to its config."""
        config = dataclasses.replace(self.config, **changes)  # type: ignore[arg-type]  # as the test gives them
        worker = Worker(KafkaLog(self.broker.address, config, options), f"worker-{len(self.workers)}", self.journal)
        self.workers.append(worker)
        return worker

    async def worker(self, options: KafkaOptions = FAST, **changes: object) -> Worker:
        """A worker that has all partitions."""
        worker = self.new(options, **changes)
        await worker.log.open(worker)
        await worker.until(lambda: len(worker.held) == self.partitions)
        return worker

    def browser(self) -> KafkaBrowser:
        return KafkaBrowser(self.broker.address, self.config, FAST)

    async def produce(self, values: Sequence[bytes], partition: int = 0) -> None:
        await self.broker.produce(self.topic, [(b"k", value) for value in values], partition=partition)


NewGroup = Callable[[int], Awaitable[Group]]


@contextlib.asynccontextmanager
async def grouped(broker: Broker) -> AsyncIterator[NewGroup]:
    groups: list[Group] = []

    async def new(partitions: int) -> Group:
        group = Group(broker, partitions)
        groups.append(group)
        await broker.create_topic(group.topic, partitions)
        return group

    yield new
    for group in groups:
        await asyncio.gather(*(worker.log.close() for worker in group.workers))


@pytest.fixture
async def new_group(kafka: Broker) -> AsyncIterator[NewGroup]:
    async with grouped(kafka) as new:
        yield new


def values(records: Sequence[Record]) -> list[bytes | None]:
    return [record.value for record in records]


async def test_a_new_group_starts_at_the_latest_and_says_what_lies_before(new_group: NewGroup) -> None:
    """What was there before stays unread, how much that is goes to the log, and what comes after open() is read."""
    group = await new_group(2)
    await group.produce([b"old"] * 3, partition=0)
    await group.produce([b"old"] * 2, partition=1)

    worker = group.new(start_from="latest")
    with capture_logs() as lines:
        await worker.log.open(worker)
    await group.produce([b"new"], partition=1)

    assert values(await worker.take(1)) == [b"new"]
    [line] = [line for line in lines if line["event"] == "starting at latest"]
    assert (line["topic"], line["skipped"]) == (group.topic, 5)


async def test_a_new_group_starts_at_a_time(new_group: NewGroup) -> None:
    """With Unix seconds it starts at the first record from then on, and at the end where there is none."""
    group = await new_group(2)
    await group.produce([b"before"], partition=0)
    await group.produce([b"before"], partition=1)
    await asyncio.sleep(0.05)
    moment = time.time()
    await group.produce([b"after"], partition=0)

    worker = await group.worker(start_from=moment)

    assert values(await worker.take(1)) == [b"after"]
    assert {claim.partition: claim.start for claim in worker.claims} == {0: 1, 1: 1}


async def test_what_comes_before_the_first_claim_is_read(new_group: NewGroup) -> None:
    """A group that was started once and never read a record goes on at its start, not at the latest of the second start."""
    group = await new_group(1)
    first = await group.worker(start_from="latest")
    await first.log.close()
    await group.produce([b"between"])

    second = await group.worker(start_from="latest")

    assert values(await second.take(1)) == [b"between"]


async def test_two_workers_start_a_group_together(new_group: NewGroup) -> None:
    """Whichever of the two commits the start, records that come after one open() has returned are read."""
    group = await new_group(4)
    for partition in range(4):
        await group.produce([b"old"], partition=partition)
    workers = [group.new(start_from="latest") for _ in range(2)]

    async def open_and_append(worker: Worker, number: int) -> None:
        await worker.log.open(worker)
        await group.produce([f"new {number}".encode()], partition=number)

    await asyncio.gather(*(open_and_append(worker, number) for number, worker in enumerate(workers)))

    seen: set[bytes | None] = set()
    async with asyncio.timeout(PATIENCE):
        while seen != {b"new 0", b"new 1"}:
            for worker in workers:
                for batch in await worker.log.read(worker.claims, 10, 0.05):
                    seen |= set(values(batch.records))
    async with group.browser() as browser:
        assert None not in {entry.next for entry in await browser.committed(group.topic)}


async def test_an_added_partition_is_read_from_its_beginning(new_group: NewGroup) -> None:
    """A partition that the source gains is claimed from its first record on, can be parked in, and has a commit."""
    group = await new_group(1)
    worker = await group.worker(start_from="latest")

    async with group.broker.admin() as admin:
        await admin.create_partitions({group.topic: NewPartitions(2)})
    await group.produce([b"first of the new"], partition=1)
    await worker.until(lambda: TopicPartition(group.topic, 1) in worker.held)

    assert values(await worker.take(1)) == [b"first of the new"]
    claim = worker.held[TopicPartition(group.topic, 1)]
    await worker.log.park(claim, "a", b"1", [])
    async with parked(worker, claim) as stream:
        assert values(await loaded(stream)) == [b"1"]
    async with group.browser() as browser:
        assert [entry.next for entry in await browser.committed(group.topic)] == [0, 0]


async def test_an_offset_out_of_range_stops_its_partition_alone(new_group: NewGroup) -> None:
    """Where records were deleted before they were read nothing is skipped silently: the log says so, others go on."""
    group = await new_group(2)
    await group.produce([b"lost"] * 5, partition=0)
    first = await group.worker()
    await first.log.close()
    async with group.broker.admin() as admin:
        await admin.delete_records({KafkaPartition(group.topic, 0): RecordsToDelete(3)})
    await group.produce([b"fine"] * 3, partition=1)

    with capture_logs() as lines:
        second = await group.worker()
        records = await second.take(3)
        async with asyncio.timeout(PATIENCE):
            while not any(line["event"] == "partition stopped" for line in lines):
                assert not await second.log.read(second.claims, 10, 0.05)

    assert values(records) == [b"fine"] * 3
    [line] = [line for line in lines if line["event"] == "partition stopped"]
    assert (line["topic"], line["partition"], line["offset"]) == (group.topic, 0, 0)
    assert "kafka-consumer-groups.sh" in line["hint"]


async def test_a_missing_source_topic_is_named_and_not_created(kafka: Broker) -> None:
    """open() fails with the topic's name and the command that creates it, also where brokers create topics themselves."""
    config = LogConfig(group=unique("usher"), topics=(unique("no.such"),))
    log = KafkaLog(kafka.address, config)
    owner = Worker(log, "worker", [])

    for _ in range(2):
        with pytest.raises(LogMisconfigured, match=r"kafka-topics\.sh .*--create --topic " + config.topics[0]):
            await log.open(owner)
    await log.close()


async def test_own_topics_are_created_as_they_must_be(new_group: NewGroup) -> None:
    """The retry topic is compacted, both have the source's partitions; one that can't be right is refused with the command."""
    group = await new_group(3)
    retry = f"{group.config.group}.{group.topic}-retry"
    await group.broker.create_topic(retry, 3, cleanup_policy="delete")
    worker = group.new()

    with pytest.raises(LogMisconfigured, match=r"kafka-configs\.sh .*cleanup\.policy=compact"):
        await worker.log.open(worker)


async def test_positions_pass_transactions_and_aborted_records_are_not_delivered(new_group: NewGroup) -> None:
    """Control records leave gaps: next passes them, so that nothing stays to be read for ever."""
    group = await new_group(1)
    worker = await group.worker()
    async with AIOKafkaProducer(bootstrap_servers=group.broker.servers, transactional_id=unique("tx")) as producer:
        for value, keep in ((b"kept", True), (b"aborted", False), (b"kept too", True)):
            await producer.begin_transaction()
            await producer.send_and_wait(group.topic, value)
            await (producer.commit_transaction() if keep else producer.abort_transaction())

    seen: list[bytes | None] = []
    position = 0
    [claim] = worker.claims
    end = 6  # three records, each with its control record
    async with asyncio.timeout(PATIENCE):
        while position < end:
            for batch in await worker.log.read([claim], 10, 0.1):
                seen += values(batch.records)
                position = batch.next

    assert seen == [b"kept", b"kept too"]
    assert (position, await worker.log.ends([claim])) == (end, {claim: end})


async def test_nothing_is_lost_while_members_come_and_go(new_group: NewGroup) -> None:
    """Three members join and leave while they read and commit: each record is seen, and no commit goes back."""
    group = await new_group(6)
    fed = 0
    joined = 0
    progress = asyncio.Event()
    seen: dict[tuple[int, int], int] = {}
    commits: dict[int, list[int]] = {}

    async def feed() -> None:
        nonlocal fed
        while joined < 10:
            await group.broker.produce(group.topic, [(str(n).encode(), b"") for n in range(fed, fed + 50)])
            fed += 50

    async def work(worker: Worker, stop: asyncio.Event) -> None:
        reached: dict[Claim, int] = {}

        async def settle(claims: Sequence[Claim]) -> None:
            positions = {claim: Position(reached[claim]) for claim in claims if claim in reached}
            with contextlib.suppress(LogError):
                await worker.log.commit(positions)
                for claim, position in positions.items():
                    commits.setdefault(claim.partition, []).append(position.next)

        nonlocal joined
        worker.on_release = settle
        await worker.log.open(worker)
        await worker.until(lambda: bool(worker.held))
        joined += 1
        while not stop.is_set():
            for batch in await worker.log.read(worker.claims, 50, 0.05):
                reached[batch.claim] = batch.next
                for record in batch.records:
                    topic_partition = (record.partition, record.offset)
                    seen[topic_partition] = seen.get(topic_partition, 0) + 1
                progress.set()
        await settle(worker.claims)
        await worker.log.close()

    async def come_and_go(seed: int, done: asyncio.Event) -> None:
        pauses = random.Random(seed)
        while not done.is_set():
            stop = asyncio.Event()
            task = asyncio.create_task(work(group.new(), stop))
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(done.wait(), pauses.uniform(0.5, 2.5))
            stop.set()
            await task

    done = asyncio.Event()
    members = [asyncio.create_task(come_and_go(seed, done)) for seed in range(3)]
    async with asyncio.timeout(90):
        await feed()
        while len(seen) < fed:
            progress.clear()
            await progress.wait()
    done.set()
    await asyncio.gather(*members)

    assert len(seen) == fed
    assert max(seen.values()) == 1
    for partition, positions in commits.items():
        assert positions == sorted(positions), partition


async def test_a_producer_that_was_poisoned_is_replaced(new_group: NewGroup) -> None:
    """After Kafka has refused a record, which spoils its producer for the partition, later writes succeed."""
    group = await new_group(1)
    worker = await group.worker()
    [claim] = worker.claims
    retry = f"{group.config.group}.{group.topic}-retry"

    async with group.browser() as browser:
        await worker.log.park(claim, "a", b"0", [])
        # A record without a key is refused by a compacted topic.
        with pytest.raises(LogUnavailable):
            await worker.log._writer.write(retry, None, b"no key", (), 0)  # type: ignore[attr-defined]  # no door leads there
        await worker.log.park(claim, "a", b"1", [])
        await worker.log.park(claim, "b", b"2", [])
        assert values(await drained(browser.scan(retry))) == [b"0", b"1", b"2"]


async def test_a_consumer_in_trouble_is_replaced(new_group: NewGroup) -> None:
    """Its claims are released, without hanging on a commit that can't be, and new ones come."""
    group = await new_group(2)
    worker = await group.worker()
    before = set(worker.claims)
    consumer: Any = worker.log._member._consumer  # type: ignore[attr-defined]  # trouble can't be ordered

    async def broken() -> None:
        raise RuntimeError("not foreseen")

    consumer._coordinator.ensure_coordinator_known = broken
    consumer._coordinator.request_rejoin()
    await worker.until(lambda: len(worker.held) == 2 and not before & set(worker.claims))
    await group.produce([b"1"])

    assert set(worker.ended) >= before
    assert values(await worker.take(1)) == [b"1"]


async def test_work_goes_on_after_the_broker_was_killed(own_kafka: Broker) -> None:
    """A broker that is killed and comes back loses no record and no write that was acknowledged; long outages are logged."""
    async with grouped(own_kafka) as new:
        group = await new(2)
        worker = await group.worker()
        [claim, _] = worker.claims
        stream = worker.log.parked(claim)
        await worker.log.append(group.topic, b"ada", b"before")
        [record] = await worker.take(1)
        await worker.log.commit(
            {worker.held[TopicPartition(record.topic, record.partition)]: Position(record.offset + 1)}
        )
        await worker.log.park(claim, "a", b"1", [])
        assert values(await loaded(stream)) == [b"1"]

        own_kafka.kill()
        assert not await worker.log.writable()
        writing = asyncio.create_task(_until_written(worker, claim))
        reading = asyncio.create_task(worker.take(1))
        await asyncio.to_thread(own_kafka.start)
        await writing
        await worker.log.append(group.topic, b"ada", b"after")

        assert (await reading)[-1].value == b"after"
        assert b"2" in values(await following(stream, 1))
        assert await worker.log.writable()
        [claim] = [
            each for each in worker.claims if each.topic_partition == TopicPartition(record.topic, record.partition)
        ]
        await worker.log.commit({claim: Position(record.offset + 2)})


async def _until_written(worker: Worker, claim: Claim) -> None:
    async with asyncio.timeout(PATIENCE):
        while True:
            with contextlib.suppress(LogUnavailable):
                return await worker.log.park(claim, "b", b"2", [])


async def test_open_waits_for_a_broker_and_close_does_not(own_kafka: Broker) -> None:
    """While no broker answers open() waits and says so; with a dead broker close() still ends."""
    async with grouped(own_kafka) as new:
        group = await new(1)
        own_kafka.kill()
        worker = group.new()
        with capture_logs() as lines:
            opening = asyncio.create_task(worker.log.open(worker))
            async with asyncio.timeout(PATIENCE):
                while not any(line["event"] == "kafka is not ready" for line in lines):  # noqa: ASYNC110 a line is no event
                    await asyncio.sleep(0.01)
            assert not opening.done()
            await asyncio.to_thread(own_kafka.start)
            await opening
        await worker.until(lambda: len(worker.held) == 1)

        own_kafka.kill()
        async with asyncio.timeout(20):
            await worker.log.close()


async def test_a_worker_is_ready_soon_after_another_was_killed(new_group: NewGroup) -> None:
    """A member that vanishes without leaving is missed within its session: the next worker has its claims within 20 s."""
    group = await new_group(2)
    script = (
        "import asyncio, sys\n"
        "from tests.contract.logs import Worker\n"
        "from usher.addresses import KafkaAddress\n"
        "from usher.eventlog.port import LogConfig\n"
        "from usher.eventlog.kafka import KafkaLog\n"
        "async def main(servers, group, topic):\n"
        "    worker = Worker(KafkaLog(KafkaAddress((servers,)), LogConfig(group, (topic,))), 'victim', [])\n"
        "    await worker.log.open(worker)\n"
        "    await worker.until(lambda: len(worker.held) == 2)\n"
        "    print('ready', flush=True)\n"
        "    while True: await worker.log.read((), 1, 0.1)\n"
        "asyncio.run(main(*sys.argv[1:]))\n"
    )
    victim = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", script, group.broker.servers, group.config.group, group.topic),
        stdout=asyncio.subprocess.PIPE,
    )
    assert victim.stdout is not None
    while (line := await victim.stdout.readline()) != b"ready\n":
        assert line
    victim.kill()
    await victim.wait()

    started = time.monotonic()
    await group.worker(NO_OPTIONS)

    assert time.monotonic() - started < 20


async def test_wrong_credentials_are_one_clear_error(tmp_path: Path, kafka: Broker) -> None:
    """A password that Kafka refuses ends open() and a browser with the user's name and the settings to look at; a right one works."""
    module = "org.apache.kafka.common.security.plain.PlainLoginModule required"
    broker = Broker(
        tmp_path / "kafka",
        listener="SASL_PLAINTEXT",
        properties=(
            "sasl.enabled.mechanisms=PLAIN\nsasl.mechanism.inter.broker.protocol=PLAIN\n"
            f'listener.name.sasl_plaintext.plain.sasl.jaas.config={module} username="admin" password="a" '
            'user_admin="a" user_usher="right";\n'
        ),
    )
    await asyncio.to_thread(broker.start)
    try:
        for password, expected in (("wr0ng", "refuses the user 'usher'"), ("right", "does not exist")):
            sasl = {"sasl_mechanism": "PLAIN", "sasl_plain_username": "usher", "sasl_plain_password": password}
            options = {"security_protocol": "SASL_PLAINTEXT", **sasl}
            config = LogConfig(group="usher", topics=("identity.events",))
            log = KafkaLog(broker.address, config, kafka_options(options))
            with pytest.raises(LogMisconfigured, match=expected) as refusal:
                await log.open(Worker(log, "worker", []))
            assert password not in str(refusal.value)
            await log.close()
        wrong = kafka_options({**options, "sasl_plain_password": "no"})
        with pytest.raises(LogMisconfigured, match="refuses the user"):
            async with KafkaBrowser(broker.address, config, wrong):
                pass
    finally:
        broker.stop()


async def test_a_damaged_batch_stops_its_partition_alone(own_kafka: Broker) -> None:
    """What can't be decoded is neither skipped nor does it lose what was read with it; the log says which partition stopped."""
    async with grouped(own_kafka) as new:
        group = await new(2)
        await group.produce([b"fine"], partition=0)
        await group.produce([b"D" * 40], partition=0)
        await group.produce([b"beyond"], partition=0)
        await group.produce([b"other"] * 3, partition=1)
        own_kafka.stop()
        own_kafka.damage(group.topic, 0, b"D" * 40)
        await asyncio.to_thread(own_kafka.start)

        with capture_logs() as lines:
            worker = await group.worker()
            seen: list[bytes | None] = []
            async with asyncio.timeout(PATIENCE):
                while not any(line["event"] == "partition stopped" for line in lines) or len(seen) < 4:
                    for batch in await worker.log.read(worker.claims, 10, 0.05):
                        seen += values(batch.records)

        assert sorted(value or b"" for value in seen) == [b"fine", *[b"other"] * 3]
        [line] = [line for line in lines if line["event"] == "partition stopped"]
        assert (line["partition"], line["offset"]) == (0, 1)
