"""The contract of the lease of a group, its checkpoints, and records since a moment, on every event log."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest
from aiokafka.admin import AIOKafkaAdminClient
from tests.contract.logs import PATIENCE, Harness, KafkaHarness, MemoryHarness, SqliteHarness, Worker, drained
from tests.kafka import Broker

from usher.eventlog.errors import LeaseLost, LogMisconfigured, TooLarge
from usher.eventlog.kafka import KafkaLog
from usher.eventlog.names import checkpoints_topic
from usher.eventlog.port import EventLog, Lease
from usher.kafka_options import kafka_options

FAST = kafka_options({"session_timeout_ms": 3_000, "heartbeat_interval_ms": 300, "metadata_max_age_ms": 500})
HARNESSES: dict[str, Callable[[pytest.FixtureRequest, Path], Harness]] = {
    "memory": lambda _request, _folder: MemoryHarness(),
    "sqlite": lambda _request, folder: SqliteHarness(folder / "usher.db"),
    "kafka": lambda request, _folder: FastKafkaHarness(request.getfixturevalue("kafka")),
}


class FastKafkaHarness(KafkaHarness):
    """Its workers are missed after three seconds."""

    options = FAST


@pytest.fixture(params=[pytest.param(name, marks=[pytest.mark.kafka] * (name == "kafka")) for name in HARNESSES])
async def logs(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Harness]:
    harness = HARNESSES[request.param](request, tmp_path)
    await harness.create()
    yield harness
    await harness.close()


async def another(logs: Harness, first: Worker) -> Worker:
    """Return another worker that may want the lease, where the group can have one."""
    return await logs.worker("another", claims=0) if logs.shares else first


class LeaseTask:
    """A task that waits for the lease of *log*, and has it until `stop`."""

    def __init__(self, log: EventLog) -> None:
        self._log = log
        self._lease: asyncio.Future[Lease] = asyncio.get_running_loop().create_future()
        self._stop = asyncio.Event()
        self._task = asyncio.create_task(self._have())

    async def _have(self) -> None:
        async with self._log.lease() as lease:
            self._lease.set_result(lease)
            await self._stop.wait()

    @property
    def waits(self) -> bool:
        return not self._lease.done()

    async def lease(self) -> Lease:
        async with asyncio.timeout(PATIENCE):
            return await asyncio.shield(self._lease)

    async def stop(self) -> None:
        self._stop.set()
        if self.waits:
            self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task


@contextlib.asynccontextmanager
async def leasing(log: EventLog) -> AsyncIterator[LeaseTask]:
    task = LeaseTask(log)
    try:
        yield task
    finally:
        await task.stop()


async def lost(lease: Lease) -> None:
    async with asyncio.timeout(PATIENCE):
        await lease.lost()


async def test_the_last_checkpoint_of_each_name_outlives_the_worker(logs: Harness) -> None:
    """A later worker finds what was last kept under each name, and nothing under others."""
    first = await logs.worker("first")
    async with first.log.lease() as lease:
        assert lease.checkpoint("audit") is None
        await lease.keep("audit", b"1")
        await lease.keep("audit", b"2")
        await lease.keep("empty", b"")
        assert lease.checkpoint("audit") == b"2"
    await first.log.close()

    second = await logs.worker("second")
    async with second.log.lease() as lease:
        assert (lease.checkpoint("audit"), lease.checkpoint("empty"), lease.checkpoint("other")) == (b"2", b"", None)


async def test_a_forged_checkpoint_ends_no_lease(logs: Harness) -> None:
    """A name that is no text, or a record of another group: the checkpoints that were kept are found all the same."""
    worker = await logs.worker("first")
    async with worker.log.lease() as lease:
        await lease.keep("audit", b"1")
    foreign = [("kafka_dlt-original-consumer-group", b"another")]
    async with logs.browser() as browser:
        await browser.append(checkpoints_topic(logs.config.group), b"\xff", b"2", partition=0)
        await browser.append(checkpoints_topic(logs.config.group), b"other", b"2", foreign, partition=0)

    async with worker.log.lease() as lease:
        assert (lease.checkpoint("audit"), lease.checkpoint("other")) == (b"1", None)


async def test_the_second_waits_until_the_first_leaves(logs: Harness) -> None:
    """While one has the lease no other gets it; once it leaves, the next has it, with the checkpoints of the first."""
    first = await logs.worker("first")
    second = await another(logs, first)
    async with leasing(first.log) as leased:
        lease = await leased.lease()
        async with leasing(second.log) as waiter:
            for n in range(20):  # a join takes effect within these
                await lease.keep("audit", str(n).encode())
                await asyncio.sleep(0.05)
            assert waiter.waits
            await leased.stop()
            taken = await waiter.lease()
            assert taken.checkpoint("audit") == b"19"
            await taken.keep("audit", b"20")


async def test_after_its_end_a_lease_keeps_nothing(logs: Harness) -> None:
    """After its block a lease is lost: lost() returns, keep() raises, and what it tried to keep is not there."""
    worker = await logs.worker()
    async with worker.log.lease() as lease:
        await lease.keep("audit", b"1")

    await lost(lease)
    with pytest.raises(LeaseLost, match="audit"):
        await lease.keep("audit", b"2")
    async with worker.log.lease() as again:
        assert again.checkpoint("audit") == b"1"


async def test_a_checkpoint_that_is_too_large_is_refused(logs: Harness) -> None:
    """The event log takes no checkpoint over its limit, and takes the next one as before."""
    worker = await logs.worker()
    async with worker.log.lease() as lease:
        with pytest.raises(TooLarge):
            await lease.keep("audit", b"x" * 1_048_600)
        await lease.keep("audit", b"1")
        assert lease.checkpoint("audit") == b"1"


async def test_since_brings_what_was_appended_from_a_moment_on(logs: Harness) -> None:
    """Exactly the records stamped at the moment or after it come, of all partitions, those of one in order."""
    worker = await logs.worker()
    for n in range(12):
        await worker.log.append(logs.topic, f"user-{n}".encode(), b"before")
    await logs.pass_time(0.25)
    await worker.log.append(logs.topic, b"ada", b"0")
    for n in range(1, 12):
        await worker.log.append(logs.topic, f"user-{n}".encode(), str(n).encode())
    everything = await drained(worker.log.since(logs.topic, 0.0))
    [moment] = [record.timestamp for record in everything if record.value == b"0"]

    records = await drained(worker.log.since(logs.topic, moment / 1_000))

    assert sorted(int(record.value or b"-1") for record in records) == list(range(12))
    assert len({record.partition for record in records}) == logs.partitions
    offsets = [(record.partition, record.offset) for record in records]
    assert [each for each in offsets if each[0] == 0] == sorted(each for each in offsets if each[0] == 0)
    assert len(everything) == 24


async def test_since_ends_where_there_is_nothing(logs: Harness) -> None:
    """Nothing comes of an empty topic, and nothing where all records are older."""
    worker = await logs.worker()
    assert await drained(worker.log.since(logs.topic, 0.0)) == []
    await worker.log.append(logs.topic, b"ada", b"1")
    [record] = await drained(worker.log.since(logs.topic, 0.0))
    assert await drained(worker.log.since(logs.topic, record.timestamp / 1_000 + 3_600)) == []


async def test_in_memory_an_evicted_lease_holder_can_keep_nothing() -> None:
    """Another has the lease at once; the evicted one gets to know that when it keeps a checkpoint."""
    logs = MemoryHarness()
    first = await logs.worker("first")
    second = await logs.worker("second", claims=0)
    async with leasing(first.log) as leased, leasing(second.log) as waiter:
        lease = await leased.lease()
        await lease.keep("audit", b"1")
        logs.broker.evict(first.log)  # type: ignore[arg-type]  # it is a MemoryLog
        assert (await waiter.lease()).checkpoint("audit") == b"1"
        with pytest.raises(LeaseLost):
            await lease.keep("audit", b"0")
        await lost(lease)
        assert (await waiter.lease()).checkpoint("audit") == b"1"
    await logs.close()


async def test_in_memory_a_worker_that_is_closed_has_lost_its_lease() -> None:
    """A worker that is closed inside its block leaves the lease to the next."""
    logs = MemoryHarness()
    first = await logs.worker("first")
    second = await logs.worker("second", claims=0)
    async with leasing(first.log) as leased, leasing(second.log) as waiter:
        lease = await leased.lease()
        await first.log.close()
        await lost(lease)
        await waiter.lease()
    await logs.close()


class Frozen:
    """A worker with the lease on an event loop of its own, which stands still from then on until it is thawed."""

    def __init__(self, logs: Harness) -> None:
        self._logs = logs
        self.has_it = threading.Event()
        self._thaw = threading.Event()
        self.outcome: list[str] = []
        self._thread = threading.Thread(target=lambda: asyncio.run(self._live()))
        self._thread.start()

    async def _live(self) -> None:
        worker = Worker(self._logs.log(), "frozen", [])
        await worker.log.open(worker)
        async with worker.log.lease() as lease:
            await lease.keep("audit", b"1")
            self.has_it.set()
            self._thaw.wait(PATIENCE)
            try:
                await lease.keep("audit", b"late")
                self.outcome.append("kept")
            except LeaseLost:
                self.outcome.append("refused")
            async with asyncio.timeout(1):
                await lease.lost()
                self.outcome.append("lost")
        await worker.log.close()

    def thaw(self) -> None:
        """Let it go on, to its end."""
        self._thaw.set()
        self._thread.join(PATIENCE)


@pytest.fixture
async def fast(kafka: Broker) -> AsyncIterator[FastKafkaHarness]:
    harness = FastKafkaHarness(kafka)
    await harness.create()
    yield harness
    await harness.close()


@pytest.fixture
def frozen(fast: FastKafkaHarness) -> Iterator[Frozen]:
    worker = Frozen(fast)
    yield worker
    worker.thaw()


async def test_on_kafka_a_frozen_lease_holder_is_replaced_and_refused_when_it_thaws(
    fast: FastKafkaHarness, frozen: Frozen
) -> None:
    """A worker that does not answer within its session loses the lease; when it thaws, keep is refused and lost() returns at once."""
    assert await asyncio.to_thread(frozen.has_it.wait, PATIENCE)
    second = await fast.worker("second", claims=0)
    async with leasing(second.log) as waiter:
        taken = await waiter.lease()
        assert taken.checkpoint("audit") == b"1"
        await asyncio.to_thread(frozen.thaw)
        assert frozen.outcome == ["refused", "lost"]
        await taken.keep("audit", b"2")
    async with second.log.lease() as lease:
        assert lease.checkpoint("audit") == b"2"


async def test_on_kafka_workers_that_come_and_go_do_not_disturb_the_lease_holder(fast: FastKafkaHarness) -> None:
    """Workers join and leave beside it, and the lease holder has the lease all the time."""
    first = await fast.worker("first")
    others = [await fast.worker(f"other-{n}", claims=0) for n in range(3)]
    async with leasing(first.log) as leased:
        lease = await leased.lease()
        losing = asyncio.create_task(lease.lost())
        for n in range(2):
            async with contextlib.AsyncExitStack() as waiters:
                waiting = [await waiters.enter_async_context(leasing(other.log)) for other in others]
                for _ in range(30):
                    await lease.keep("audit", str(n).encode())
                    await asyncio.sleep(0.05)
                assert [waiter.waits for waiter in waiting] == [True] * 3
        assert not losing.done()
        losing.cancel()


async def test_on_kafka_of_many_that_come_at_once_one_has_the_lease(fast: FastKafkaHarness) -> None:
    """Workers that ask at the same moment, and leave as soon as they have it, have it one after the other."""
    workers = [await fast.worker("first")] + [await fast.worker(f"other-{n}", claims=0) for n in range(4)]
    having = 0

    async def once(log: EventLog) -> None:
        nonlocal having
        async with log.lease() as lease:
            having += 1
            assert having == 1
            await lease.keep("count", str(int(lease.checkpoint("count") or b"0") + 1).encode())
            having -= 1

    async with asyncio.timeout(PATIENCE):
        await asyncio.gather(*(once(worker.log) for worker in workers))
    async with workers[0].log.lease() as lease:
        assert lease.checkpoint("count") == b"5"


async def test_on_kafka_the_lease_outlasts_its_session(fast: FastKafkaHarness) -> None:
    """A lease holder that keeps nothing for longer than its session still has the lease."""
    first = await fast.worker("first")
    async with leasing(first.log) as leased:
        lease = await leased.lease()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(5):
                await lease.lost()
        await lease.keep("audit", b"1")


async def test_on_kafka_a_lease_holder_without_its_broker_loses_the_lease_and_gets_it_again(own_kafka: Broker) -> None:
    """A lease that can't be confirmed is lost within the session; once the broker is back it comes again, with its checkpoints."""
    logs = FastKafkaHarness(own_kafka)
    await logs.create()
    worker = await logs.worker()
    async with leasing(worker.log) as leased:
        lease = await leased.lease()
        await lease.keep("audit", b"1")
        own_kafka.kill()
        await lost(lease)
        with pytest.raises(LeaseLost):
            await lease.keep("audit", b"2")
    async with leasing(worker.log) as leased:
        await asyncio.to_thread(own_kafka.start)
        assert (await leased.lease()).checkpoint("audit") == b"1"
    await logs.close()


async def test_on_kafka_the_topic_of_checkpoints_is_made_at_the_start(fast: FastKafkaHarness) -> None:
    """Every group has it: one partition, compacted."""
    await fast.worker()
    async with fast.broker.admin() as admin:
        assert await partitions(admin, checkpoints_topic(fast.group)) == 1


async def partitions(admin: AIOKafkaAdminClient, topic: str) -> int:
    [described] = await admin.describe_topics([topic])
    return len(described["partitions"])


async def test_on_kafka_checkpoints_that_would_be_deleted_by_age_are_refused(fast: FastKafkaHarness) -> None:
    """A topic of that name that is not compacted is an error that says the command."""
    await fast.broker.create_topic(checkpoints_topic(fast.group), 1, cleanup_policy="delete")
    with pytest.raises(
        LogMisconfigured,
        match=f"{checkpoints_topic(fast.group)} does not fit: not compacted.*kafka-configs.sh .*compact",
    ):
        await fast.worker()


async def test_on_kafka_an_event_log_that_is_not_open_has_no_lease(fast: FastKafkaHarness) -> None:
    """To wait for the lease of an event log that was never opened would be for ever: it is an error."""
    log = KafkaLog(fast.broker.address, fast.config)
    with pytest.raises(Exception, match="not open"):
        async with log.lease():
            pytest.fail("it was granted")
