"""Receipts in the engine: each delivery that ends has one, and nothing on the log says that it ended before that."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from typing import Any

import pytest
from tests.engine import TOPIC, Bench, Script, raw, until
from tests.fakes.memory_broker import MemoryBroker
from tests.fakes.memory_log import MemoryLog

from usher import AccountDisabled, Context, Event, Reject, Retry, RetryPolicy, Skip
from usher.context import Outgoing
from usher.delivery import Delivery, Origin
from usher.delivery.headers import ORIGINAL_GROUP, WRITER, delivery_headers
from usher.engine.dead_letters import request
from usher.event import EventUid
from usher.eventlog.errors import LogUnavailable
from usher.eventlog.names import retry_topic
from usher.eventlog.port import Claim, TopicPartition
from usher.outcome import NoAddress, Unknown
from usher.receipts import Receipt, ended
from usher.receipts.keys import AddressKeys

pytestmark = pytest.mark.jumping


class Provider:
    """A `usher.context.Sender` that accepts mails, and counts them."""

    def __init__(self) -> None:
        self.accepted = 0

    async def email(self, outgoing: Outgoing) -> None:
        self.accepted += 1
        outgoing.provider, outgoing.language, outgoing.address = "sendgrid", "de", "Ann@Example.org"
        outgoing.provider_id, outgoing.state = f"id-{self.accepted}", "sent"

    async def sms(self, outgoing: Outgoing) -> None:
        raise AssertionError(outgoing)


@pytest.fixture
def bench() -> Bench:
    return Bench(MemoryBroker(), sender=Provider())


def states(receipts: Sequence[Receipt]) -> dict[str, tuple[str, str]]:
    return {receipt.event_id: (receipt.state, receipt.reason) for receipt in receipts}


async def test_each_way_to_end_has_its_state_and_reason(bench: Bench) -> None:
    """What is filtered or undecodable has no delivery: the first has no receipt, that of the second names no handler."""
    ends: dict[str, Exception] = {
        "no-address": NoAddress("nowhere"), "disabled": AccountDisabled("off"), "skipped": Skip("on holiday"),
        "rejected": Reject("never"), "unknown": Unknown("no answer", otherwise="dead-letter"), "in-vain": Retry("later"),
    }  # fmt: skip

    async def act(event: Event, ctx: Context) -> None:
        if event.id == "sent":
            await ctx.email("welcome_email", to="ann@example.org")
        elif event.id in ends:
            raise ends[event.id]

    late = json.loads(raw("late", event_id="late"))
    late["context"]["timestamp"] -= 10 * 86_400
    async with bench.running(Script(act=act).handler(retry=RetryPolicy(()))):
        await bench.emit(b"garbage", raw("bob", event_id="filtered", triggered_by="user"), json.dumps(late).encode())
        await bench.emit(*(raw(name, event_id=name) for name in ("done", "sent", *ends)))
        await until(lambda: bench.committed() == 11)

    assert states(bench.receipts()) == {
        "": ("dead", "undecodable"),
        "late": ("expired", "expired"),
        "done": ("done", ""),
        "sent": ("sent", ""),
        "no-address": ("skipped", "no-address"),
        "disabled": ("skipped", "disabled"),
        "skipped": ("skipped", "on holiday"),
        "rejected": ("dead", "rejected"),
        "unknown": ("unknown", "unknown-outcome"),
        "in-vain": ("dead", "attempts-exhausted"),
    }


async def test_a_receipt_says_who_took_the_message_and_has_no_address(bench: Bench) -> None:
    """The HMAC in it is that of the address, however it is written; a user's id that is an address is kept as its HMAC."""

    async def act(_event: Event, ctx: Context) -> None:
        await ctx.email("welcome_email", to="ann@example.org")

    async with bench.running(Script(act=act).handler()) as worker:
        await bench.emit(raw("ann@example.org", event_id="e1"))
        await until(lambda: bench.committed() == 1)
        [receipt], keys = bench.receipts(), AddressKeys([await worker.event_log.address_key()])

    assert (receipt.topic, receipt.partition, receipt.offset, receipt.handler) == (TOPIC, 0, 0, "script")
    assert (receipt.type, receipt.source, receipt.tenant) == ("user.created", "authgear", "demo")
    assert (receipt.channel, receipt.provider, receipt.provider_id) == ("email", "sendgrid", "id-1")
    assert (receipt.template, receipt.language, receipt.attempts) == ("welcome_email", "de", 1)
    assert (receipt.address, receipt.key) == (keys.address_hmac("ann@EXAMPLE.org", "email"), keys.name)
    assert receipt.user_id == keys.kept("ann@example.org")
    assert b"example.org" not in b"".join(r.value or b"" for r in bench.broker.partition("usher.receipts", 0).records)


async def test_a_message_whose_handler_failed_after_it_has_its_receipt_at_once(bench: Bench) -> None:
    """Sent and parked: the id is on the log before the retry is; the retry, which sends nothing again, adds no other one."""

    async def act(_event: Event, ctx: Context) -> None:
        await ctx.email("welcome_email", to="ann@example.org")
        if ctx.attempt == 1:
            assert not bench.receipts()
            raise RuntimeError("after it")
        assert [receipt.provider_id for receipt in bench.receipts()] == ["id-1"]

    async with bench.running(Script(act=act).handler()):
        await bench.emit(raw("ann"))
        await until(lambda: len(bench.receipts()) == 2)

    assert [(receipt.state, receipt.provider_id) for receipt in bench.receipts()] == [("sent", "id-1"), ("done", "")]


async def test_a_replay_has_a_receipt_of_its_own(bench: Bench) -> None:
    """It names the replay, and is there before the request is answered."""
    fails = [Reject("never")]

    def act(_event: Event, _ctx: Context) -> None:
        if fails:
            raise fails.pop()

    async with bench.running(Script(act=act).handler()):
        await bench.emit(raw("ann", event_id="e1"))
        await until(bench.dead_letters)
        key, value, headers = request(bench.dead_letters()[0], request_id="r1")
        await bench.broker.write(TopicPartition(retry_topic("usher", TOPIC), 0), key.encode(), value, headers)
        await until(lambda: bench.dead_letters()[0].state == "replayed")

    first, second = bench.receipts()
    assert (first.state, first.replay, second.state, second.replay) == ("dead", "", "replayed", "r1")
    assert first.delivery == second.delivery


async def test_a_message_whose_delivery_is_given_up_after_it_counts_as_sent(bench: Bench) -> None:
    """The provider has accepted it: a handler that rejects the event after that leaves nobody untold."""

    async def act(_event: Event, ctx: Context) -> None:
        await ctx.email("welcome_email", to="ann@example.org")
        raise Reject("after it")

    async with bench.running(Script(act=act).handler()):
        await bench.emit(raw("ann"))
        await until(lambda: bench.committed() == 1)

    [end] = ended(bench.receipts())
    assert (end.receipt.state, end.receipt.provider_id, end.told) == ("sent", "id-1", True)
    assert [letter.reason for letter in bench.dead_letters()] == ["rejected"]


async def test_a_message_of_an_attempt_that_failed_after_its_claim_was_gone_has_its_receipt(bench: Bench) -> None:
    """The next owner has the delivery, and sends the message again: that it went out twice must not be hidden."""
    accepted, go_on = asyncio.Event(), asyncio.Event()

    async def act(_event: Event, ctx: Context) -> None:
        await ctx.email("welcome_email", to="ann@example.org")
        accepted.set()
        await go_on.wait()
        raise RuntimeError("after it")

    worker = bench.worker([Script(act=act).handler()], drain=0.05)
    running = asyncio.create_task(worker.run())
    await bench.emit(raw("ann"))
    await accepted.wait()
    worker.stop()
    await until(lambda: not worker.claims.states)
    go_on.set()
    await running

    assert bench.committed() == 0
    assert [(receipt.state, receipt.provider_id) for receipt in bench.receipts()] == [("sent", "id-1")]


async def test_a_replay_whose_receipt_can_not_be_written_is_not_answered(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where its claim goes meanwhile: the next owner finds the request, and carries it out."""
    file, down, fails = MemoryLog.file, False, [Reject("never")]

    async def refusing(log: MemoryLog, claim: Claim, values: Sequence[bytes]) -> None:
        if down:
            raise LogUnavailable("the topic usher.receipts is full")
        await file(log, claim, values)

    def act(_event: Event, _ctx: Context) -> None:
        if fails:
            raise fails.pop()

    monkeypatch.setattr(MemoryLog, "file", refusing)
    script = Script(act=act)
    async with bench.running(script.handler(), drain=0.2) as worker:
        await bench.emit(raw("ann", event_id="e1"))
        await until(lambda: bench.dead_letters() and bench.committed() == 1)
        down = True
        key, value, headers = request(bench.dead_letters()[0], request_id="r1")
        await bench.broker.write(TopicPartition(retry_topic("usher", TOPIC), 0), key.encode(), value, headers)
        await until(lambda: script.done and worker.claims.receipts_trouble)
    requests = [
        r.value for r in bench.broker.partition(retry_topic("usher", TOPIC), 0).records if r.key == key.encode()
    ]
    assert requests == [value]
    assert [receipt.replay for receipt in bench.receipts()] == [""]

    down = False
    async with bench.running(script.handler()):
        await until(lambda: bench.dead_letters()[0].state == "replayed")
    assert [receipt.replay for receipt in bench.receipts()] == ["", "r1"]


async def test_whatever_a_handler_gives_as_a_text_its_receipt_can_be_read(bench: Bench) -> None:
    """The name of a template and the code of a skip are a handler's: what is no text must not spoil the receipts beside it."""

    class Marked(str):
        """As templates mark what is safe: each part of it is one of its own kind."""

        __slots__ = ()

        def __getitem__(self, _part: Any) -> Marked:
            return self

    class Numbered(Skip):
        code: Any = 404

    async def act(event: Event, ctx: Context) -> None:
        odd: dict[str, Any] = {"number": 404, "nothing": None, "marked": Marked("welcome_email")}
        if event.id == "skipped":
            raise Numbered("on holiday")
        await ctx.email(odd[event.id], to="ann@example.org")

    async with bench.running(Script(act=act).handler()):
        await bench.emit(*(raw(name, event_id=name) for name in ("number", "nothing", "marked", "skipped")))
        await until(lambda: bench.committed() == 4)

    assert {receipt.event_id: (receipt.template, receipt.reason) for receipt in bench.receipts()} == {
        "number": ("404", ""),
        "nothing": ("None", ""),
        "marked": ("welcome_email", ""),
        "skipped": ("", "404"),
    }


async def test_while_receipts_can_not_be_written_nothing_says_that_it_ended(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No commit and no tombstone; the worker says why it is not ready, stops to read in time, and goes on by itself."""
    file, down = MemoryLog.file, True

    async def refusing(log: MemoryLog, claim: Claim, values: Sequence[bytes]) -> None:
        if down:
            raise LogUnavailable("the topic usher.receipts is full")
        await file(log, claim, values)

    def act(event: Event, ctx: Context) -> None:
        if event.id == "retried" and ctx.attempt == 1:
            raise Retry("later", after=0.01)

    monkeypatch.setattr(MemoryLog, "file", refusing)
    script = Script(act=act)
    async with bench.running(script.handler(), unfiled=5, read=1) as worker:
        await bench.emit(raw("bob", event_id="retried"), *(raw(f"u{number}") for number in range(50)))
        await until(lambda: worker.claims.receipts_trouble and ("bob", "retried") in script.done)
        await asyncio.sleep(30)
        assert worker.claims.receipts_trouble == "the topic usher.receipts is full"
        assert (bench.committed(), len(bench.parked())) == (0, 1)
        assert 5 <= len(script.done) < 20
        down = False
        await until(lambda: bench.committed() == 51 and not bench.parked())
        assert worker.claims.receipts_trouble == ""

    assert len(bench.receipts()) == 51


async def test_what_another_worker_parks_late_is_taken_back_after_the_receipt(bench: Bench) -> None:
    """Its tombstone says that the delivery has ended, long before a commit would have filed that."""
    script = Script()
    async with bench.running(script.handler(), commit_every=3600) as worker:
        await bench.emit(raw("ann", event_id="e1"))
        await until(lambda: script.done)
        assert bench.receipts() == []
        (state,) = worker.claims.states.values()
        delivery = Delivery(
            "script", EventUid("authgear", "demo", "e1"), "authgear/demo/ann",
            Origin(TOPIC, 0, 0, 0, b"k", topic_id=state.claim.topic_id), raw("ann", event_id="e1"), attempt=1, due=1,
        )  # fmt: skip
        headers = [*delivery_headers(delivery), (ORIGINAL_GROUP, b"usher"), (WRITER, b"of another worker")]
        retries = TopicPartition(retry_topic("usher", TOPIC), 0)
        await bench.broker.write(retries, delivery.key.encode(), delivery.value, headers)
        await until(lambda: not bench.parked())

    assert [receipt.event_id for receipt in bench.receipts()] == ["e1"]


async def test_receipts_that_wait_are_bounded_over_all_partitions(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Many partitions whose receipts can't be written keep little more in memory than one."""

    async def refusing(_log: MemoryLog, _claim: Claim, _values: Sequence[bytes]) -> None:
        raise LogUnavailable("the topic usher.receipts is full")

    monkeypatch.setattr(MemoryLog, "file", refusing)
    bench.broker.partitions, script = 10, Script()
    async with bench.running(script.handler(), unfiled=20, read=1, drain=0.1):
        for number in range(400):
            await bench.emit(raw(f"u{number}"), key=f"u{number}".encode())
        await asyncio.sleep(30)

    assert 20 <= len(script.done) < 60


async def test_trouble_with_receipts_goes_with_its_claim(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is of one partition: who has that one is not ready, and nobody else."""
    file = MemoryLog.file

    async def refusing(log: MemoryLog, claim: Claim, values: Sequence[bytes]) -> None:
        if claim.partition == 1:
            raise LogUnavailable("no leader")
        await file(log, claim, values)

    monkeypatch.setattr(MemoryLog, "file", refusing)
    bench.broker.partitions, limits = 2, {"drain": 0.1}
    async with bench.running(Script().handler(), **limits) as first:
        await bench.emit(raw("ann"), key=next(key for key in (b"a", b"b", b"c") if bench.broker.partition_of(key) == 1))
        await until(lambda: first.claims.receipts_trouble)
        async with bench.running(Script("other").handler(), **limits) as second:
            await until(lambda: second.claims.receipts_trouble == "no leader")
            assert first.claims.receipts_trouble == ""


async def test_receipts_that_hang_hold_up_no_other_partition(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where one partition of the receipts does not answer, the others are committed in time, at a stop too."""
    file = MemoryLog.file

    async def hanging(log: MemoryLog, claim: Claim, values: Sequence[bytes]) -> None:
        if claim.partition == 1:
            await asyncio.Event().wait()
        await file(log, claim, values)

    monkeypatch.setattr(MemoryLog, "file", hanging)
    bench.broker.partitions, script = 2, Script()
    keys = {bench.broker.partition_of(key): key for key in map(str.encode, "abcdefgh")}
    async with bench.running(script.handler()) as worker:
        await bench.emit(raw("ann"), key=keys[1])
        await until(lambda: script.done)
        await bench.emit(raw("bob"), key=keys[0])
        await until(lambda: bench.committed(0) == 1, within=10)
        assert "/1 " in worker.claims.receipts_trouble
        await bench.emit(raw("cleo"), key=keys[0])
        await until(lambda: len(script.done) == 3)

    assert (bench.committed(0), bench.committed(1)) == (2, 0)


async def test_one_write_files_what_has_ended_meanwhile(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two hundred retries that succeed at once are filed in a few records, not in two hundred."""
    file, written = MemoryLog.file, list[int]()

    async def counted(log: MemoryLog, claim: Claim, values: Sequence[bytes]) -> None:
        written.append(len(values))
        await asyncio.sleep(0.005)
        await file(log, claim, values)

    def act(_event: Event, ctx: Context) -> None:
        if ctx.attempt == 1:
            raise Retry("later", after=1)

    monkeypatch.setattr(MemoryLog, "file", counted)
    async with bench.running(Script(act=act).handler()):
        await bench.emit(*(raw(f"u{number}") for number in range(200)))
        await until(lambda: len(bench.receipts()) == 200 and not bench.parked())

    assert len(written) < 40


async def test_no_claim_is_read_before_there_is_a_key(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """A receipt without one could not say whose it is: the worker waits for the log, and then goes on."""
    find, asked = MemoryLog.address_key, list[Any]()

    async def late(log: MemoryLog) -> bytes:
        asked.append(log)
        if len(asked) < 3:
            raise LogUnavailable("not now")
        return await find(log)

    monkeypatch.setattr(MemoryLog, "address_key", late)
    script = Script()
    await bench.emit(raw("ann"))
    async with bench.running(script.handler()):
        await until(lambda: bench.committed() == 1)

    assert len(asked) >= 3
    assert [receipt.state for receipt in bench.receipts()] == ["done"]


async def test_without_receipts_nothing_is_written(bench: Bench) -> None:
    """`USHER_RECEIPTS=off`: no key is asked for, and no record is filed."""
    bench.receipts_on = False
    script = Script()
    async with bench.running(script.handler()):
        await bench.emit(raw("ann"))
        await until(lambda: bench.committed() == 1)

    assert bench.receipts() == []
