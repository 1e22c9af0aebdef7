"""The worker on the in-memory log: each of its promises, in a sentence."""

from __future__ import annotations

import asyncio
import base64
import gc
import json
import weakref
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sized
from functools import partial
from typing import Any

import pytest
import structlog
from structlog.testing import capture_logs
from tests.engine import CONFIG, PATIENCE, TOPIC, Bench, Script, raw, until
from tests.fakes.memory_log import MemoryBroker, MemoryLog
from tests.jumping_loop import now

from usher import Context, Event, Reject, Retry, RetryPolicy, Skip
from usher.delivery import Delivery, Headers, Origin, Unreadable
from usher.delivery.headers import STUB, WRITER, delivery_headers, owner_headers
from usher.engine.claim_state import ClaimState
from usher.engine.dead_letters import request
from usher.engine.lanes import InFlight
from usher.engine.ledger import Mark
from usher.engine.settle import Settler
from usher.event import EventUid, idempotency_key
from usher.eventlog.errors import TooLarge
from usher.eventlog.names import dead_letter_topic, retry_topic
from usher.eventlog.port import Claim, Position, TopicPartition
from usher.outcome import Dead, Done, Hold

pytestmark = pytest.mark.jumping


@pytest.fixture
def bench() -> Bench:
    return Bench(MemoryBroker())


async def test_an_admins_event_reaches_the_handler_and_is_committed(bench: Bench) -> None:
    """An event of an administrator runs the handler once, and the frontier moves past it."""
    script = Script()
    async with bench.running(script.handler()):
        await bench.emit(raw("ann"))
        await until(lambda: script.done)
        await until(lambda: bench.committed() == 1)

    assert [user for user, _ in script.done] == ["ann"]


async def test_a_self_signup_is_filtered_and_committed(bench: Bench) -> None:
    """An event that the user triggered runs nothing, and is committed all the same."""
    script = Script()
    async with bench.running(script.handler()):
        await bench.emit(raw("ann", triggered_by="user"), raw("bob"))
        await until(lambda: bench.committed() == 2)

    assert [user for user, _ in script.done] == ["bob"]


async def test_order_survives_a_retry(bench: Bench) -> None:
    """Later events of a user wait, parked, until the failed one is done; other users do not wait."""
    script = Script()

    def fail_first(event: Event, ctx: Context) -> None:
        if event.id == "first" and ctx.attempt < 3:
            raise RuntimeError("not yet")

    script.act = fail_first
    async with bench.running(script.handler()):
        await bench.emit(raw("ann", event_id="first"), raw("ann", event_id="second"), raw("ann", event_id="third"))
        await bench.emit(raw("bob", event_id="other"))
        await until(lambda: len(script.done) == 4)
        await until(lambda: not bench.parked())

    assert [event for user, event in script.done if user == "ann"] == ["first", "second", "third"]
    assert script.done[0] == ("bob", "other")
    assert [attempt for _, event, attempt, _ in script.attempts if event == "first"] == [1, 2, 3]


async def test_a_retry_is_never_early(bench: Bench) -> None:
    """A Retry-After is obeyed exactly: not a millisecond early."""
    script = Script()

    def wait(_event: Event, ctx: Context) -> None:
        if ctx.attempt == 1:
            raise Retry("busy", after=0.2)

    script.act = wait
    async with bench.running(script.handler()):
        await bench.emit(raw())
        await until(lambda: script.done)

    first, second = (at for *_, at in script.attempts)
    assert second - first >= 0.2


async def test_what_keeps_failing_is_dead_lettered_with_its_reason_and_the_next_runs(bench: Bench) -> None:
    """After the last attempt the delivery becomes a dead letter, and the user's next event is served."""
    script = Script()

    def fail(event: Event, _ctx: Context) -> None:
        if event.id == "bad":
            raise RuntimeError("no such mailbox: ann@example.org")

    script.act = fail
    async with bench.running(script.handler()):
        await bench.emit(raw("ann", event_id="bad"), raw("ann", event_id="good"))
        await until(lambda: script.done and not bench.parked())

    (dead_letter,) = bench.dead_letters()
    assert (dead_letter.reason, dead_letter.handler, dead_letter.delivery.attempt) == (
        "attempts-exhausted",
        "script",
        3,
    )
    assert dead_letter.delivery.error == "no such mailbox: <email>"
    assert script.done == [("ann", "good")]


async def test_reject_is_not_retried(bench: Bench) -> None:
    """A rejected delivery goes to the dead letters at once."""
    script = Script(act=_raising(Reject("no such country")))
    async with bench.running(script.handler()):
        await bench.emit(raw())
        await until(bench.dead_letters)

    assert (bench.dead_letters()[0].reason, len(script.attempts)) == ("rejected", 1)


async def test_skip_is_done(bench: Bench) -> None:
    """A skipped delivery is neither retried nor dead-lettered."""
    script = Script(act=_raising(Skip("no address")))
    async with bench.running(script.handler()):
        await bench.emit(raw())
        await until(lambda: bench.committed() == 1)

    assert (len(script.attempts), bench.dead_letters(), bench.parked()) == (1, [], {})


async def test_a_paused_channel_burns_no_attempt(bench: Bench) -> None:
    """A delivery that a paused channel does not send is parked with its attempts as they were."""
    script = Script()
    holds = iter(range(6))

    def hold(_event: Event, _ctx: Context) -> None:
        if next(holds) < 5:
            raise Hold("paused", after=0.01)

    script.act = hold
    async with bench.running(script.handler()):
        await bench.emit(raw())
        await until(lambda: script.done)

    assert [attempt for *_, attempt, _ in script.attempts] == [1] * 6


async def test_undecodable_bytes_are_dead_lettered_at_once_as_they_came(bench: Bench) -> None:
    """Bytes that are no event become a dead letter with the original bytes, and reading goes on."""
    script = Script()
    async with bench.running(script.handler()):
        await bench.emit(b"\xff\xfenot json", raw("ann"))
        await until(lambda: script.done and bench.dead_letters())

    (dead_letter,) = bench.dead_letters()
    assert (dead_letter.reason, dead_letter.delivery.value, dead_letter.handler) == (
        "undecodable",
        b"\xff\xfenot json",
        "",
    )
    assert bench.committed() == 2


async def test_a_second_arrival_is_not_run_twice(bench: Bench) -> None:
    """The same event again within the window is a duplicate, also across a restart."""
    script = Script()
    event = raw("ann", event_id="same")
    async with bench.running(script.handler()):
        await bench.emit(event, event)
        await until(lambda: bench.committed() == 2)
    async with bench.running(script.handler()):
        await bench.emit(event)
        await until(lambda: bench.committed() == 3)

    assert script.done == [("ann", "same")]


async def test_an_expired_event_is_dead_lettered_and_not_run(bench: Bench) -> None:
    """Too late is not sent."""
    script = Script()
    async with bench.running(script.handler(expires_after="1ms")):
        await bench.emit(raw())
        await until(bench.dead_letters)

    assert (bench.dead_letters()[0].reason, script.attempts) == ("expired", [])


async def test_one_failing_handler_does_not_rerun_the_other(bench: Bench) -> None:
    """Of two handlers on one event only the one that failed runs again."""
    good, bad = Script("good"), Script("bad")

    def fail_once(_event: Event, ctx: Context) -> None:
        if ctx.attempt == 1:
            raise RuntimeError("once")

    bad.act = fail_once
    async with bench.running(good.handler(), bad.handler()):
        await bench.emit(raw())
        await until(lambda: bad.done and good.done)

    assert (len(good.attempts), len(bad.attempts)) == (1, 2)


async def test_parked_deliveries_survive_a_restart_in_order(bench: Bench) -> None:
    """What was parked before a stop runs after the next start, in source order, and once."""
    first, second = Script(), Script()
    first.act = _raising(Retry("later", after=0.3))
    async with bench.running(first.handler()):
        await bench.emit(raw("ann", event_id="a"), raw("ann", event_id="b"))
        await until(lambda: len(bench.parked()) == 2)
    async with bench.running(second.handler()):
        await bench.emit(raw("ann", event_id="c"))
        await until(lambda: len(second.done) == 3)
        await until(lambda: not bench.parked())

    assert [event for _, event in second.done] == ["a", "b", "c"]
    assert next(attempt for *_, attempt, _ in second.attempts) == 2


async def test_a_stop_waits_for_what_runs_and_repeats_nothing(bench: Bench) -> None:
    """A graceful stop drains what is in flight; the next worker does not run it again."""
    script, begun = Script(), asyncio.Event()

    async def slow(_event: Event, _ctx: Context) -> None:
        begun.set()
        await asyncio.sleep(0.1)

    script.act = slow
    async with bench.running(script.handler()):
        await bench.emit(raw("ann"), raw("ann"))
        await begun.wait()
    assert len(script.done) == 1
    async with bench.running(script.handler()):
        await until(lambda: len(script.done) == 2)

    assert len(script.attempts) == 2


async def test_a_retry_that_waits_for_its_turn_at_a_stop_is_the_next_workers(bench: Bench) -> None:
    """The drain does not wait for it; it stays parked, with the attempts that it had."""
    note, waits = Script(), asyncio.Event()

    async def wait_for_a_turn(_event: Event, ctx: Context) -> None:
        if ctx.attempt == 1:
            raise Retry("not now", after=0.05)
        assert ctx._clock is not None
        ctx._clock.stop()
        waits.set()
        await asyncio.Event().wait()

    note.act = wait_for_a_turn
    async with bench.running(note.handler(), drain=60.0):  # were it waited for, the stop would fail
        await bench.emit(raw("ann", event_id="a"))
        await waits.wait()
    assert [delivery.attempt for delivery in bench.parked().values()] == [1]
    note.act = None
    async with bench.running(note.handler()):
        await until(lambda: note.done == [("ann", "a")])

    assert [attempt for *_, attempt, _ in note.attempts] == [1, 2, 2]


async def test_what_ends_while_it_is_handed_over_takes_its_park_record_back(bench: Bench) -> None:
    """Its topic was made anew while it ran: its end waits for the park record, so that no worker runs it again."""
    release, script = asyncio.Event(), Script()
    script.act = lambda _event, _ctx: release.wait()
    async with bench.running(script.handler()) as worker:
        await bench.emit(raw("ann"))
        await until(lambda: script.attempts)
        bench.broker.latency = lambda: 1.0
        await worker.claims.remade(list(worker.claims.states))
        release.set()
        await until(lambda: not worker.driver.records)

    written = bench.broker.partition(retry_topic("usher", TOPIC), 0).records
    assert [record.value is None for record in written] == [False, True]


async def test_a_drain_waits_for_what_is_parked_behind_a_head_that_fails(bench: Bench) -> None:
    """What waits behind a delivery that fails during the drain is parked before the claim is let go."""
    script, begun, let_go = Script(), asyncio.Event(), asyncio.Event()

    async def fail_at_the_end(_event: Event, _ctx: Context) -> None:
        begun.set()
        await let_go.wait()
        raise Retry("not now", after=60)

    script.act = fail_at_the_end
    worker = bench.worker([script.handler()])
    task = asyncio.create_task(worker.run())
    await until(lambda: worker.ready)
    await bench.emit(raw("ann"), raw("ann"), raw("ann"))
    await begun.wait()
    (state,) = worker.claims.states.values()
    await until(lambda: len(state.lanes) == 1 and state.position == 3)
    bench.broker.latency = lambda: 0.05
    worker.stop()
    let_go.set()
    await asyncio.wait_for(task, PATIENCE)

    assert (len(bench.parked()), bench.committed()) == (3, 3)


async def test_claims_that_go_together_are_committed_together(bench: Bench) -> None:
    """However many partitions a worker releases, they share one commit: one after the other they would exceed the budget."""
    bench.broker.partitions = 3
    script, committed = Script(), list[int]()
    async with bench.running(script.handler(), commit_every=3600) as worker:
        commit = worker.event_log.commit

        async def counted(positions: Mapping[Claim, Position]) -> None:
            committed.append(len(positions))
            await commit(positions)

        worker.event_log.commit = counted  # type: ignore[method-assign]
        for number in range(12):
            await bench.emit(raw(f"u{number}"), key=f"u{number}".encode())
        await until(lambda: len(script.done) == 12)

    assert committed == [3]


async def test_a_handlers_own_cancelled_error_is_a_failure(bench: Bench) -> None:
    """A handler that awaits something which was cancelled has failed: it is retried, and nothing stays behind."""
    script = Script()

    async def await_cancelled(event: Event, ctx: Context) -> None:
        if ctx.attempt == 1 and event.id == "one":
            inner = asyncio.get_running_loop().create_future()
            inner.cancel()
            await inner

    script.act = await_cancelled
    async with bench.running(script.handler()):
        await bench.emit(raw("ann", event_id="one"), raw("ann", event_id="two"))
        await until(lambda: len(script.done) == 2 and bench.committed() == 2)

    assert [event for _, event in script.done] == ["one", "two"]


async def test_an_id_that_fills_the_record_does_not_end_the_worker(bench: Bench) -> None:
    """However long an event's id or user is, its delivery can be parked and dead-lettered."""
    script = Script(act=_raising(RuntimeError("no")))
    event = json.loads(raw("é" * 100_000))
    event["id"] = "é" * 100_000
    async with bench.running(script.handler()):
        await bench.emit(json.dumps(event, ensure_ascii=False).encode())
        await until(bench.dead_letters)

    assert bench.dead_letters()[0].reason == "attempts-exhausted"


async def test_a_key_that_fills_the_record_does_not_end_the_worker(bench: Bench) -> None:
    """Garbage under a key that leaves no room for headers becomes a stub that names topic, partition and offset."""
    async with bench.running(Script().handler()):
        await bench.emit(b"garbage", key=b"k" * 1_048_200)
        await until(lambda: bench.committed() == 1)

    assert bench.dead_letters()[0].delivery.origin.offset == 0


async def test_a_wait_of_millennia_is_parked_like_any_other(bench: Bench) -> None:
    """A handler that never expires may ask for any wait; more than a year is a year."""
    script = Script(act=_raising(Retry("later", after="99999999d")))
    async with bench.running(script.handler(expires_after=None)):
        await bench.emit(raw("ann"))
        await until(lambda: bench.parked() and bench.committed() == 1)

    (parked,) = bench.parked().values()
    assert parked.due is not None
    assert parked.due < (now() + 367 * 86400) * 1000


async def test_a_second_arrival_is_known_where_only_the_mark_has_the_first(bench: Bench) -> None:
    """An event that the last worker's Mark calls done is not sent again when it comes twice."""
    script, hold = Script(), asyncio.Event()

    async def act(event: Event, _ctx: Context) -> None:
        if event.id == "slow":
            await hold.wait()

    def marked() -> bool:
        position = bench.broker.group("usher").committed.get(TopicPartition(TOPIC, 0))
        mark = Mark.decode(position.mark, position.next) if position else None
        return mark is not None and mark.seen == 2 and set(mark.undone) == {0}

    script.act = act
    await bench.emit(raw("bob", event_id="slow"), raw("ann", event_id="one"))
    await bench.crashing(script.handler(), when=marked)
    hold.set()
    async with bench.running(script.handler()):
        await until(lambda: bench.committed() == 2)
        await bench.emit(raw("ann", event_id="one"))
        await until(lambda: bench.committed() == 3)

    assert [event for _, event in script.done] == ["one", "slow"]


async def test_two_operators_replay_one_dead_letter_once(bench: Bench) -> None:
    """Two requests for one dead letter are one replay, and both are answered."""
    script = Script(act=_raising(Reject("no")))
    async with bench.running(script.handler()):
        await bench.emit(raw("ann"))
        await until(bench.dead_letters)
        script.act = None
        await _ask(bench, "r1")
        await _ask(bench, "r2")
        await until(lambda: script.done)
        await until(lambda: not bench.parked())

    assert len(script.done) == 1


async def test_due_retries_keep_to_the_limit_of_bytes(bench: Bench) -> None:
    """What is parked stays on disk until there is room, however much of it is due."""
    script, go = Script(), asyncio.Event()
    sizes: list[int] = []

    async def act(_event: Event, ctx: Context) -> None:
        if ctx.attempt == 1:
            raise Retry("later", after="1s")
        sizes.append(worker.driver.size)
        await go.wait()

    script.act = act
    async with bench.running(script.handler(), size=500_000) as worker:
        for number in range(40):
            event = json.loads(raw(f"u{number}"))
            event["payload"]["padding"] = "x" * 50_000
            await bench.emit(json.dumps(event).encode())
        await until(lambda: len(bench.parked()) == 40)
        await until(lambda: len(sizes) >= 9)
        go.set()
        await until(lambda: len(script.done) == 40)

    assert max(sizes) <= 550_000


async def test_a_crash_loses_nothing_and_repeats_only_what_was_in_flight(bench: Bench) -> None:
    """After kill -9 the next worker runs what was not done, and what was done and committed does not run again."""
    script = Script()

    async def block_third(event: Event, _ctx: Context) -> None:
        if event.id == "third" and len(script.attempts) == 3:
            await asyncio.Event().wait()

    script.act = block_third
    await bench.emit(
        raw("a", event_id="first"), raw("b", event_id="second"), raw("c", event_id="third"), raw("d", event_id="x")
    )
    await bench.crashing(script.handler(), when=lambda: len(script.done) == 3 and bench.committed() == 2)
    async with bench.running(script.handler()):
        await until(lambda: bench.committed() == 4)

    assert sorted(event for _, event in script.done) == ["first", "second", "third", "x"]


async def test_a_log_that_takes_no_writes_keeps_the_offset(bench: Bench) -> None:
    """While a dead letter can't be written the frontier stays; once it can, everything moves on."""
    script = Script(act=_raising(Reject("no")))
    refused: list[int] = []
    async with bench.running(script.handler()):

        def refuse(_event: Event, _ctx: Context) -> None:
            bench.broker.unavailable = True
            refused.append(1)
            raise Reject("no")

        script.act = refuse
        await bench.emit(raw())
        await until(lambda: refused)
        assert bench.committed() == 0
        bench.broker.unavailable = False
        await until(lambda: bench.committed() == 1)

    assert len(bench.dead_letters()) == 1


async def test_a_dead_letter_topic_that_has_no_room_for_a_stub_is_waited_for(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its records are limited to some bytes: nothing ends, nothing is settled, and once that is mended the dead letter is there."""
    bury, asked = MemoryLog.bury, list[int]()

    async def small(log: MemoryLog, claim: Claim, key: bytes | None, value: bytes | None, headers: Headers) -> None:
        asked.append(len(headers))
        if len(asked) < 4:
            raise TooLarge("the topic takes 300 bytes")
        await bury(log, claim, key, value, headers)

    monkeypatch.setattr(MemoryLog, "bury", small)
    script = Script(act=_raising(Reject("no")))
    with capture_logs() as lines:
        async with bench.running(script.handler()):
            await bench.emit(raw("ann"))
            await until(lambda: len(asked) == 2)
            assert bench.committed() == 0
            await until(bench.dead_letters)
            await until(lambda: bench.committed() == 1)

    assert "the event log takes no writes, trying again" in [line["event"] for line in lines]


async def test_two_lanes_never_run_one_user_twice_at_once(bench: Bench) -> None:
    """With many events of few users, each user's run one at a time and in order."""
    script = Script()

    async def breathe(_event: Event, _ctx: Context) -> None:
        await asyncio.sleep(0)

    script.act = breathe
    events = [(f"u{n % 7}", f"e{n:04}") for n in range(300)]
    async with bench.running(script.handler()):
        await bench.emit(*(raw(user, event_id=event) for user, event in events))
        await until(lambda: len(script.done) == 300)

    assert not script.twice
    for user in {user for user, _ in events}:
        assert [e for u, e in script.done if u == user] == [e for u, e in events if u == user]


async def test_a_lane_that_is_full_is_parked_and_keeps_its_order(bench: Bench) -> None:
    """One slow user fills no memory: what is beyond the lane's limit is parked, and still runs in order."""
    script, go = Script(), asyncio.Event()

    async def wait(_event: Event, _ctx: Context) -> None:
        await go.wait()

    script.act = wait
    events = [f"e{n:02}" for n in range(12)]
    async with bench.running(script.handler(), per_lane=3):
        await bench.emit(*(raw("ann", event_id=event) for event in events))
        await until(lambda: len(bench.parked()) >= 8)
        go.set()
        await until(lambda: len(script.done) == 12)
        await until(lambda: not bench.parked())

    assert [event for _, event in script.done] == events


async def test_a_dead_letter_is_replayed_and_noted(bench: Bench) -> None:
    """A replay runs only the handler that failed, under the same idempotency key, and the dead letter gets the state replayed."""
    broken, fine, keys = Script("broken"), Script("fine"), []
    broken.act = _raising(Reject("provider says no"))
    async with bench.running(broken.handler(), fine.handler()):
        await bench.emit(raw("ann", event_id="e1"))
        await until(bench.dead_letters)

        def remember(event: Event, ctx: Context) -> None:
            keys.append((ctx.idempotency_key, idempotency_key("broken", event.uid)))

        broken.act = remember
        await _ask(bench, "r1")
        await until(lambda: bench.dead_letters()[0].state == "replayed")
        await until(lambda: not bench.parked())

    assert (len(fine.done), len(broken.done)) == (1, 1)
    assert keys[0][0] == keys[0][1]


async def test_a_replay_that_fails_becomes_a_dead_letter_that_replaces_the_old_one(bench: Bench) -> None:
    """A replay has one attempt and never parks: it fails into a new dead letter, which counts the replays."""
    broken = Script(act=_raising(Reject("no")))
    async with bench.running(broken.handler()):
        await bench.emit(raw("ann"))
        await until(bench.dead_letters)
        broken.act = _raising(RuntimeError("still not"))
        await _ask(bench, "r1")
        await until(lambda: len(bench.dead_letters()) == 2)
        await until(lambda: not bench.parked())

    old, new = bench.dead_letters()
    assert (old.state, new.state, new.delivery.replays, new.reason) == ("replaced", "open", 1, "attempts-exhausted")


async def test_an_expired_replay_is_refused_unless_the_operator_insists(bench: Bench) -> None:
    """Replaying what is too late is refused; with --even-expired it runs."""
    broken = Script(act=_raising(Reject("no")))
    handler = broken.handler(expires_after="2s")
    late = raw("ann").replace(b'"timestamp": ', b'"timestamp": 1')
    async with bench.running(handler):
        await bench.emit(raw("ann"))
        await until(bench.dead_letters)
    broken.act = None
    assert late
    async with bench.running(broken.handler(expires_after="1ms")):
        await _ask(bench, "r1")
        await until(lambda: bench.dead_letters()[0].state == "refused")
        await _ask(bench, "r2", even_expired=True)
        await until(lambda: bench.dead_letters()[0].state == "replayed")

    assert len(broken.done) == 1


async def test_an_undecodable_dead_letter_is_decoded_and_routed_anew(bench: Bench) -> None:
    """Bytes that were no event, and still are none, become a dead letter again; the request is answered."""
    script = Script()
    async with bench.running(script.handler()):
        await bench.emit(b"garbage")
        await until(bench.dead_letters)
        await _ask(bench, "r1")
        await until(lambda: len(bench.dead_letters()) == 2)
        await until(lambda: not bench.parked())

    assert [dead_letter.state for dead_letter in bench.dead_letters()] == ["replaced", "open"]


async def test_a_request_that_waited_while_nobody_was_there_is_carried_out(bench: Bench) -> None:
    """A replay asked for while no worker runs is done by the next one."""
    script = Script(act=_raising(Reject("no")))
    async with bench.running(script.handler()):
        await bench.emit(raw("ann"))
        await until(bench.dead_letters)
    script.act = None
    await _ask(bench, "r1")
    async with bench.running(script.handler()):
        await until(lambda: bench.dead_letters()[0].state == "replayed")

    assert len(script.done) == 1


async def test_a_replay_that_is_answered_while_it_waits_for_its_lane_does_not_run(bench: Bench) -> None:
    """Its earlier owner was done with it: the tombstone of the request says so."""
    script, go = Script(act=_raising(Reject("no"))), asyncio.Event()
    async with bench.running(script.handler()) as worker:
        await bench.emit(raw("ann"))
        await until(bench.dead_letters)
        script.act = lambda _event, _ctx: go.wait()
        await bench.emit(raw("ann", event_id="before"))
        await until(lambda: len(script.attempts) == 2)
        await _ask(bench, "r1")
        (state,) = worker.claims.states.values()
        await until(lambda: any(lane.replays for lane in state.lanes.values()))
        headers = owner_headers("usher", TOPIC)
        await bench.broker.write(TopicPartition(retry_topic("usher", TOPIC), 0), b"replay/r1", None, headers)
        await until(lambda: not state.requests)
        go.set()
        await bench.emit(raw("ann", event_id="after"))
        await until(lambda: len(script.done) == 2)

    assert [event for _, event in script.done] == ["before", "after"]


async def test_a_handler_that_is_gone_leaves_its_deliveries_parked_then_dead(bench: Bench) -> None:
    """Parked deliveries of a handler that is not there wait for it, and become dead letters in the end."""
    script, other = Script(act=_raising(Retry("later", after=0.01))), Script("other")
    async with bench.running(script.handler()):
        await bench.emit(raw("ann"))
        await until(lambda: len(bench.parked()) == 1)
    async with bench.running(other.handler(), handler_gone_after=0.05):
        await until(bench.dead_letters)

    assert bench.dead_letters()[0].reason == "handler-gone"


async def test_a_move_between_two_workers_repeats_nothing(bench: Bench) -> None:
    """When a second worker joins, what was done is not done again, and nothing is left out."""
    bench.broker.partitions = 3
    one, two = Script(), Script()
    events = [(f"u{n % 20}", f"e{n:04}") for n in range(400)]
    async with bench.running(one.handler()):
        for user, event in events[:200]:
            await bench.emit(raw(user, event_id=event), key=user.encode())
        async with bench.running(two.handler()):
            for user, event in events[200:]:
                await bench.emit(raw(user, event_id=event), key=user.encode())
            await until(lambda: len(one.done) + len(two.done) >= 400)

    done = [event for _, event in one.done + two.done]
    assert sorted(done) == sorted(event for _, event in events)
    assert two.done


@pytest.fixture
def no_garbage_collector() -> Iterator[None]:
    """What is closed by chance, when garbage is collected, stays open."""
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures("no_garbage_collector")
async def test_a_claim_that_goes_while_it_loads_leaves_no_stream_open(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stream that nobody reads would hold up the next claim on its partition."""
    opened, asked, closed = list[Claim](), list[Claim](), list[Claim]()
    parked = MemoryLog.parked

    async def watched(log: MemoryLog, claim: Claim) -> AsyncIterator[Any]:
        opened.append(claim)
        try:
            async for part in parked(log, claim):
                yield part
        finally:
            closed.append(claim)

    async def slow(_log: MemoryLog, claim: Claim, _window: float, _limit: int) -> AsyncIterator[Any]:
        asked.append(claim)
        if len(asked) == 1:
            await asyncio.Event().wait()
        for records in list[Any]():
            yield records

    monkeypatch.setattr(MemoryLog, "parked", watched)
    monkeypatch.setattr(MemoryLog, "history", slow)
    first = bench.worker([Script().handler()])
    running = asyncio.create_task(first.run())
    await until(lambda: asked)
    async with bench.running(Script().handler()):
        await until(lambda: opened[0] in closed, within=5)
    first.stop()
    await running


class Held:
    """What a handler holds while it runs; it can be watched."""


@pytest.mark.usefixtures("no_garbage_collector")
@pytest.mark.parametrize(
    "failure", [Retry("busy"), Reject("refused"), Skip("not wanted"), ValueError("a bug"), TimeoutError(), None]
)
async def test_an_attempt_that_failed_leaves_no_garbage(bench: Bench, failure: Exception | None) -> None:
    """Without the collector, which seldom runs here, thousands of failures would be kept, each with all it had in hand."""
    held = list[weakref.ref[Held]]()

    async def fail(_event: Event, _ctx: Context) -> None:
        mine = Held()
        held.append(weakref.ref(mine))
        if failure is None:
            await asyncio.Event().wait()
        else:
            raise type(failure)(*failure.args)

    script = Script(act=fail)
    async with bench.running(script.handler(timeout="50ms", retry=RetryPolicy(()))):
        await bench.emit(raw("ann"))
        await until(lambda: bench.committed() == 1)

    assert held
    assert [each() for each in held] == [None] * len(held)


async def test_every_delivery_ends_once_and_before_anything_says_so(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each end comes through `Settler.ended` once: before the commit that covers it, and before the tombstone."""
    script, ends = Script(), list[tuple[str, str]]()
    end = Settler.ended

    def ended(settler: Settler, state: ClaimState, in_flight: InFlight, verdict: Done | Dead) -> None:
        delivery = in_flight.delivery
        ends.append((delivery.uid.id, verdict.reason if isinstance(verdict, Dead) else verdict.label))
        parked = [other for other in bench.parked().values() if other.uid == delivery.uid]
        assert parked or bench.committed() <= delivery.offset
        end(settler, state, in_flight, verdict)

    def act(event: Event, ctx: Context) -> None:
        if event.id in {"retried", "in-vain"} and (event.id == "in-vain" or ctx.attempt == 1):
            raise Retry("not yet", after=0.01)
        if event.id in {"skipped", "rejected"}:
            raise Skip("no") if event.id == "skipped" else Reject("no")

    monkeypatch.setattr(Settler, "ended", ended)
    script.act = act
    late = json.loads(raw("late", event_id="late"))
    late["context"]["timestamp"] -= 10 * 86400
    async with bench.running(script.handler()):
        await bench.emit(raw("bob", event_id="filtered", triggered_by="user"), b"garbage", json.dumps(late).encode())
        for event in ("done", "skipped", "rejected", "retried", "behind"):
            await bench.emit(raw("ann", event_id=event))
        await bench.emit(raw("cat", event_id="in-vain"))
        await until(lambda: len(ends) == 8 and not bench.parked() and bench.committed() == 9)

    assert sorted(ends) == [
        ("", "undecodable"),
        ("behind", "done"),
        ("done", "done"),
        ("in-vain", "attempts-exhausted"),
        ("late", "expired"),
        ("rejected", "rejected"),
        ("retried", "done"),
        ("skipped", "skipped"),
    ]


def _raising(error: Exception) -> Any:
    def act(_event: Event, _ctx: Context) -> None:
        raise error

    return act


def _longer_than(items: Sized, length: int, otherwise: Callable[[], object] = lambda: False) -> Callable[[], object]:
    return lambda: len(items) > length or otherwise()


async def _ask(bench: Bench, request_id: str, *, even_expired: bool = False) -> None:
    dead_letter = bench.dead_letters()[0]
    key, value, headers = request(dead_letter, request_id=request_id, even_expired=even_expired)
    await bench.broker.write(
        TopicPartition(retry_topic(CONFIG.group, TOPIC), dead_letter.partition), key.encode(), value, headers
    )


async def test_a_late_tombstone_of_what_is_a_dead_letter_does_not_answer_its_replay(bench: Bench) -> None:
    """It says that the delivery has ended, as a dead letter: the replay that waits for its turn runs all the same."""
    gate, runs = asyncio.Event(), list[str]()

    async def act(event: Event, _ctx: Context) -> None:
        runs.append(event.id)
        if event.id == "e1" and runs.count("e1") == 1:
            raise Reject("no")
        if event.id == "e2":
            await gate.wait()

    async with bench.running(Script(act=act).handler()) as worker:
        await bench.emit(raw("ann", event_id="e1"))
        await until(bench.dead_letters)
        await bench.emit(raw("ann", event_id="e2"))
        await until(lambda: "e2" in runs)
        await _ask(bench, "r1")
        (state,) = worker.claims.states.values()
        await until(lambda: state.lanes and any(lane.replays for lane in state.lanes.values()))
        key = bench.dead_letters()[0].delivery.key
        headers = [*owner_headers("usher", TOPIC, state.claim.topic_id), (WRITER, b"of another worker")]
        await bench.broker.write(TopicPartition(retry_topic("usher", TOPIC), 0), key.encode(), None, headers)
        await asyncio.sleep(0.1)
        gate.set()
        await until(lambda: bench.dead_letters()[0].state == "replayed")

    assert runs == ["e1", "e2", "e1"]


async def test_a_delivery_that_ends_its_worker_is_isolated_and_dead_lettered(bench: Bench) -> None:
    """After some starts that end badly deliveries run alone; the one that ends the worker then is given up, all others are done."""
    crashed: list[str] = []
    done: list[tuple[str, str]] = []
    for start in range(8):
        script = Script(done=done)

        async def deadly(event: Event, _ctx: Context, start: int = start) -> None:
            if event.id == "deadly":
                crashed.append(f"start {start}")
                await asyncio.Event().wait()

        script.act = deadly
        if start == 0:
            await bench.emit(raw("ann", event_id="before"), raw("bob", event_id="deadly"), raw("cat", event_id="after"))
        if bench.dead_letters():
            break
        await bench.crashing(
            script.handler(), when=_longer_than(crashed, len(crashed), bench.dead_letters), commit_every=0.01
        )

    assert [dead_letter.reason for dead_letter in bench.dead_letters()] == ["crashed-the-worker"]
    # Two of many, and three alone: two could be a coincidence. One more where the first ended before a commit named it.
    assert len(crashed) in {5, 6}
    assert {event for _, event in done} == {"before", "after"}


async def test_a_stop_ends_in_order_where_the_event_log_gives_up_waiting_for_a_move(bench: Bench) -> None:
    """The claims are about to go, and the stop waits for the same release: that goes on when its first caller has left."""
    endless = Script(act=lambda *_: asyncio.Event().wait())
    await bench.emit(raw("ann"))
    async with bench.running(endless.handler()) as worker:
        await until(lambda: endless.running)
        move = asyncio.create_task(worker.claims.released(list(worker.claims.states)))
        await asyncio.sleep(0)
        worker.stop()
        for _ in range(5):  # the stop waits, too
            await asyncio.sleep(0)
        move.cancel()
    assert worker.claims.states == {}


async def _crash_twice(bench: Bench) -> None:
    """Two workers end badly while they run the first event."""
    for _ in range(2):
        idle = Script(act=lambda *_: asyncio.Event().wait())
        await bench.crashing(idle.handler(), when=_longer_than(idle.attempts, 0), commit_every=0.01)


async def test_what_no_worker_that_ended_has_begun_runs_beside_others(bench: Bench) -> None:
    """In isolation only what may have run when a worker ended runs alone; a backlog that came later is drained as ever."""
    await bench.emit(raw("ann"))
    await _crash_twice(bench)
    together, script = asyncio.Event(), Script()

    async def act(event: Event, _ctx: Context) -> None:
        if event.user.id == "ann":
            assert len(script.running) == 1, "it runs alone"
            return
        if len(script.running) == 20:
            together.set()
        await together.wait()

    script.act = act
    async with bench.running(script.handler()) as worker:
        (state,) = worker.claims.states.values()
        assert state.ledger.careful
        await bench.emit(*(raw(f"u{number}") for number in range(20)))
        await until(lambda: len(script.done) == 21)
        assert state.ledger.careful


async def _crash_with_all_in_doubt(bench: Bench, events: int) -> None:
    """Two workers end badly while they run so many events, and a commit says that these were read."""

    def read() -> bool:
        committed = bench.broker.group("usher").committed.get(TopicPartition(TOPIC, 0), Position(0))
        mark = Mark.decode(committed.mark, committed.next)
        return mark is not None and mark.seen >= events

    for _ in range(2):
        idle = Script(act=lambda *_: asyncio.Event().wait())
        begun = _longer_than(idle.attempts, events - 1)
        await bench.crashing(idle.handler(), when=partial(lambda begun: begun() and read(), begun), commit_every=0.01)


async def test_many_in_doubt_run_in_rounds(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Hundreds that may have run when the workers ended cost some dozen turns and commits, and not one for each delivery."""
    await bench.emit(*(raw(f"u{number}") for number in range(400)))
    await _crash_with_all_in_doubt(bench, 400)
    commits, commit = list[object](), MemoryLog.commit
    at_once = set[int]()

    async def counted(log: MemoryLog, positions: Mapping[Claim, Position]) -> None:
        commits.append(positions)
        await commit(log, positions)

    async def act(_event: Event, _ctx: Context) -> None:
        await asyncio.sleep(0)
        at_once.add(len(script.running))

    monkeypatch.setattr(MemoryLog, "commit", counted)
    script = Script(act=act)
    async with bench.running(script.handler(), commit_every=3600):
        await until(lambda: len(script.done) == 400)

    assert len(commits) < 120
    assert 1 < max(at_once) <= 20


async def test_of_many_in_doubt_the_deadly_one_alone_is_condemned(bench: Bench) -> None:
    """It ends a round, then three times a worker in which it runs alone; it becomes a dead letter, and all others are done."""
    numbers = range(200)
    await bench.emit(*(raw(f"u{number}", event_id=f"e{number}") for number in numbers))
    await _crash_with_all_in_doubt(bench, 200)
    beside, done = list[int](), list[tuple[str, str]]()
    for _ in range(6):
        script = Script(done=done)

        async def act(event: Event, _ctx: Context, script: Script = script) -> None:
            await asyncio.sleep(0)
            if event.id == "e77":
                beside.append(len(script.running) - 1)
                await asyncio.Event().wait()

        script.act = act
        ended = _longer_than(beside, len(beside), lambda: bench.dead_letters() and len(done) >= 199)
        await bench.crashing(script.handler(), when=ended, commit_every=3600)
        if bench.dead_letters():
            break

    assert [dead_letter.delivery.uid.id for dead_letter in bench.dead_letters()] == ["e77"]
    assert 0 < beside[0] < 20
    assert beside[1:] == [0, 0, 0]
    assert {event for _, event in done} == {f"e{number}" for number in numbers} - {"e77"}


async def test_one_that_ran_alone_before_the_deadly_one_of_another_partition_is_not_condemned() -> None:
    """Which delivery runs is written for all partitions at once: no Mark still names an earlier one."""
    bench = Bench(MemoryBroker(partitions=2), RetryPolicy(("1ms",) * 50, jitter=0))
    keys = {bench.broker.partition_of(key): key for key in (b"a", b"b", b"c", b"d")}
    crashed = list[str]()
    await bench.emit(raw("ann", event_id="failing"), key=keys[0])
    await bench.emit(raw("bob", event_id="deadly"), key=keys[1])
    for start in range(10):
        failed = asyncio.Event()

        async def act(event: Event, _ctx: Context, failed: asyncio.Event = failed) -> None:
            if event.id == "failing" or not failed.is_set():
                if event.id == "failing":
                    failed.set()
                    await asyncio.sleep(0.1)  # meanwhile the other one is due, and waits for its turn
                raise Retry("not now", after=0.02)
            crashed.append(event.id)
            await asyncio.Event().wait()

        gone = lambda failed=failed: bench.dead_letters(1) and (failed.is_set() or bench.dead_letters(0))  # noqa: E731
        ended = _longer_than(crashed, len(crashed), gone)
        often = 0.01 if start < 2 else 3600  # then the rounds alone commit
        await bench.crashing(Script(act=act).handler(), when=ended, commit_every=often)
        if bench.dead_letters(1):
            break

    assert [dead_letter.reason for dead_letter in bench.dead_letters(1)] == ["crashed-the-worker"]
    assert bench.dead_letters(0) == []


async def test_in_isolation_one_commit_covers_all_that_wait_for_it(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A backlog of hundreds costs some commits, and not one for each delivery."""
    await bench.emit(raw("ann"))
    await _crash_twice(bench)
    commits, commit = list[object](), MemoryLog.commit

    async def counted(log: MemoryLog, positions: Mapping[Claim, Position]) -> None:
        commits.append(positions)
        await commit(log, positions)

    monkeypatch.setattr(MemoryLog, "commit", counted)
    script = Script()
    await bench.emit(*(raw(f"u{number}") for number in range(300)))
    async with bench.running(script.handler(), commit_every=3600):
        await until(lambda: len(script.done) == 301)

    assert len(commits) < 30


async def test_a_deadly_delivery_that_ran_beside_others_runs_alone_after_that(bench: Bench) -> None:
    """It begins only when a commit says that it was read: so the next worker knows that it may be the one."""
    await bench.emit(raw("ann"))
    await _crash_twice(bench)
    crashed, done = list[str](), list[tuple[str, str]]()
    for start in range(6):
        script = Script(done=done)

        async def act(event: Event, _ctx: Context, start: int = start) -> None:
            if event.id == "deadly":
                crashed.append(f"start {start}")
                await asyncio.Event().wait()

        script.act = act
        if start == 0:
            await bench.emit(raw("bob", event_id="deadly"), *(raw(f"u{number}") for number in range(20)))
        crashes = _longer_than(crashed, len(crashed), lambda: bench.dead_letters() and len(done) >= 21)
        await bench.crashing(script.handler(), when=crashes, commit_every=3600)
        if bench.dead_letters():
            break

    assert [dead_letter.delivery.uid.id for dead_letter in bench.dead_letters()] == ["deadly"]
    assert len(crashed) <= 4
    assert len({event for _, event in done}) == 21


async def test_a_worker_that_lives_for_a_while_is_careful_no_more(bench: Bench) -> None:
    """Bad ends long ago do not count: only a row of them makes a worker run deliveries one at a time."""

    def calm_at(offset: int) -> bool:
        committed = bench.broker.group("usher").committed.get(TopicPartition(TOPIC, 0), Position(0))
        mark = Mark.decode(committed.mark, committed.next)
        return committed.next == offset and mark is not None and mark.starts == 0

    for number in range(1, 6):
        await bench.emit(raw("ann"))
        await bench.crashing(Script().handler(), when=partial(calm_at, number), calm_after=0.0)
    async with bench.running(Script().handler()) as worker:
        (state,) = worker.claims.states.values()
        assert not state.ledger.careful


async def test_a_partition_full_of_garbage_rests_instead_of_filling_the_dead_letters(bench: Bench) -> None:
    """When most records are undecodable the partition stops being read, and is tried again later."""
    script = Script()
    garbage = [b"\xffgarbage %d" % number for number in range(70)]
    async with bench.running(script.handler(), undecodable_rest=0.3):
        await bench.emit(*garbage, raw("ann"))
        await until(lambda: len(bench.dead_letters()) == 20)
        assert bench.committed() <= 20
        await until(lambda: script.done)

    assert len(bench.dead_letters()) == 70


async def test_some_garbage_among_good_records_is_just_dead_lettered(bench: Bench) -> None:
    """A third of the records being undecodable stops nothing."""
    script = Script()
    async with bench.running(script.handler(), undecodable_rest=3600):
        for number in range(60):
            await bench.emit(b"\xffgarbage %d" % number, raw("ann"), raw("bob"))
        await until(lambda: len(script.done) == 120 and len(bench.dead_letters()) == 60)


async def test_a_second_arrival_in_an_encoded_envelope_is_known_after_a_restart(bench: Bench) -> None:
    """Its bytes name no actor: what was read earlier is remembered by the same check as what is read now."""
    data = base64.b64encode(raw("ann")).decode()
    value = json.dumps({"specversion": "1.0", "type": "t", "source": "/s", "id": "1", "data_base64": data}).encode()
    headers = [("content-type", b"application/cloudevents+json")]
    script = Script()
    for offset in range(2):
        await bench.broker.write(TopicPartition(TOPIC, 0), b"k", value, headers)
        async with bench.running(script.handler()):
            await until(lambda offset=offset: bench.committed() == offset + 1)  # type: ignore[misc]  # its default binds it

    assert [user for user, _ in script.done] == ["ann"]


@pytest.mark.parametrize(("others", "rests"), [(19, True), (20, False)])
async def test_what_the_log_leaves_out_counts_as_a_record_that_is_no_garbage(
    bench: Bench, others: int, rests: bool
) -> None:
    """The ratio is over all of the last records: 20 of 39 are more than half, 20 of 40 are not."""
    garbage = [b"\xffgarbage %d" % number for number in range(20)]
    left_out = [raw(triggered_by="user") for _ in range(others)]
    script = Script()
    await bench.emit(*left_out, *garbage, raw("ann"))
    async with bench.running(script.handler(), undecodable_rest=3600) as worker:
        await until(lambda: len(bench.dead_letters()) == 20)
        (state,) = worker.claims.states.values()
        assert (state.backlog is not None) == rests
        await until(lambda: rests or script.done)


async def test_only_the_last_hundred_records_count_for_a_flood_whether_left_out_or_not(bench: Bench) -> None:
    """Garbage that lies a hundred records back is forgotten, so no partition rests for it."""
    garbage = [b"\xffgarbage %d" % number for number in range(45)]
    left_out = [raw(triggered_by="user") for _ in range(60)]
    await bench.emit(*left_out, *garbage[:40], *left_out, *garbage[40:], *left_out)
    async with bench.running(Script().handler(), undecodable_rest=3600):
        await until(lambda: len(bench.dead_letters()) == 45)


@pytest.mark.parametrize("read", [1, 7, 2_000])
async def test_each_record_counts_once_also_while_its_partition_rests(bench: Bench, read: int) -> None:
    """Taken, left out, or left out of what waits while the partition rests: the metrics add up to what was written."""
    values = [
        raw(triggered_by="user") if number % 3 else b"\xffgarbage %d" % number if number % 2 else raw()
        for number in range(900)
    ]
    script = Script()
    await bench.emit(*values)
    async with bench.running(
        script.handler(), read=read, undecodable_rest=0.05, undecodable_ratio=0.1, undecodable_at_least=3
    ) as worker:
        await until(lambda: len(bench.dead_letters()) == 150 and len(script.done) == 150)
        await until(lambda: bench.committed() == 900)
        value = worker.metrics.registry.get_sample_value

    assert value("usher_records_total", {"topic": TOPIC}) == 900
    assert value("usher_events_filtered_total", {"reason": "prefilter"}) == 600


@pytest.mark.parametrize("fails", [True, False])
async def test_a_worker_that_hears_of_a_loss_writes_tombstones_and_nothing_else(bench: Bench, fails: bool) -> None:
    """A commit says that the claim is another's: what fails then is not parked, nor what waits behind; a success is noted."""
    script, go = Script(), asyncio.Event()

    async def act(event: Event, _ctx: Context) -> None:
        if event.user.id == "ann":
            await go.wait()
            if fails:
                raise RuntimeError("the provider is down")

    script.act = act
    async with bench.running(script.handler()) as worker:
        await bench.emit(raw("ann"), raw("ann"))
        await until(lambda: len(script.attempts) == 1)
        group, place = bench.broker.group("usher"), TopicPartition(TOPIC, 0)
        mine = group.owned.pop(place)  # as for a worker that was frozen: the group has given it to another
        await bench.emit(raw("bob"))
        (state,) = worker.claims.states.values()
        await until(lambda: state.lost)
        go.set()
        await until(lambda: not state.tasks)
        written = bench.broker.partition(retry_topic("usher", TOPIC), 0).records
        begun = [user for user, *_ in script.attempts]
        group.owned[place] = mine

    assert [record.value for record in written] == ([] if fails else [None])
    assert begun.count("ann") == 1, "nothing begins after the loss"


@pytest.mark.parametrize(
    "odd",
    [
        *((name, b"9" * 30) for name in ("usher-due", "usher-attempt", "usher-first-failed-at", "usher-replays")),
        ("usher-due", b"999999999999999"),
        ("usher-due", b"9" * 5000),
        ("usher-attempt", "\u0663".encode()),
        ("usher-replay", b"x"),
        ("usher-event-id", b"%61uthgear/demo/x"),
        ("kafka_dlt-original-offset", b"9" * 30),
    ],
)
@pytest.mark.parametrize("loaded", [True, False], ids=["while it runs", "before it starts"])
async def test_a_record_with_an_odd_header_in_the_retry_topic_is_passed_over(
    bench: Bench, odd: tuple[str, bytes], loaded: bool
) -> None:
    """What Usher would not write, it does not read: a line says so, nothing ends, and no record with such a key is asked about."""
    origin = Origin(TOPIC, 0, 0, 1_764_240_000_000, None)
    delivery = Delivery("script", EventUid("authgear", "demo", "x"), "authgear/demo/v", origin, raw("v"))
    headers = [*delivery_headers(delivery), odd]
    script, place = Script(), TopicPartition(retry_topic("usher", TOPIC), 0)

    async def write() -> None:
        for value in (raw("v"), None):
            await bench.broker.write(place, delivery.key.encode(), value, headers)
            await bench.broker.write(place, b"script/a/b/c@0-" + b"9" * 5000, value, headers)

    with structlog.testing.capture_logs() as lines:
        if not loaded:
            await bench.broker.write(place, delivery.key.encode(), raw("v"), headers)
            await write()
        async with bench.running(script.handler()):
            if loaded:
                await write()
            await bench.emit(raw("ann"))
            await until(lambda: script.done)
            await until(lambda: "a foreign record in the retry topic" in [line["event"] for line in lines])

    assert [user for user, _ in script.done] == ["ann"]


async def test_the_gauges_of_a_partition_that_moved_away_are_taken_back(bench: Bench) -> None:
    """Two workers never report the same partition: a worker measures only the partitions that it has."""
    script = Script(act=_raising(Retry("later", after=60)))
    labels = {"topic": TOPIC, "partition": "0"}
    async with bench.running(script.handler()) as worker:
        await bench.emit(raw("ann"))
        registry = worker.metrics.registry
        await until(lambda: registry.get_sample_value("usher_parked", labels) == 1)
        event_log = worker.event_log
        assert isinstance(event_log, MemoryLog)
        async with bench.running(Script().handler()):
            bench.broker.evict(event_log)
            await bench.broker.readmit(event_log)
            await until(lambda: not event_log.held)
            await until(lambda: registry.get_sample_value("usher_parked", labels) is None)
            assert registry.get_sample_value("usher_lag", labels) is None


async def test_a_record_that_cannot_be_read_becomes_a_stub_and_reading_goes_on(bench: Bench) -> None:
    """Its dead letter has its place and says why; nothing is decoded of it, and the next record is delivered."""
    script = Script()
    async with bench.running(script.handler()):
        partition = TopicPartition(TOPIC, 0)
        bench.broker.put(partition, None, Unreadable("the header name is no text"))
        await bench.emit(raw("bob"))
        await until(lambda: script.done and bench.dead_letters())
        await until(lambda: bench.committed() == 2)

    [dead] = bench.dead_letters()
    assert (dead.reason, dead.delivery.error) == ("undecodable", "the header name is no text")
    assert (dead.delivery.origin.topic, dead.delivery.origin.partition, dead.delivery.offset) == (TOPIC, 0, 0)
    [stored] = bench.broker.partition(dead_letter_topic("usher", TOPIC), 0).records
    assert STUB in dict(stored.headers)


async def test_a_partition_that_stands_still_shows_in_the_metrics() -> None:
    """By its name, while the others go on; and not any more once it goes on too."""
    bench = Bench(MemoryBroker(partitions=2))
    stopped, script = TopicPartition(TOPIC, 1), Script()
    labels = {"topic": TOPIC, "partition": "1"}
    bench.broker.stopped[stopped] = "its records can't be read"
    async with bench.running(script.handler()) as worker:
        registry = worker.metrics.registry
        await until(lambda: registry.get_sample_value("usher_partition_stopped", labels) == 1)
        assert registry.get_sample_value("usher_partition_stopped", {**labels, "partition": "0"}) == 0
        for number in range(4):
            await bench.emit(raw(f"u{number}"), key=str(number).encode())
        await until(lambda: (registry.get_sample_value("usher_lag", labels) or 0) > 0)
        bench.broker.stopped.clear()
        await until(lambda: registry.get_sample_value("usher_partition_stopped", labels) == 0)
        await until(lambda: len(script.done) == 4)


async def test_a_lag_that_is_not_known_does_not_look_like_none(bench: Bench) -> None:
    """While the log can't be asked the last value stays."""
    script, labels = Script(), {"topic": TOPIC, "partition": "0"}
    async with bench.running(script.handler()) as worker:
        bench.broker.stopped[TopicPartition(TOPIC, 0)] = "for the test"
        await bench.emit(raw(), raw())

        def lag() -> float | None:
            return worker.metrics.registry.get_sample_value("usher_lag", labels)

        await until(lambda: lag() == 2)
        bench.broker.unavailable = True
        await worker.measures.take()
        assert lag() == 2
        bench.broker.unavailable = False
        bench.broker.stopped.clear()


async def test_a_partition_that_ends_before_what_was_read_is_logged(bench: Bench) -> None:
    """It was truncated or made anew: the lag is negative and not 0, and there is a line."""
    script, labels = Script(), {"topic": TOPIC, "partition": "0"}
    with capture_logs() as lines:
        async with bench.running(script.handler()) as worker:
            await bench.emit(raw(), raw())
            await until(lambda: bench.committed() == 2)
            log = bench.broker.partition(TOPIC, 0)
            log.end = 1
            await worker.measures.take()
            await worker.measures.take()
            assert worker.metrics.registry.get_sample_value("usher_lag", labels) == -1
            log.end = 2

    [line] = [line for line in lines if line["event"] == "a partition ends before what was read of it"]
    assert (line["topic"], line["partition"], line["position"], line["end"]) == (TOPIC, 0, 2, 1)


async def test_what_is_due_and_waits_for_a_partition_that_stands_still_is_overdue(bench: Bench) -> None:
    """Its age grows, although nothing may run it before the position has passed it."""
    script = Script(act=_fail)
    async with bench.running(script.handler()) as first:
        await bench.emit(raw("ann"))
        await until(bench.parked)
        first.stop()
    [claim] = [*bench.broker.group("usher").committed]
    bench.broker.group("usher").committed[claim] = Position(0)
    bench.broker.stopped[claim] = "for the test"

    async with bench.running(Script().handler()) as second:
        await until(lambda: second.metrics.registry.get_sample_value("usher_oldest_due_age_seconds"))
        bench.broker.stopped.clear()


def _fail(_event: Event, _ctx: Context) -> None:
    raise RuntimeError("not yet")
