"""The contract of the EventLog port: what every log does, whatever it keeps its records in."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path

import pytest
from tests.contract.logs import (
    PATIENCE,
    Harness,
    KafkaHarness,
    MemoryHarness,
    SqliteHarness,
    drained,
    following,
    loaded,
    parked,
)

from usher.delivery import Record
from usher.eventlog.errors import ClaimLost, TooLarge
from usher.eventlog.names import receipts_topic
from usher.eventlog.port import Claim, Position, TopicPartition

HARNESSES: dict[str, Callable[[pytest.FixtureRequest, Path], Harness]] = {
    "memory": lambda _request, _folder: MemoryHarness(),
    "sqlite": lambda _request, folder: SqliteHarness(folder / "usher.db"),
    "kafka": lambda request, _folder: KafkaHarness(request.getfixturevalue("kafka")),
}
TOO_LARGE = b"x" * 1_048_600
"""Over 1 MiB: larger than any of the logs takes as they come."""


@pytest.fixture(params=[pytest.param(name, marks=[pytest.mark.kafka] * (name == "kafka")) for name in HARNESSES])
async def logs(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Harness]:
    harness = HARNESSES[request.param](request, tmp_path)
    await harness.create()
    yield harness
    await harness.close()


def values(records: list[Record]) -> list[bytes | None]:
    return [record.value for record in records]


async def test_records_come_back_as_they_were_appended(logs: Harness) -> None:
    """Key, value, headers (their order and repeats too), topic and partition of a record are read back as they were."""
    worker = await logs.worker()
    headers = [("trace", b"1"), ("trace", b"\xff\x00"), ("empty", b"")]

    topic_partition = await worker.log.append(logs.topic, b"ada", b'{"n": 1}', headers)
    [record] = await worker.take(1)

    assert topic_partition == TopicPartition(record.topic, record.partition)
    assert (record.topic, record.key, record.value) == (logs.topic, b"ada", b'{"n": 1}')
    assert list(record.headers) == headers


async def test_timestamps_are_the_time_of_the_append(logs: Harness) -> None:
    """A later append has the later timestamp, in milliseconds."""
    worker = await logs.worker()

    await worker.log.append(logs.topic, b"ada", b"1")
    await logs.pass_time(0.25)
    await worker.log.append(logs.topic, b"ada", b"2")
    earlier, later = await worker.take(2)

    assert 250 <= later.timestamp - earlier.timestamp < 1_000 * PATIENCE


async def test_records_without_a_key_are_kept(logs: Harness) -> None:
    """A record without a key is read back without one."""
    worker = await logs.worker()

    await worker.log.append(logs.topic, None, b"1")

    assert [record.key for record in await worker.take(1)] == [None]


async def test_records_of_a_key_keep_their_order_on_one_partition(logs: Harness) -> None:
    """Records of one key all go to one partition, and are read in the order of their appends, with rising offsets."""
    worker = await logs.worker()

    topic_partitions = {await worker.log.append(logs.topic, b"ada", str(n).encode()) for n in range(20)}
    records = await worker.take(20, limit=7)

    assert len(topic_partitions) == 1
    assert values(records) == [str(n).encode() for n in range(20)]
    offsets = [record.offset for record in records]
    assert offsets == sorted(set(offsets))


async def test_a_browser_and_a_worker_agree_on_the_partition_of_a_key(logs: Harness) -> None:
    """What the command line appends under a key goes where the worker's own appends of it go."""
    worker = await logs.worker()
    keys = [f"user-{n}".encode() for n in range(8)]

    async with logs.browser() as browser:
        for key in keys:
            assert await browser.append(logs.topic, key, b"1") == await worker.log.append(logs.topic, key, b"2")


async def test_many_appends_at_once_are_all_kept(logs: Harness) -> None:
    """Appends that wait for each other's disk or network are all there when they have returned."""
    worker = await logs.worker()

    await asyncio.gather(*(worker.log.append(logs.topic, str(n).encode(), str(n).encode()) for n in range(200)))
    records = await worker.take(200)

    assert sorted(int(record.value or b"") for record in records) == list(range(200))


async def test_claims_that_are_left_out_lose_nothing(logs: Harness) -> None:
    """Reading some claims leaves the records of the others for later: none is lost, none comes twice."""
    worker = await logs.worker()
    async with logs.browser() as browser:
        for n in range(6):
            for partition in range(logs.partitions):
                await browser.append(logs.topic, None, f"{partition}:{n}".encode(), partition=partition)

    seen: dict[int, list[bytes | None]] = {claim.partition: [] for claim in worker.claims}
    while any(len(read) < 6 for read in seen.values()):
        for claim in worker.claims:
            if len(seen[claim.partition]) < 6:
                records = await worker.take(1, [claim], limit=2)
                assert {record.partition for record in records} == {claim.partition}
                seen[claim.partition] += values(records)

    assert seen == {partition: [f"{partition}:{n}".encode() for n in range(6)] for partition in seen}


async def test_the_next_of_a_batch_is_where_a_new_owner_goes_on(logs: Harness) -> None:
    """Batch.next lies past the batch's last record and not past the first one that is still to come."""
    worker = await logs.worker()
    for n in range(4):
        await worker.log.append(logs.topic, b"ada", str(n).encode())

    reads = [batch for _ in range(4) for batch in await worker.log.read(worker.claims, 1, PATIENCE) if batch.records]
    seen = [(record.offset, batch.next) for batch in reads for record in batch.records]

    assert all(offset < next_ for offset, next_ in seen)
    assert all(batch.next <= later.records[0].offset for batch, later in itertools.pairwise(reads))


async def test_an_empty_read_wakes_at_an_append(logs: Harness) -> None:
    """A read that waits returns with the record as soon as one is appended, by the worker or from outside."""
    worker = await logs.worker()
    async with logs.browser() as browser:
        for append in (worker.log.append, browser.append):
            reading = asyncio.create_task(worker.take(1))
            await append(logs.topic, b"ada", b"1")
            assert values(await reading) == [b"1"]


async def test_an_empty_read_ends_when_its_time_is_up(logs: Harness) -> None:
    """A read of claims without records returns without records; one of no claims does too."""
    worker = await logs.worker()

    async with asyncio.timeout(PATIENCE):
        assert not [batch for batch in await worker.log.read(worker.claims, 10, 0.01) if batch.records]
        assert not await worker.log.read((), 10, 0.01)


async def test_a_commit_is_where_the_next_owner_starts(logs: Harness) -> None:
    """The next claim has the committed offset and mark (4,096 characters, not bytes) and reads from there on."""
    mark = "é" * 4_096
    first = await logs.worker()
    for n in range(3):
        await first.log.append(logs.topic, b"ada", str(n).encode())
    second_record = (await first.take(3))[1]
    [claim] = [claim for claim in first.claims if claim.partition == second_record.partition]
    await first.log.commit({claim: Position(second_record.offset, mark)})
    await first.log.close()

    second = await logs.worker("second")

    [claim] = [claim for claim in second.claims if claim.partition == second_record.partition]
    assert (claim.start, claim.mark) == (second_record.offset, mark)
    assert values(await second.take(2)) == [b"1", b"2"]


async def test_the_start_of_a_new_group_is_committed_at_open(logs: Harness) -> None:
    """Once open, each partition of a new group has an explicit commit without a mark, where its claim starts."""
    async with logs.browser() as browser:
        assert {entry.next for entry in await browser.committed(logs.topic)} <= {None}
        worker = await logs.worker()
        committed = await browser.committed(logs.topic)

    assert [entry.topic_partition for entry in committed] == [
        TopicPartition(logs.topic, p) for p in range(logs.partitions)
    ]
    assert {entry.topic_partition: (entry.next, entry.mark) for entry in committed} == {
        claim.topic_partition: (claim.start, "") for claim in worker.claims
    }


async def test_committed_has_the_bounds_of_a_partition(logs: Harness) -> None:
    """first and end of Browser.committed enclose the records, and next is what was committed."""
    worker = await logs.worker()
    topic_partition = await worker.log.append(logs.topic, b"ada", b"1")
    await worker.log.append(logs.topic, b"ada", b"2")
    first, last = await worker.take(2)
    await worker.log.commit({worker.held[topic_partition]: Position(last.offset, "mark")})

    async with logs.browser() as browser:
        [entry] = [entry for entry in await browser.committed(logs.topic) if entry.topic_partition == topic_partition]

    assert (entry.next, entry.mark) == (last.offset, "mark")
    assert entry.first <= first.offset
    assert entry.end == last.offset + 1


async def test_what_was_appended_while_nobody_was_there_is_read_later(logs: Harness) -> None:
    """Records that come between two workers, and those from before the first, are read by the next one."""
    async with logs.browser() as browser:
        await browser.append(logs.topic, b"ada", b"before")
        worker = await logs.worker()
        [record] = await worker.take(1)
        claim = worker.held[TopicPartition(record.topic, record.partition)]
        await worker.log.commit({claim: Position(record.offset + 1)})
        await worker.log.close()
        await browser.append(logs.topic, b"ada", b"between")

    later = await logs.worker("second")

    assert (record.value, values(await later.take(1))) == (b"before", [b"between"])


async def test_what_was_not_committed_is_read_again(logs: Harness) -> None:
    """A log that is closed and opened again goes on at the last commit, and takes appends as before."""
    first = await logs.worker()
    await first.log.append(logs.topic, b"ada", b"1")
    await first.take(1)
    await first.log.close()

    second = await logs.worker("second")
    await second.log.append(logs.topic, b"ada", b"2")

    assert values(await second.take(2)) == [b"1", b"2"]


async def test_close_may_be_called_twice(logs: Harness) -> None:
    """Closing a closed log does nothing, and no close calls released."""
    worker = await logs.worker()

    await worker.log.close()
    await worker.log.close()

    assert not worker.ended


async def test_the_parked_table_comes_in_order_then_what_is_added(logs: Harness) -> None:
    """parked() delivers what is there, tombstones too, says once that it has caught up, then delivers what is added."""
    worker = await logs.worker()
    claim = worker.claims[-1]
    await worker.log.park(claim, "a", b"1", [("usher-attempt", b"1")])
    await worker.log.park(claim, "b", b"2", [])
    await worker.log.unpark(claim, "a", [("usher-writer", b"me")])

    async with parked(worker, claim) as stream:
        records = await loaded(stream)
        await worker.log.park(claim, "c", b"3", [])
        await worker.log.unpark(claim, "b")
        added = await following(stream, 2)

    state = {record.key: (record.value, tuple(record.headers)) for record in records}
    assert state == {b"a": (None, (("usher-writer", b"me"),)), b"b": (b"2", ())}
    assert [record.key for record in records][-2:] == [b"b", b"a"]
    assert [(record.key, record.value) for record in added] == [(b"c", b"3"), (b"b", None)]
    assert {(record.topic, record.partition) for record in records + added} == {(logs.retry_topic, claim.partition)}


async def test_an_empty_parked_table_is_caught_up_at_once(logs: Harness) -> None:
    """A partition with nothing parked says so, and what is added then is delivered."""
    worker = await logs.worker()
    [claim, *_] = worker.claims

    async with parked(worker, claim) as stream:
        assert await loaded(stream) == []
        added = asyncio.create_task(following(stream, 1))
        await worker.log.park(claim, "a", b"1", [])
        assert [record.key for record in await added] == [b"a"]


async def test_parked_tables_are_kept_apart(logs: Harness) -> None:
    """What is parked for one claim is not seen by another one, and two streams of one claim see the same."""
    worker = await logs.worker()
    for claim in worker.claims:
        await worker.log.park(claim, f"key-{claim.partition}", b"1", [])

    for claim in [*worker.claims, *worker.claims]:
        async with parked(worker, claim) as stream:
            assert [record.key for record in await loaded(stream)] == [f"key-{claim.partition}".encode()]


async def test_what_is_parked_survives_the_worker(logs: Harness) -> None:
    """The next worker finds the last state of each key, however often it was parked."""
    first = await logs.worker()
    topic_partition = first.claims[0].topic_partition
    for attempt in range(5):
        await first.log.park(
            first.held[topic_partition], "a", str(attempt).encode(), [("usher-attempt", str(attempt).encode())]
        )
    await first.log.park(first.held[topic_partition], "b", b"x", [])
    await first.log.unpark(first.held[topic_partition], "b")
    await first.log.close()

    second = await logs.worker("second")
    async with parked(second, second.held[topic_partition]) as stream:
        records = await loaded(stream)

    last = {record.key: record for record in records}
    assert {key: record.value for key, record in last.items()} == {b"a": b"4", b"b": None}
    assert list(last[b"a"].headers) == [("usher-attempt", b"4")]


async def test_a_request_of_the_command_line_reaches_the_worker(logs: Harness) -> None:
    """What a browser appends to a retry partition appears in that claim's parked stream."""
    worker = await logs.worker()
    claim = worker.claims[-1]

    async with parked(worker, claim) as stream, logs.browser() as browser:
        assert await loaded(stream) == []
        topic_partition = await browser.append(
            logs.retry_topic, b"replay/1", b"{}", [("n", b"1")], partition=claim.partition
        )
        [record] = await following(stream, 1)

    assert topic_partition == TopicPartition(logs.retry_topic, claim.partition)
    assert (record.key, record.value, list(record.headers)) == (b"replay/1", b"{}", [("n", b"1")])


async def test_dead_letters_lie_on_the_partition_of_their_claim(logs: Harness) -> None:
    """What is buried, with or without a key and a value, is what a browser finds, partition for partition."""
    worker = await logs.worker()
    for claim in worker.claims:
        await worker.log.bury(claim, b"ada", b"1", [("usher-reason", b"rejected")])
        await worker.log.bury(claim, None, None, [("usher-state", b"replayed")])

    async with logs.browser() as browser:
        everything = await drained(browser.scan(logs.dead_letter_topic))
        of_last = await drained(browser.scan(logs.dead_letter_topic, logs.partitions - 1))

    assert len(everything) == 2 * logs.partitions
    assert [(record.partition, record.key, record.value, list(record.headers)) for record in of_last] == [
        (logs.partitions - 1, b"ada", b"1", [("usher-reason", b"rejected")]),
        (logs.partitions - 1, None, None, [("usher-state", b"replayed")]),
    ]


async def test_a_scan_ends_where_the_topic_ended(logs: Harness) -> None:
    """A scan brings the records of every partition from the beginning and ends, also where there are none."""
    async with logs.browser() as browser:
        await browser.create_topics()
        assert await drained(browser.scan(logs.topic)) == []
        for n in range(30):
            await browser.append(logs.topic, str(n).encode(), str(n).encode())
        records = await drained(browser.scan(logs.topic))

    assert sorted(int(record.value or b"") for record in records) == list(range(30))


async def test_a_browser_tells_which_topics_there_are(logs: Harness) -> None:
    """topics() names the source topic, our two and the receipts, besides the checkpoints; create_topics() creates what is missing, once."""
    async with logs.browser() as browser:
        await browser.create_topics()
        states = {state.topic: state for state in await browser.topics() if state.kind != "checkpoints"}
        assert await browser.create_topics() == []

    assert {topic: state.kind for topic, state in states.items()} == {
        logs.topic: "source",
        logs.retry_topic: "retry",
        logs.dead_letter_topic: "dlt",
        receipts_topic(logs.group): "receipts",
    }
    assert {state.partitions for state in states.values()} == {logs.partitions}
    assert states[logs.retry_topic].compacted is True


async def test_a_record_that_is_too_large_is_refused_and_the_next_is_not(logs: Harness) -> None:
    """A write that will never fit raises TooLarge, in every topic, and later writes are taken."""
    worker = await logs.worker()
    [claim, *_] = worker.claims

    with pytest.raises(TooLarge):
        await worker.log.append(logs.topic, b"ada", TOO_LARGE)
    with pytest.raises(TooLarge):
        await worker.log.park(claim, "a", TOO_LARGE, [])
    with pytest.raises(TooLarge):
        await worker.log.bury(claim, b"ada", TOO_LARGE, [])
    async with logs.browser() as browser:
        with pytest.raises(TooLarge):
            await browser.append(logs.topic, b"ada", TOO_LARGE)

    await worker.log.park(claim, "a", b"1", [])
    await worker.log.bury(claim, b"ada", b"1", [])
    await worker.log.append(logs.topic, b"ada", b"small")
    assert values(await worker.take(1)) == [b"small"]


async def test_history_is_what_lies_shortly_before_the_start(logs: Harness) -> None:
    """history() gives the records before the start that are younger than the window, counted from the one at the start."""
    worker = await logs.worker()
    topic_partition = await worker.log.append(logs.topic, b"ada", b"long ago")
    await logs.pass_time(2.5)
    for value in (b"1", b"2", b"3", b"at the start"):
        await worker.log.append(logs.topic, b"ada", value)
    start = (await worker.take(5))[4]
    await worker.log.commit({worker.held[topic_partition]: Position(start.offset)})
    await worker.log.close()

    later = await logs.worker("second")
    claim = later.held[topic_partition]

    assert values(await drained(later.log.history(claim, 2.0, 100))) == [b"1", b"2", b"3"]
    assert values(await drained(later.log.history(claim, 3_600.0, 100))) == [b"long ago", b"1", b"2", b"3"]
    assert values(await drained(later.log.history(claim, 3_600.0, 2))) == [b"2", b"3"]


async def test_history_counts_from_now_where_nothing_is_left_to_read(logs: Harness) -> None:
    """Without a record at the start the window ends now; before the first record there is no history."""
    first = await logs.worker()
    [claim, *_] = first.claims
    assert await drained(first.log.history(claim, 3_600.0, 100)) == []
    topic_partition = await first.log.append(logs.topic, b"ada", b"1")
    [record] = await first.take(1)
    await first.log.commit({first.held[topic_partition]: Position(record.offset + 1)})
    await first.log.close()

    second = await logs.worker("second")

    assert values(await drained(second.log.history(second.held[topic_partition], 3_600.0, 100))) == [b"1"]
    await logs.pass_time(0.5)
    assert await drained(second.log.history(second.held[topic_partition], 0.25, 100)) == []


async def test_ends_tells_the_offset_after_the_last_record(logs: Harness) -> None:
    """ends() moves with the appends: its difference to the position is what is left to read."""
    worker = await logs.worker()
    before = await worker.log.ends(worker.claims)
    assert {claim: before[claim] for claim in worker.claims} == {claim: claim.start for claim in worker.claims}

    topic_partition = await worker.log.append(logs.topic, b"ada", b"1")
    [record] = await worker.take(1)

    assert (await worker.log.ends(worker.claims))[worker.held[topic_partition]] == record.offset + 1


async def test_an_open_log_is_writable(logs: Harness) -> None:
    """A log that takes writes says so."""
    worker = await logs.worker()

    assert await worker.log.writable()


async def test_a_partition_moves_to_another_worker_with_its_place(logs: Harness) -> None:
    """Two workers share the partitions. The one that gives a partition up is asked first; the other starts where it stopped.

    What ended is refused for commits and reads nothing, yet may still park, unpark and bury.
    """
    if not logs.shares:
        pytest.skip("this log has one worker")
    first = await logs.worker("first")

    async def commit(claims: list[Claim]) -> None:
        await first.log.commit({claim: Position(claim.start, f"kept by {claim.partition}") for claim in claims})

    first.on_release = lambda claims: commit(list(claims))
    second = await logs.worker("second", claims=0)

    def shared() -> bool:
        return bool(first.held and second.held) and len(first.held) + len(second.held) == logs.partitions

    await asyncio.gather(first.until(shared), second.until(shared))
    for claim in second.claims:
        given, taken = ("first", "released", claim.topic_partition), ("second", "claimed", claim.topic_partition)
        assert logs.journal.index(given) < logs.journal.index(taken)
        assert claim.mark == f"kept by {claim.partition}"

    ended = next(claim for claim in first.ended if claim.topic_partition in second.held)
    with pytest.raises(ClaimLost):
        await first.log.commit({ended: Position(ended.start)})
    await first.log.park(ended, "late", b"1", [])
    await first.log.unpark(ended, "late")
    await first.log.bury(ended, None, b"late", [])
    async with parked(second, second.held[ended.topic_partition]) as stream:
        assert {record.key for record in await loaded(stream)} == {b"late"}

    async with logs.browser() as browser:
        await browser.append(logs.topic, None, b"1", partition=ended.partition)
    assert values(await second.take(1)) == [b"1"]
    assert not [batch for batch in await first.log.read([ended], 10, 0.01) if batch.records]

    await second.log.close()
    await first.until(lambda: len(first.held) == logs.partitions)


async def test_a_topic_is_read_from_an_offset_and_from_a_time(logs: Harness) -> None:
    """Only the partitions that are named; a time is found as the offset of its first record, or the end."""
    before: dict[int, int] = {}
    async with logs.browser() as browser:
        for number in range(3):
            await browser.append(logs.topic, b"k", b"%d" % number, partition=0)
        [_, second, third] = await drained(browser.scan(logs.topic, 0))
        await logs.pass_time(2.0)
        await browser.append(logs.topic, b"k", b"late", partition=0)
        later = await browser.offsets_since(logs.topic, third.timestamp / 1000 + 1)
        never = await browser.offsets_since(logs.topic, third.timestamp / 1000 + 1_000)
        always = await browser.offsets_since(logs.topic, 0.0)

        assert values(await drained(browser.scan(logs.topic, first={0: second.offset}))) == [b"1", b"2", b"late"]
        assert values(await drained(browser.scan(logs.topic, first={0: -5}))) == [b"0", b"1", b"2", b"late"]
        assert values(await drained(browser.scan(logs.topic, first=before))) == []
        assert values(await drained(browser.scan(logs.topic, first=later))) == [b"late"]
        assert values(await drained(browser.scan(logs.topic, first=never))) == []
        assert len(await drained(browser.scan(logs.topic, first=always))) == 4


async def test_the_topics_that_exist_are_known_by_name(logs: Harness) -> None:
    """Before a worker ran the source topic at least; after that our own as well."""
    async with logs.browser() as browser:
        assert logs.topic in await browser.existing()
    await logs.worker()
    async with logs.browser() as browser:
        assert {logs.topic, logs.retry_topic, logs.dead_letter_topic} <= set(await browser.existing())


async def test_single_records_are_read_and_counted(logs: Harness) -> None:
    """Those that are there; a place that no record has, or no partition, is left out."""
    async with logs.browser() as browser:
        for number in range(4):
            await browser.append(logs.topic, b"k", b"%d" % number, partition=0)
        records = await drained(browser.scan(logs.topic, 0))
        here = TopicPartition(logs.topic, 0)
        asked = [(here, records[2].offset), (here, records[0].offset), (here, records[-1].offset + 50)]

        found = await browser.records_at(asked)
        counted = await browser.count(here, records[1].offset, records[3].offset)

    assert {each.value for each in found} == {b"0", b"2"}
    assert counted == 2


# Receipts, and what a group notes about itself


async def receipts(logs: Harness, positions: Mapping[int, int] | None = None) -> list[Record]:
    async with logs.browser() as browser:
        return await drained(browser.receipts(positions or {}))


async def test_receipts_are_kept_and_read_by_position(logs: Harness) -> None:
    """What was filed is read from the beginning, from any position, and up to the end; each partition's bounds are as said."""
    worker = await logs.worker()
    for claim in worker.claims:
        await worker.log.file(claim, [f"{claim.partition}:{n}".encode() for n in range(4)])

    filed = await receipts(logs)
    async with logs.browser() as browser:
        state = await browser.receipts_state()
    assert state is not None
    by_partition = {at: [each for each in filed if each.partition == at] for at in state.partitions}

    assert {at: set(values(some)) for at, some in by_partition.items()} == {
        claim.partition: {f"{claim.partition}:{n}".encode() for n in range(4)} for claim in worker.claims
    }
    assert len(filed) == 4 * logs.partitions
    for at, some in by_partition.items():
        assert state.partitions[at] == (some[0].offset, some[-1].offset + 1)
        assert all(each.timestamp > 0 for each in some)
    later = {at: some[2].offset for at, some in by_partition.items()}
    assert values(await receipts(logs, later)) == [each.value for some in by_partition.values() for each in some[2:]]
    assert await receipts(logs, {at: end for at, (_, end) in state.partitions.items()}) == []


async def test_receipts_are_filed_after_the_claim_has_ended(logs: Harness) -> None:
    """A message was sent, whoever has the partition now."""
    first = await logs.worker()
    [claim, *_] = first.claims
    if logs.shares:
        second = await logs.worker("second", claims=1)
        await asyncio.gather(first.until(lambda: claim in first.ended), second.until(lambda: bool(second.held)))

    await first.log.file(claim, [b"late"])

    assert values(await receipts(logs)) == [b"late"]


async def test_a_receipt_that_is_too_large_is_refused_as_such(logs: Harness) -> None:
    """The others of the same call may be there or not; what comes next is taken."""
    worker = await logs.worker()
    [claim, *_] = worker.claims

    with pytest.raises(TooLarge):
        await worker.log.file(claim, [TOO_LARGE])
    await worker.log.file(claim, [b"next"])

    assert values(await receipts(logs)) == [b"next"]


async def test_a_log_without_receipts_has_none_to_read(logs: Harness) -> None:
    """Before any was filed there is nothing, and that is no error; also where no worker ever ran."""
    assert await receipts(logs) == []
    await logs.worker()
    assert await receipts(logs) == []


async def test_a_group_notes_where_it_began_to_read(logs: Harness) -> None:
    """The offset, the topic and the time of each partition's start are there for who asks later, and stay after a restart."""
    async with logs.browser() as browser:
        assert await browser.starts() == {}
    first = await logs.worker()
    began = {claim.topic_partition: (claim.topic_id, claim.start) for claim in first.claims}
    for claim in first.claims:
        await first.log.append(logs.topic, str(claim.partition).encode(), b"1")
    await first.log.close()
    async with logs.browser() as browser:
        starts = await browser.starts()
    assert {each: (start.topic_id, start.offset) for each, start in starts.items()} == began
    assert all(start.at > 1_600_000_000_000 for start in starts.values())

    second = await logs.worker("second")
    await second.log.commit({claim: Position(claim.start, "m") for claim in second.claims})
    await second.log.close()

    async with logs.browser() as browser:
        assert await browser.starts() == starts


async def test_a_group_has_one_key_for_addresses(logs: Harness) -> None:
    """It is made where there is none, and stays: workers that ask at once, later ones, and the command line get the same."""
    async with logs.browser() as browser:
        assert await browser.address_key() is None
    workers = [await logs.worker("first")]
    if logs.shares:
        workers += [await logs.worker("second", claims=0), await logs.worker("third", claims=0)]

    keys = await asyncio.gather(*(worker.log.address_key() for worker in workers))

    assert len(set(keys)) == 1
    assert len(keys[0]) == 32
    for worker in workers:
        await worker.log.close()
    later = await logs.worker("later")
    assert await later.log.address_key() == keys[0]
    async with logs.browser() as browser:
        assert await browser.address_key() == keys[0]
