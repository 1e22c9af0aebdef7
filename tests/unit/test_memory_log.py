"""The faults of the in-memory log: each does what a real log may do, when a test asks for it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence

import pytest
from tests.contract.logs import Worker, drained, following, loaded, parked
from tests.fakes.memory_log import MemoryBroker, MemoryBrowser, MemoryLog

from usher.eventlog.errors import ClaimLost, LogUnavailable, TooLarge
from usher.eventlog.names import retry_topic
from usher.eventlog.port import Claim, LogConfig, Position
from usher.testing.clock import Clock

TOPIC = "identity.events"
CONFIG = LogConfig(group="usher", topics=(TOPIC,), start_from="earliest")
RETRY = retry_topic("usher", TOPIC)

pytestmark = pytest.mark.jumping


@pytest.fixture
def broker() -> MemoryBroker:
    return MemoryBroker(partitions=2, clock=Clock(1_700_000_000.0))


@pytest.fixture
async def worker(broker: MemoryBroker) -> AsyncIterator[Worker]:
    worker = await started(broker, "first")
    yield worker
    await worker.log.close()


async def started(broker: MemoryBroker, name: str) -> Worker:
    worker = Worker(MemoryLog(CONFIG, broker), name, [])
    await worker.log.open(worker)
    await worker.until(lambda: bool(worker.held))
    return worker


async def dumped(broker: MemoryBroker, topic: str) -> list[bytes | None]:
    return [record.value for record in await drained(MemoryBrowser(CONFIG, broker).scan(topic))]


async def test_an_unavailable_broker_refuses_writes_and_shows_nothing(broker: MemoryBroker, worker: Worker) -> None:
    """Writes and commits raise, reads bring nothing, the parked stream waits; afterwards all go on where they were."""
    claim = worker.claims[0]
    await worker.log.append(TOPIC, b"ada", b"1")
    async with parked(worker, claim) as stream:
        assert await loaded(stream) == []
        broker.unavailable = True

        with pytest.raises(LogUnavailable):
            await worker.log.append(TOPIC, b"ada", b"2")
        with pytest.raises(LogUnavailable):
            await worker.log.commit({claim: Position(claim.start)})
        assert not await worker.log.read(worker.claims, 10, 0.0)
        assert not await worker.log.writable()

        added = asyncio.create_task(following(stream, 1))
        broker.unavailable = False
        await worker.log.park(claim, "a", b"1", [])
        assert [record.key for record in await added] == [b"a"]
    assert [record.value for record in await worker.take(1)] == [b"1"]


async def test_writes_that_fail_on_request_do_not_happen(broker: MemoryBroker, worker: Worker) -> None:
    """The next writes raise what was asked for, the one after them is taken."""
    broker.fail_next(2, LogUnavailable("no leader"))

    for _ in range(2):
        with pytest.raises(LogUnavailable, match="no leader"):
            await worker.log.append(TOPIC, b"ada", b"lost")
    await worker.log.append(TOPIC, b"ada", b"kept")

    assert await dumped(broker, TOPIC) == [b"kept"]


async def test_a_write_that_raised_may_land_later(broker: MemoryBroker, worker: Worker) -> None:
    """A write that was refused happens nevertheless, behind the one that was made after it."""
    broker.fail_next(1, LogUnavailable("timed out"), lands_after=0.0)

    with pytest.raises(LogUnavailable):
        await worker.log.append(TOPIC, b"ada", b"late")
    await worker.take(1)

    assert await dumped(broker, TOPIC) == [b"late"]


async def test_a_cancelled_write_may_land_later(broker: MemoryBroker, worker: Worker) -> None:
    """A write whose waiter was cancelled lands after the time that the test gives, or never."""
    for lands_after in (None, 0.0):
        broker.lands_after_cancel = lambda after=lands_after: after  # type: ignore[misc]
        writing = asyncio.create_task(worker.log.append(TOPIC, b"ada", str(lands_after).encode()))
        await asyncio.sleep(0)
        writing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await writing
    await worker.take(1)

    assert await dumped(broker, TOPIC) == [b"0.0"]


async def test_writes_in_flight_together_land_in_any_order(broker: MemoryBroker, worker: Worker) -> None:
    """A write with the longer latency is overtaken."""
    latencies = iter([0.01, 0.0])
    broker.latency = lambda: next(latencies)

    await asyncio.gather(worker.log.append(TOPIC, b"ada", b"slow"), worker.log.append(TOPIC, b"ada", b"quick"))

    assert await dumped(broker, TOPIC) == [b"quick", b"slow"]


async def test_the_size_limit_is_the_brokers(worker: Worker) -> None:
    """A record over max_bytes is TooLarge."""
    log = MemoryLog(CONFIG, MemoryBroker(max_bytes=100))

    with pytest.raises(TooLarge):
        await log.append(TOPIC, None, b"x" * 101)
    await log.append(TOPIC, None, b"x" * 100)


async def test_an_evicted_worker_does_not_know(broker: MemoryBroker, worker: Worker) -> None:
    """A zombie gets no call, still reads, may still park, and learns it by ClaimLost; the other worker has everything."""
    other = await started(broker, "other")
    await worker.until(lambda: len(worker.held) == len(other.held) == 1)
    [claim] = worker.claims
    async with MemoryBrowser(CONFIG, broker) as browser:
        await browser.append(TOPIC, None, b"1", partition=claim.partition)

    released = list(worker.ended)
    assert isinstance(worker.log, MemoryLog)
    broker.evict(worker.log)
    await other.until(lambda: len(other.held) == 2)

    assert worker.ended == released
    assert [record.value for record in await worker.take(1, [claim])] == [b"1"]
    await worker.log.park(claim, "a", b"1", [])
    with pytest.raises(ClaimLost):
        await worker.log.commit({claim: Position(claim.start + 1)})
    assert other.held[claim.topic_partition].start == claim.start

    await broker.readmit(worker.log)
    assert worker.ended[-1] is claim
    await worker.until(lambda: len(worker.held) == len(other.held) == 1)
    await other.log.close()


async def test_a_budget_ends_what_drains_too_long(broker: MemoryBroker) -> None:
    """A worker that does not return from released loses its claims when the budget is used up."""
    slow = Worker(MemoryLog(LogConfig("usher", (TOPIC,), "earliest", drain=0.01), broker), "slow", [])
    await slow.log.open(slow)
    await slow.until(lambda: len(slow.held) == 2)
    [old, _] = slow.claims

    async def never(claims: Sequence[Claim]) -> None:
        await asyncio.Event().wait()

    slow.on_release = never
    other = await started(broker, "other")

    with pytest.raises(ClaimLost):
        await slow.log.commit({old: Position(old.start)})
    for one in (slow, other):
        await one.log.close()


async def test_what_an_owner_raises_is_not_swallowed(broker: MemoryBroker) -> None:
    """An error in claimed or released comes out of the next read."""

    class Broken:
        async def claimed(self, claims: Sequence[Claim]) -> None:
            raise RuntimeError("a bug")

        async def remade(self, claims: Sequence[Claim]) -> None: ...

        async def released(self, claims: Sequence[Claim]) -> None: ...

    log = MemoryLog(CONFIG, broker)
    await log.open(Broken())

    with pytest.raises(RuntimeError, match="a bug"):
        await log.read((), 1, 60.0)


async def test_compaction_keeps_the_last_of_each_key(broker: MemoryBroker, worker: Worker) -> None:
    """After a compaction offsets have gaps, tombstones stay, and the parked stream is as true as before."""
    claim = worker.claims[0]
    for value in (b"1", b"2"):
        await worker.log.park(claim, "a", value, [])
    await worker.log.park(claim, "b", b"3", [])
    await worker.log.unpark(claim, "b")

    broker.compact(RETRY)

    async with parked(worker, claim) as stream:
        records = await loaded(stream)
    assert [(record.key, record.value, record.offset) for record in records] == [(b"a", b"2", 1), (b"b", None, 3)]


async def test_timestamps_come_from_the_clock(worker: Worker) -> None:
    """Records carry the time of the injected clock, in milliseconds."""
    await worker.log.append(TOPIC, b"ada", b"1")

    assert [record.timestamp for record in await worker.take(1)] == [1_700_000_000_000]


@pytest.mark.parametrize(
    ("start_from", "read"), [("latest", [b"new"]), ("earliest", [b"old", b"new"]), (1_700_000_050.0, [b"new"])]
)
async def test_a_new_group_starts_where_start_from_says(start_from: str | float, read: list[bytes]) -> None:
    """latest, earliest or a time: the records from there on are read."""
    clock = Clock(1_700_000_000.0)
    broker = MemoryBroker(clock=clock)
    browser = MemoryBrowser(CONFIG, broker)
    await browser.append(TOPIC, None, b"old")
    worker = Worker(MemoryLog(LogConfig("usher", (TOPIC,), start_from), broker), "worker", [])
    await worker.log.open(worker)
    clock.advance("1m")
    await browser.append(TOPIC, None, b"new")
    await worker.until(lambda: bool(worker.held))

    assert [record.value for record in await worker.take(len(read))] == read
    await worker.log.close()
