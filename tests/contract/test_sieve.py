"""The contract of the sieve on every event log: what it is against is left out, and counted where it lay."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from aiokafka import AIOKafkaProducer, ConsumerRecord
from aiokafka.consumer import fetcher
from structlog.testing import capture_logs
from tests.contract.logs import PATIENCE, Harness, KafkaHarness, Worker
from tests.contract.test_eventlog import HARNESSES
from tests.kafka import Broker, unique

from usher.delivery import StoredRecord
from usher.eventlog.kafka import sieve as kafka_sieve
from usher.eventlog.kafka import unpacking
from usher.eventlog.port import Batch, Position, Sieve, TopicPartition, everything
from usher.systems.prefilter import prefilter

OURS = b'{"n": %d, "by": "admin_api"}'
OTHERS = b'{"n": %d, "by": "user"}'
CLOUD_EVENT = [("Content-Type", b"application/cloudevents+json")]


@pytest.fixture(params=[pytest.param(name, marks=[pytest.mark.kafka] * (name == "kafka")) for name in HARNESSES])
async def logs(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Harness]:
    harness = HARNESSES[request.param](request, tmp_path)
    await harness.create()
    yield harness
    await harness.close()


@pytest.fixture
async def on_kafka(kafka: Broker) -> AsyncIterator[KafkaHarness]:
    harness = KafkaHarness(kafka)
    harness.partitions = 1
    await harness.create()
    yield harness
    await harness.close()


def admins(_topic: str) -> Sieve:
    return prefilter({"admin_api"})


async def read_all(worker: Worker, count: int, limit: int = 100) -> list[Batch]:
    """Read until *count* records have been read or left out."""
    batches: list[Batch] = []
    async with asyncio.timeout(PATIENCE):
        while sum(len(batch.records) + batch.passed for batch in batches) < count:
            batches += await worker.log.read(worker.claims, limit, 1.0)
    return batches


def placed(batches: Sequence[Batch]) -> list[tuple[int, bytes | None]]:
    """The records of one partition, each with its place among all that were read, from 1 on."""
    seen, records = 0, []
    for batch in batches:
        records += [(seen + batch.place(index), record.value) for index, record in enumerate(batch.records)]
        seen += len(batch.records) + batch.passed
    return records


async def append(worker: Worker, topic: str, kinds: str) -> None:
    """Append a record of ours for each ``o``, one of others for each ``-``, and for each ``~`` what leaves a gap in SQLite's offsets."""
    for number, kind in enumerate(kinds):
        if kind == "~":
            await worker.log.park(worker.claims[0], f"gap-{number}", b"", [])
        else:
            await worker.log.append(topic, b"ada", (OURS if kind == "o" else OTHERS) % number)


@pytest.mark.parametrize("limit", [1, 3, 100])
async def test_what_is_not_ours_is_left_out_and_each_record_knows_its_place(logs: Harness, limit: int) -> None:
    """Whatever a read takes at once, and with gaps in the offsets: none is lost, none is counted twice, all have been passed."""
    worker = await logs.worker(sieves=admins)
    await append(worker, logs.topic, "--o~~---oo~-o--~-")

    batches = await read_all(worker, 13, limit)
    [claim] = {batch.claim for batch in batches}

    assert placed(batches) == [(3, OURS % 2), (7, OURS % 8), (8, OURS % 9), (10, OURS % 12)]
    assert sum(batch.passed for batch in batches) == 9
    assert all(len(batch.before) == len(batch.records) for batch in batches if batch.passed)
    assert {claim: batches[-1].next} == await worker.log.ends([claim])


async def test_what_may_be_ours_for_all_that_the_bytes_say_is_let_through(logs: Harness) -> None:
    """No value, no JSON object, an escape, or an envelope whose content may be encoded: the sieve is against none of them."""
    worker = await logs.worker(sieves=admins)
    doubtful: list[bytes | None] = [None, b"", b"\xff", b"[]", rb'{"by": "admin\u005fapi"}', OTHERS % 0 + b"\n"]
    async with logs.browser() as browser:
        for value in doubtful:
            await browser.append(logs.topic, b"ada", value)
        await browser.append(logs.topic, b"ada", OTHERS % 1, CLOUD_EVENT)
        await browser.append(logs.topic, b"ada", OTHERS % 2, [("content-type", b"application/json")])

    batches = await read_all(worker, len(doubtful) + 2)

    assert [value for _, value in placed(batches)] == [*doubtful, OTHERS % 1]
    assert sum(batch.passed for batch in batches) == 1


async def test_a_topic_whose_sieve_lets_everything_through_is_read_whole(logs: Harness) -> None:
    """As for a topic that has the raw events of a system: nothing is left out, and nothing is counted so."""
    worker = await logs.worker(sieves=lambda topic: everything if topic == logs.topic else prefilter({"admin_api"}))
    await append(worker, logs.topic, "-o-")

    batches = await read_all(worker, 3)

    assert [place for place, _ in placed(batches)] == [1, 2, 3]
    assert [batch.passed for batch in batches] == [0] * len(batches)


async def test_a_new_owner_counts_only_what_it_reads(logs: Harness) -> None:
    """It begins in the middle of what was written at once: the earlier owner has counted what lies before that."""
    first = await logs.worker(sieves=admins)
    where = await first.log.append(logs.topic, b"ada", OTHERS % 0)
    async with logs.browser() as browser:
        await asyncio.gather(
            *(
                browser.append(logs.topic, b"ada", (OURS if n == 4 else OTHERS) % n, partition=where.partition)
                for n in range(1, 9)
            )
        )
    batches: list[Batch] = []
    async with asyncio.timeout(PATIENCE):
        while not placed(batches):
            batches += await first.log.read(first.claims, 1, 1.0)
    counted = len(placed(batches)) + sum(batch.passed for batch in batches)
    await first.log.commit({batches[-1].claim: Position(batches[-1].next)})
    await first.log.close()

    second = await logs.worker("second", sieves=admins)
    rest = await read_all(second, 9 - counted)

    assert placed(batches) == [(counted, OURS % 4)]
    assert placed(rest) == []
    assert sum(batch.passed for batch in rest) == 9 - counted


async def test_other_topics_than_the_sources_are_not_sieved(logs: Harness) -> None:
    """What is parked, what was read earlier, and what a feed asks back are read whole."""
    worker = await logs.worker(sieves=admins)
    await append(worker, logs.topic, "-o")
    batches = await read_all(worker, 2)

    claim = batches[-1].claim
    since = [record.value async for records in worker.log.since(logs.topic, 0) for record in records]
    await worker.log.commit({claim: Position(batches[-1].next)})
    await worker.log.close()
    second = await logs.worker("second", sieves=admins)
    again = second.held[claim.topic_partition]
    history = [record.value async for records in second.log.history(again, 1e12, 10) for record in records]

    assert since == history == [OTHERS % 0, OURS % 1]


@pytest.mark.kafka
async def test_no_object_of_aiokafka_is_made_of_what_is_left_out(
    on_kafka: KafkaHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The hook is in force: a member that sieves makes no ConsumerRecord at all, and one record of ours for each that it keeps."""
    made: list[str] = []

    def counted(name: str, make: Callable[..., Any]) -> Callable[..., Any]:
        def made_of(*fields: Any) -> Any:
            made.append(name)
            return make(*fields)

        return made_of

    monkeypatch.setattr(fetcher, "ConsumerRecord", counted("aiokafka's", ConsumerRecord))
    monkeypatch.setattr(kafka_sieve, "StoredRecord", counted("ours", StoredRecord))
    worker = await on_kafka.worker(sieves=admins)
    await append(worker, on_kafka.topic, "---o--")

    await read_all(worker, 6)

    assert made == ["ours"]


@pytest.mark.kafka
async def test_with_an_unknown_aiokafka_all_is_read_whole_and_one_line_says_so(
    on_kafka: KafkaHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where a name that the sieve needs is missing, records come as they always did; the filter of the intake is left."""
    monkeypatch.setattr(fetcher, "PartitionRecords", kafka_sieve._Records.__base__)
    monkeypatch.setitem(kafka_sieve._EXPECTED, "PartitionRecords._unpack_records", ("_a_name_that_went",))
    kafka_sieve.install.cache_clear()
    try:
        with capture_logs() as lines:
            worker = await on_kafka.worker(sieves=admins)
            await append(worker, on_kafka.topic, "-o-")
            batches = await read_all(worker, 3)
            on_kafka.log()
    finally:
        kafka_sieve.install.cache_clear()

    assert [place for place, _ in placed(batches)] == [1, 2, 3]
    [line] = [line for line in lines if line["log_level"] == "warning"]
    assert line["unknown"] == ["PartitionRecords._unpack_records: _a_name_that_went"]


@pytest.mark.kafka
async def test_one_read_leaves_out_so_many_and_no_more(on_kafka: KafkaHarness, monkeypatch: pytest.MonkeyPatch) -> None:
    """After that it takes what comes, to its limit: the loop is not held by a fetch that holds nothing of ours."""
    monkeypatch.setattr("usher.eventlog.kafka.polling.MOST_LEFT_OUT", 5)
    worker = await on_kafka.worker(sieves=admins)
    await on_kafka.broker.produce(on_kafka.topic, [(b"k", OTHERS % n) for n in range(40)])

    batches = await read_all(worker, 40, limit=3)

    assert [len(batch.records) for batch in batches] == [3] * 5
    assert [batch.passed for batch in batches] == [5] * 5


@pytest.mark.kafka
async def test_aborted_and_control_records_are_not_counted(on_kafka: KafkaHarness) -> None:
    """They leave gaps in the offsets, as compaction does: only records that could have been delivered count."""
    worker = await on_kafka.worker(sieves=admins)
    async with AIOKafkaProducer(
        bootstrap_servers=on_kafka.broker.servers, transactional_id=unique("tx"), linger_ms=50
    ) as producer:
        for keep in (True, False, True):
            await producer.begin_transaction()
            sends = [await producer.send(on_kafka.topic, kind % 1) for kind in (OTHERS, OURS, OTHERS)]
            await asyncio.gather(*sends)
            await (producer.commit_transaction() if keep else producer.abort_transaction())

    batches: list[Batch] = []
    async with asyncio.timeout(PATIENCE):
        while not batches or batches[-1].next < 12:  # nine records, each three with a control record
            batches += await worker.log.read(worker.claims, 10, 0.1)

    assert placed(batches) == [(2, OURS % 1), (5, OURS % 1)]
    assert sum(batch.passed for batch in batches) == 4


@pytest.mark.kafka
async def test_the_offset_that_is_named_for_a_damaged_batch_is_its_own(
    on_kafka: KafkaHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not the offset after the last record that was kept: who skips the record there would skip another one."""
    intact = unpacking._Batch.validate_crc
    monkeypatch.setattr(unpacking._Batch, "validate_crc", lambda batch: batch.base_offset != 4 and intact(batch))
    worker = await on_kafka.worker(sieves=admins)
    await append(worker, on_kafka.topic, "o---o-")

    with capture_logs() as lines:
        batches = await read_all(worker, 4)
        async with asyncio.timeout(PATIENCE):
            while TopicPartition(on_kafka.topic, 0) not in worker.log.stopped():
                await worker.log.read(worker.claims, 10, 0.1)

    assert sum(len(batch.records) + batch.passed for batch in batches) == 4
    assert batches[-1].next == 4
    [line] = [line for line in lines if line["event"] == "partition stopped"]
    assert line["offset"] == 4
