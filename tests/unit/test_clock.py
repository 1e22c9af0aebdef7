"""Time is part of correctness: clocks that are set, waits that others ask for, and times that strangers write."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass

import pytest
import structlog
from tests.engine import Bench, Script, raw, until
from tests.fakes.memory_log import MemoryBroker
from tests.jumping_loop import now

from usher import Context, Event, Retry, RetryPolicy
from usher.engine.dedupe import Recent
from usher.event import EventContext, EventUid
from usher.systems.canonical import moment as auth0_time
from usher.systems.genauth.source import iso_time as genauth_time

pytestmark = pytest.mark.jumping


@dataclass
class WallClock:
    """The wall clock of this machine, less *behind* seconds. The monotonic clock goes on as ever."""

    behind: float = 0.0

    def __call__(self) -> float:
        return now() - self.behind


@pytest.fixture
def wall() -> WallClock:
    return WallClock()


@pytest.fixture
def bench(wall: WallClock) -> Bench:
    return Bench(MemoryBroker(), RetryPolicy(("1s",) * 6, jitter=0), now=wall)


async def test_a_wait_that_a_provider_asks_for_ends_when_the_delivery_expires(bench: Bench) -> None:
    """A gateway that means milliseconds asks for 1,000 days: a dead letter at once, and the user's next event is served."""
    script = Script()

    def ask(event: Event, _ctx: Context) -> None:
        if event.id == "first":
            raise Retry("429", after=86_400_000)

    script.act = ask
    async with bench.running(script.handler()):
        await bench.emit(raw("ann", event_id="first"), raw("ann", event_id="second"))
        await until(lambda: script.done and bench.dead_letters())

    assert [dead_letter.reason for dead_letter in bench.dead_letters()] == ["expired"]
    assert script.done == [("ann", "second")]


async def test_a_lane_that_waits_longer_than_any_policy_is_logged(bench: Bench) -> None:
    """Within its expiry a long wait is obeyed; a line and a metric say that it is longer than ours."""
    script = Script(act=raising(Retry("429", after="3h")))
    with structlog.testing.capture_logs() as lines:
        async with bench.running(script.handler()) as worker:
            await bench.emit(raw("ann"))
            await until(bench.parked)
            waits = worker.metrics.longest_wait
            await until(lambda: waits._value.get() > 10_000)

    (line,) = (line for line in lines if line["event"] == "a wait longer than any retry policy has")
    assert (line["log_level"], line["wait"]) == ("warning", 3 * 3600)


@pytest.mark.parametrize("behind", [5 * 3600.0, -5 * 3600.0])
async def test_nothing_waits_longer_because_the_clock_was_wrong(bench: Bench, wall: WallClock, behind: float) -> None:
    """The clock is set, back or forward, while deliveries wait, and others fail meanwhile: all run once it is right."""
    script = Script()

    def act(_event: Event, ctx: Context) -> None:
        if ctx.attempt == 1:
            raise RuntimeError("not yet")

    script.act = act
    async with bench.running(script.handler(expires_after=None)):
        await bench.emit(raw("ann"))
        await until(lambda: len(script.attempts) == 1 and bench.parked())
        wall.behind = behind
        await bench.emit(raw("bob"))
        await until(lambda: "bob" in [user for user, *_ in script.attempts])
        wall.behind = 0.0
        await until(lambda: len(script.done) == 2, within=10)


async def test_what_a_worker_with_a_wrong_clock_parked_is_not_waited_for(bench: Bench, wall: WallClock) -> None:
    """Its clock was hours ahead: the next worker finds a due time in the afternoon, and lets it wait no longer than was asked."""
    script = Script(act=raising(RuntimeError("not yet")))
    wall.behind = -5 * 3600
    async with bench.running(script.handler(expires_after=None)):
        await bench.emit(raw("ann"))
        await until(bench.parked)
    wall.behind, script.act = 0.0, None
    async with bench.running(script.handler(expires_after=None)):
        await until(lambda: script.done, within=10)


@pytest.mark.parametrize("ahead", [300, 1800, 86_400, 10**9, -1800])
async def test_another_producers_clock_does_not_empty_the_memory_of_duplicates(bench: Bench, ahead: float) -> None:
    """An event that comes twice is one, also with records of a producer between them whose clock is wrong."""
    script = Script()
    async with bench.running(script.handler()):
        await bench.emit(raw("ann", event_id="once"))
        bench.broker.clock = lambda: now() + ahead
        await bench.emit(raw("bob"))
        bench.broker.clock = now
        await bench.emit(raw("ann", event_id="once"), raw("eve"))
        await until(lambda: "eve" in [user for user, _ in script.done])

    assert [user for user, _ in script.done].count("ann") == 1


def test_a_clock_that_was_behind_makes_no_event_an_old_one() -> None:
    """What was read while ours was hours behind is known by its record's own time once ours is right."""
    clock, at = [now() - 18_000.0], int(now() * 1000)
    recent = Recent(600.0, lambda: clock[0])
    once = EventUid("s", "t", "once")

    assert not recent.duplicate(once, 0, at)
    clock[0] += 18_000.0
    assert recent.duplicate(once, 1, at + 2_000)


def test_a_backlog_is_deduped_although_the_clock_of_one_producer_was_ahead() -> None:
    """Of records from yesterday, too: the window moves with the lowest of the last times, and old events are forgotten in the end."""
    recent, then = Recent(600.0, now), int(now() * 1000) - 86_400_000

    def seen(name: str, offset: int, at: int) -> bool:
        return recent.duplicate(EventUid("s", "t", name), offset, at)

    assert not seen("a", 0, then)
    assert not seen("b", 1, then + 3_600_000)
    assert seen("a", 2, then + 1_000)
    for offset in range(3, 300):
        seen(f"e{offset}", offset, then + 700_000)
    assert not seen("a", 300, then + 500_000), "it is forgotten"


@pytest.mark.parametrize("at", [-1, 0, 1_764_240_000, 1_764_240_000_000_000, 1_764_240_000_000_000_000, 10**30])
async def test_a_record_without_a_time_counts_from_its_arrival(bench: Bench, at: int) -> None:
    """Neither the record nor the event has one that a clock could show: it is not expired, and its second arrival is known."""
    script = Script()
    first, last = (json.loads(raw(user, event_id=user)) for user in ("ann", "eve"))
    del first["context"]["timestamp"]
    bench.broker.clock = lambda: (at if at < 10**20 else -1) / 1000
    async with bench.running(script.handler()):
        await bench.emit(json.dumps(first).encode(), json.dumps(first | {"seq": 2}).encode(), json.dumps(last).encode())
        await until(lambda: len(script.done) == 2)

    assert [user for user, _ in script.done] == ["ann", "eve"]
    assert bench.dead_letters() == []


@pytest.mark.parametrize(
    "stamp", [1_764_240_000_000_000, 1_764_240_000_000_000_000, 10**30, -(10**30), -1, 1e300, 0, 0.0, -62_135_596_800]
)
async def test_an_event_with_an_odd_time_is_delivered(bench: Bench, stamp: float) -> None:
    """What is in micro- or nanoseconds, or stands for no time (0, the year 1), is none: neither the worker nor `Event.time` minds."""
    script = Script()
    times: list[object] = []
    script.act = lambda event, _ctx: times.append(event.time)
    event = json.loads(raw("ann"))
    event["context"]["timestamp"] = stamp
    async with bench.running(script.handler()):
        await bench.emit(json.dumps(event).encode())
        await until(lambda: script.done)

    assert times == [None]
    assert (
        Event(id="1", type="t", raw_type="t", source="s", context=EventContext(timestamp=stamp)).time is None
        or abs(stamp) < 10**11
    )


@pytest.mark.parametrize("read", [genauth_time, auth0_time])
@pytest.mark.parametrize("text", ["0001-01-01T00:00:00Z", "1970-01-01T00:00:00.000Z", "0001-01-01T00:00:00+14:00"])
def test_what_programs_write_for_no_time_is_none(read: Callable[[object], float | None], text: str) -> None:
    """The zero of a language's own type: taken for a time, it would expire the event at once."""
    assert read(text) is None


def raising(error: Exception) -> Callable[..., None]:
    def act(*_: object) -> None:
        raise error

    return act
