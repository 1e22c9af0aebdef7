"""The pollers on the log in memory, under a clock that does not wait: nothing lost, nothing twice, whatever goes wrong."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import random
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

import pytest
import structlog
from structlog.testing import LogCapture
from tests.fakes.memory_log import MemoryBroker, MemoryLog
from tests.simulation.loop import Process, SimulatedLoop

from usher.eventlog.errors import LogUnavailable
from usher.eventlog.port import Claim, LogConfig, TopicPartition
from usher.metrics import Metrics
from usher.outcome import Hold, Outcome, Reject, Retry, Skip
from usher.systems.decode import decode
from usher.systems.feed import Feed, FeedPage
from usher.systems.poll import KnownEvents, Pollers
from usher.systems.source import Arrival
from usher.testing import raw_event

TOPIC = "identity.events"
CONFIG = LogConfig(group="usher", topics=(TOPIC,), start_from="earliest")
EPOCH = 1_767_600_000.0


class Nobody:
    """An owner that reads nothing."""

    async def claimed(self, claims: Sequence[Claim]) -> None: ...
    async def remade(self, claims: Sequence[Claim]) -> None: ...

    async def released(self, claims: Sequence[Claim]) -> None: ...


class Book:
    """An identity system's log, read two entries at a time; each page begins two entries before its position."""

    def __init__(self, name: str = "book", every: float = 10.0) -> None:
        self.name, self.every = name, every
        self.entries: list[tuple[float, Arrival]] = []
        self.trouble: list[BaseException] = []
        self.asked: list[float] = []
        self.closed = 0

    def write(self, id_: str, **details: Any) -> bytes:
        """Let something happen now; the bytes that a webhook would send."""
        now = EPOCH + asyncio.get_running_loop().time()
        value = raw_event(id=id_, user_id=details.pop("user_id", id_), timestamp=now, **details)
        self.entries.append((now, Arrival(decode(value), value)))
        return value

    async def page(self, cursor: bytes | None) -> FeedPage:
        self.asked.append(asyncio.get_running_loop().time())
        await asyncio.sleep(0.01)
        if self.trouble:
            raise self.trouble.pop(0)
        if cursor is None:
            return FeedPage((), f"{len(self.entries)} {len(self.entries)}".encode())
        begin, at = (int(part) for part in cursor.split())
        start = max(begin, at - 2)
        found = self.entries[start : at + 2]
        end = start + len(found)
        return FeedPage([arrival for _, arrival in found], f"{begin} {end}".encode(), end < len(self.entries))

    def since(self, cursor: bytes) -> float:
        begin, at = (int(part) for part in cursor.split())
        start = max(begin, at - 2)
        return self.entries[start][0] if start < len(self.entries) else EPOCH + asyncio.get_running_loop().time()

    async def close(self) -> None:
        self.closed += 1
        raise RuntimeError("closing fails, and nobody minds")


class World:
    """A broker, and workers that poll."""

    def __init__(self, loop: SimulatedLoop, partitions: int = 2) -> None:
        self.loop = loop
        self.broker = MemoryBroker(partitions=partitions, clock=self.now)
        self.lines = LogCapture()
        self.metrics = Metrics()
        self.processes: list[Process] = []

    def now(self) -> float:
        return EPOCH + self.loop.time()

    async def worker(self, *feeds: Feed) -> tuple[Process, MemoryLog, asyncio.Task[None]]:
        log = MemoryLog(CONFIG, self.broker)
        await log.open(Nobody())
        logger = structlog.wrap_logger(
            None, processors=[self.lines], wrapper_class=structlog.make_filtering_bound_logger(0)
        )
        pollers = Pollers(log, TOPIC, feeds, metrics=self.metrics, logger=logger, rng=random.Random(1), now=self.now)
        process = Process(f"worker{len(self.processes)}")
        self.processes.append(process)
        return process, log, self.loop.spawn(process, pollers.run())

    def stored(self) -> list[str]:
        """The ids in the topic, in the order of arrival."""
        records = [record for log in self.broker.topic(TOPIC) for record in log.records]
        return [decode(record.value or b"").id for record in sorted(records, key=lambda record: record.timestamp)]

    def said(self, event: str) -> list[dict[str, Any]]:
        return [dict(line) for line in self.lines.entries if line["event"] == event]

    def counted(self, feed: str, outcome: str) -> float:
        return self.metrics.registry.get_sample_value("usher_polled_total", {"feed": feed, "outcome": outcome}) or 0.0


def play(story: Callable[[World], Coroutine[Any, Any, None]], seed: int = 7, partitions: int = 2) -> World:
    """Play *story* on a loop of its own; what is left running when it ends is buried."""
    loop = SimulatedLoop(random.Random(seed))
    asyncio.set_event_loop(loop)
    world = World(loop, partitions)
    try:
        loop.run_until_complete(asyncio.wait_for(story(world), 100_000))
    finally:
        for process in world.processes:
            process.dead = True
        for left in asyncio.all_tasks(loop):
            left._log_destroy_pending = False  # type: ignore[attr-defined]
            with contextlib.suppress(BaseException):
                left.get_coro().close()
        asyncio.set_event_loop(None)
        loop.close()
    return world


def test_what_happens_is_brought_once_and_in_order() -> None:
    """Pages overlap, and yet each entry is appended once; what happened before the first look is not brought."""

    async def story(world: World) -> None:
        book = Book()
        book.write("old")
        await world.worker(book)
        await asyncio.sleep(1)
        for number in range(7):
            book.write(f"e{number}")
            await asyncio.sleep(3)
        await asyncio.sleep(60)

    world = play(story)

    assert world.stored() == [f"e{number}" for number in range(7)]
    assert world.counted("book", "stored") == 7
    assert world.counted("book", "known") > 0
    assert [line["feeds"] for line in world.said("polling")] == [["book"]]


def test_a_backlog_is_read_without_pauses() -> None:
    """While there is more, pages follow each other at once."""

    async def story(world: World) -> None:
        book = Book(every=3600)
        _, _, polling = await world.worker(book)
        await asyncio.sleep(1)
        for number in range(20):
            book.write(f"e{number:02}")
        await asyncio.sleep(3700)
        polling.cancel()

    assert play(story).stored() == [f"e{number:02}" for number in range(20)]


@pytest.mark.heavy
def test_a_long_backlog_does_not_have_the_topic_read_for_each_page() -> None:
    """A look holds for some seconds: a thousand pages must not mean a thousand times all that they brought."""
    looks = 0

    async def story(world: World) -> None:
        book = Book(every=3600)
        _, log, _ = await world.worker(book)
        since = log.since

        async def counted(topic: str, moment: float) -> Any:
            nonlocal looks
            looks += 1
            async for records in since(topic, moment):
                yield records

        log.since = counted  # type: ignore[method-assign]
        await asyncio.sleep(1)
        for number in range(2000):
            book.write(f"e{number:04}")
        await asyncio.sleep(3700)

    assert play(story).stored() == [f"e{number:04}" for number in range(2000)]
    assert looks < 10


@pytest.mark.parametrize("seed", range(25))
def test_a_worker_killed_at_any_moment_loses_nothing_and_doubles_nothing(seed: int) -> None:
    """Its successor reads the page again: what was appended before the position was kept is known by its id."""

    async def story(world: World) -> None:
        rng = random.Random(seed)
        world.broker.latency = lambda: rng.uniform(0, 0.3)
        book = Book(every=1)
        for number in range(30):
            if number % 6 == 0:
                process, log, _ = await world.worker(book)
                await asyncio.sleep(rng.uniform(0.5, 5) if number == 0 else 0)
            book.write(f"e{number:02}")
            await asyncio.sleep(rng.uniform(0, 1))
            if number % 6 == 5:
                process.dead = True
                await asyncio.sleep(1)  # its connection breaks, and what it had sent has landed or not
                world.broker.evict(log)
        await world.worker(book)
        await asyncio.sleep(60)

    world = play(story, seed)

    assert sorted(world.stored()) == [f"e{number:02}" for number in range(30)]


def test_killed_between_the_append_and_the_keeping_of_the_position() -> None:
    """The very moment at which the log has more than the note says."""

    async def story(world: World) -> None:
        book = Book()
        process, log, _ = await world.worker(book)
        await asyncio.sleep(1)
        write = world.broker.write

        async def write_and_die(topic_partition: TopicPartition, *rest: Any) -> None:
            await write(topic_partition, *rest)
            if topic_partition.topic == TOPIC:
                process.dead = True

        world.broker.write = write_and_die  # type: ignore[method-assign, assignment]
        book.write("e1")
        await asyncio.sleep(30)
        assert process.dead
        world.broker.write = write  # type: ignore[method-assign]
        world.broker.evict(log)
        await world.worker(book)
        book.write("e2")
        await asyncio.sleep(30)

    assert play(story).stored() == ["e1", "e2"]


def test_a_restart_appends_nothing_again() -> None:
    """What the first run brought is known to the second, which holds nothing of it in memory."""

    async def story(world: World) -> None:
        book = Book()
        _, log, polling = await world.worker(book)
        await asyncio.sleep(1)
        for number in range(4):
            book.write(f"e{number}")
        await asyncio.sleep(30)
        polling.cancel()
        await asyncio.wait([polling])
        await log.close()
        await world.worker(book)
        await asyncio.sleep(30)

    assert play(story).stored() == ["e0", "e1", "e2", "e3"]


def test_what_happened_while_no_worker_was_there_is_brought() -> None:
    """The position is the group's: a start after a pause continues from it."""

    async def story(world: World) -> None:
        book = Book()
        _, log, polling = await world.worker(book)
        await asyncio.sleep(1)
        polling.cancel()
        await asyncio.wait([polling])
        await log.close()
        book.write("missed")
        await asyncio.sleep(86_400)
        await world.worker(book)
        await asyncio.sleep(30)

    assert play(story).stored() == ["missed"]


def test_only_one_worker_polls_and_the_next_goes_on_where_it_was() -> None:
    """The second waits; when the first has lost its lease and learns of it, it stops, and nothing is there twice."""

    async def story(world: World) -> None:
        one, two = Book(), Book()
        two.entries = one.entries
        _, log, _ = await world.worker(one)
        await asyncio.sleep(1)
        await world.worker(two)
        one.write("e1")
        await asyncio.sleep(30)
        assert two.asked == []
        world.broker.evict(log)
        await asyncio.sleep(5)
        one.write("e2")
        await asyncio.sleep(60)
        asked = len(one.asked)
        one.write("e3")
        await asyncio.sleep(60)
        assert len(one.asked) == asked
        assert one.closed == 1

    world = play(story)

    assert len(world.said("polling has passed to another worker")) == 1
    assert world.said("polling can't begin, trying again") == []
    assert world.said("polling failed, trying again") == []
    assert set(world.stored()) == {"e1", "e2", "e3"}
    assert (
        len(world.stored()) <= 4
    )  # e2 may be there twice: two believed to have the lease; the engine knows it by its id


def test_a_worker_that_hears_of_its_loss_stops_at_once() -> None:
    """It has nothing to keep, and stops asking all the same; what it held open is closed."""

    async def story(world: World) -> None:
        one, two = Book(), Book()
        _, log, _ = await world.worker(one)
        await asyncio.sleep(15)
        await world.worker(two)
        world.broker.evict(log)
        await world.broker.readmit(log)
        await asyncio.sleep(1)
        asked = len(one.asked)
        await asyncio.sleep(600)
        assert (len(one.asked), one.closed) == (asked, 1)
        assert len(two.asked) > 10

    assert len(play(story).said("polling has passed to another worker")) == 1


@pytest.mark.parametrize("lands_after", [None, 0.5])
def test_a_log_that_fails_is_tried_again(lands_after: float | None) -> None:
    """A write that raised may still land: it is looked for before it is made again."""

    async def story(world: World) -> None:
        book = Book(every=1)
        await world.worker(book)
        await asyncio.sleep(1)
        book.write("e1")
        book.write("e2")
        world.broker.fail_next(1, LogUnavailable("no broker"), lands_after=lands_after)
        await asyncio.sleep(120)

    world = play(story)

    assert sorted(world.stored()) == ["e1", "e2"]
    [line] = world.said("polling failed, trying again")
    assert (line["feed"], line["error"], line["log_level"]) == ("book", "no broker", "warning")


def test_a_position_that_cannot_be_kept_holds_up_no_other_feed() -> None:
    """The note's write fails: the page is read again and known, other feeds have not noticed, and nobody begins anew."""

    async def story(world: World) -> None:
        book, other = Book(), Book("other")
        await world.worker(book, other)
        await asyncio.sleep(1)
        write = world.broker.write
        failures = [LogUnavailable("no broker")]

        async def fail_once(topic_partition: TopicPartition, *rest: Any) -> None:
            if topic_partition.topic != TOPIC and failures:
                raise failures.pop()
            await write(topic_partition, *rest)

        world.broker.write = fail_once  # type: ignore[method-assign, assignment]
        book.write("e1")
        await asyncio.sleep(120)
        assert not failures
        other.write("o1")
        await asyncio.sleep(60)

    world = play(story)

    assert world.stored() == ["e1", "o1"]
    assert len(world.said("polling")) == 1


def test_a_log_that_is_away_altogether_is_waited_for() -> None:
    """Nothing is lost by an hour without a log."""

    async def story(world: World) -> None:
        book = Book()
        await world.worker(book)
        await asyncio.sleep(1)
        world.broker.unavailable = True
        book.write("e1")
        await asyncio.sleep(3600)
        world.broker.unavailable = False
        await asyncio.sleep(600)

    assert play(story).stored() == ["e1"]


def test_the_wait_that_is_asked_for_is_obeyed_and_else_it_grows() -> None:
    """`Retry` and `Hold` say when; without a wait each failure doubles it, up to five minutes and a fifth."""
    waits: list[float] = []

    async def story(world: World) -> None:
        book = Book(every=1)
        await world.worker(book)
        await asyncio.sleep(0.5)
        book.trouble = [Retry("busy", after=77), Hold("refused", after=600), *(Retry("down") for _ in range(12))]
        book.asked.clear()
        await asyncio.sleep(6000)
        waits.extend(later - earlier for earlier, later in itertools.pairwise(book.asked))

    play(story)

    assert 77 <= waits[0] < 78
    assert 600 <= waits[1] < 601
    assert all(earlier < later * 1.2 for earlier, later in itertools.pairwise(waits[2:11]))
    assert 300 <= max(waits[2:14]) <= 361
    assert waits[14] < 2


@pytest.mark.parametrize(
    "trouble", [Skip("odd"), Retry("busy", after=5), Hold("paused", after=5), KeyError("ada@example.com")]
)
def test_no_other_failure_loses_the_position(trouble: BaseException) -> None:
    """Also what a feed should not raise: it is tried again from where it was."""

    async def story(world: World) -> None:
        book = Book()
        await world.worker(book)
        await asyncio.sleep(1)
        book.trouble = [trouble]
        book.write("e1")
        await asyncio.sleep(300)

    world = play(story)

    assert world.stored() == ["e1"]
    [line] = world.said("polling failed, trying again")
    assert line["error"] == (trouble.reason if isinstance(trouble, Outcome) else "KeyError")
    assert world.said("polling has lost its position, and continues from now") == []


def test_a_position_of_no_use_is_given_up_and_logged() -> None:
    """Polling continues from now: what lies before is not brought, and a line says so."""

    async def story(world: World) -> None:
        book = Book()
        await world.worker(book)
        await asyncio.sleep(1)
        book.trouble = [Reject("the position is too old")]
        book.write("e1")
        await asyncio.sleep(100)
        book.write("e2")
        await asyncio.sleep(100)

    world = play(story)

    assert world.stored() == ["e2"]
    [line] = world.said("polling has lost its position, and continues from now")
    assert (line["feed"], line["error"]) == ("book", "the position is too old")


def test_a_feed_that_never_works_holds_up_no_other() -> None:
    """Each feed fails for itself."""

    async def story(world: World) -> None:
        bad, good = Book("bad"), Book("good")
        bad.trouble = [ValueError("broken") for _ in range(1000)]
        await world.worker(bad, good)
        await asyncio.sleep(1)
        good.write("e1")
        await asyncio.sleep(100)

    world = play(story)

    assert world.stored() == ["e1"]
    assert world.counted("bad", "failed") > 2
    assert world.counted("good", "failed") == 0


def test_what_a_webhook_brought_is_not_brought_again() -> None:
    """The id decides, no matter what else differs between the two."""

    async def story(world: World) -> None:
        book = Book()
        _, log, _ = await world.worker(book)
        await asyncio.sleep(1)
        await log.append(TOPIC, b"e1", book.write("e1"))
        book.write("e2")
        await asyncio.sleep(30)

    world = play(story)

    assert world.stored() == ["e1", "e2"]
    assert world.counted("book", "stored") == 1


def test_webhook_and_poller_in_one_moment_meet_in_one_partition() -> None:
    """Between the look and the append the webhook may come first: both are there, where the engine knows the second by its id."""

    async def story(world: World) -> None:
        book = Book()
        _, log, _ = await world.worker(book)
        await asyncio.sleep(1)
        since, heard = log.since, False

        async def look_then_webhook(topic: str, moment: float) -> Any:
            nonlocal heard
            async for records in since(topic, moment):
                yield records
            if not heard:
                heard = True
                world.broker.put(TopicPartition(TOPIC, world.broker.partition_of(b"ann")), b"ann", value)

        log.since = look_then_webhook  # type: ignore[method-assign]
        value = book.write("e1", user_id="ann")
        await asyncio.sleep(30)

    world = play(story, partitions=5)

    assert world.stored() == ["e1", "e1"]
    assert sorted(len(log.records) for log in world.broker.topic(TOPIC)) == [0, 0, 0, 0, 2]


def test_an_event_that_the_log_never_takes_becomes_a_stub() -> None:
    """It would hold up all that follow for ever; the stub ends as a dead letter, and holds nothing of it."""

    async def story(world: World) -> None:
        world.broker.max_bytes = 2_000
        book = Book()
        await world.worker(book)
        await asyncio.sleep(1)
        book.write("big", payload={"note": "ada@example.com" * 500})
        book.write("e2")
        await asyncio.sleep(60)

    world = play(story)

    values = [record.value or b"" for log in world.broker.topic(TOPIC) for record in log.records]
    [stub] = [value for value in values if b"undecodable" in value]
    assert b"event big" in stub
    assert b"ada@" not in stub
    assert len(values) == 2
    assert world.counted("book", "undecodable") == 1
    assert world.said("polling failed, trying again") == []


def test_a_lease_that_cannot_be_had_is_logged_more_and_more_seldom() -> None:
    """A topic of the notes that can't be had is one line a minute in the end, not one every few seconds."""

    async def story(world: World) -> None:
        log = MemoryLog(CONFIG, world.broker)

        @contextlib.asynccontextmanager
        async def refused() -> Any:
            raise LogUnavailable("usher.checkpoints is missing")
            yield

        log.lease = refused  # type: ignore[method-assign]
        logger = structlog.wrap_logger(
            None, processors=[world.lines], wrapper_class=structlog.make_filtering_bound_logger(0)
        )
        pollers = Pollers(log, TOPIC, [], metrics=world.metrics, logger=logger, rng=random.Random(1), now=world.now)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(pollers.run(), 3600)

    lines = play(story).said("polling can't begin, trying again")

    assert 60 <= len(lines) < 70
    assert lines[0]["error"] == "usher.checkpoints is missing"


async def test_a_record_from_the_future_hides_nothing() -> None:
    """A producer whose clock is ahead does not keep what comes after it from being known."""
    now = EPOCH
    broker = MemoryBroker(clock=lambda: now)
    log, known = MemoryLog(CONFIG, broker), KnownEvents(MemoryLog(CONFIG, broker), TOPIC, lambda: now)
    event = raw_event(id="next")
    now += 86_400
    await log.append(TOPIC, b"k", raw_event(id="ahead"))
    now -= 86_400
    await known.look(now - 10)
    now += 5
    await log.append(TOPIC, b"k", event)
    now += 5
    await known.look(now - 10)

    assert Arrival(decode(event), event) in known


async def test_what_was_forgotten_is_learnt_again_where_a_feed_goes_back() -> None:
    """A feed may go back to an earlier time than before; what the log has of that time is known then."""
    now = EPOCH
    broker = MemoryBroker(clock=lambda: now)
    log = MemoryLog(CONFIG, broker)
    known = KnownEvents(log, TOPIC, lambda: now)
    event = raw_event(id="early")
    arrival = Arrival(decode(event), event)
    await log.append(TOPIC, b"k", event)
    now += 3600
    await known.look(now)
    assert arrival not in known
    await known.look(EPOCH)

    assert arrival in known
