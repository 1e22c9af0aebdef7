"""Whose a record of our own topics is: each carries its group, its source topic and the id of that, and only ours count."""

from __future__ import annotations

import asyncio
import json
from base64 import b64decode
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs
from tests.engine import TOPIC, Bench, Script, raw, until
from tests.fakes.memory_broker import MemoryBroker

from usher import Context, Event, Reject, Retry
from usher.delivery import Delivery, Headers, Origin
from usher.delivery.headers import ORIGINAL_GROUP, ORIGINAL_TOPIC, TOPIC_ID, Head, delivery_headers, owner_headers
from usher.engine.dead_letters import request
from usher.event import EventUid
from usher.eventlog.names import dead_letter_topic, retry_topic
from usher.eventlog.port import TopicPartition
from usher.outcome import Hold

RETRIES = TopicPartition(retry_topic("usher", TOPIC), 0)
DEAD = TopicPartition(dead_letter_topic("usher", TOPIC), 0)
SAMPLES = Path(__file__).parents[1] / "samples" / "usher"
PREVIOUS = ("records-0.json", "records-1.json")
"""Records of earlier versions: in those of the first one no record carried its group and the id of its topic."""

pytestmark = pytest.mark.jumping


@pytest.fixture
def bench() -> Bench:
    return Bench(MemoryBroker())


def parked(event: str, offset: int, topic: str = TOPIC, *, handler: str = "script") -> Delivery:
    origin = Origin(topic, 0, offset, 0, b"k")
    value = raw("ann", event_id=event)
    return Delivery(handler, EventUid("authgear", "demo", event), "authgear/demo/ann", origin, value, attempt=1, due=1)


def names(headers: Headers) -> tuple[bytes | None, ...]:
    head = Head(headers)
    return head.get(ORIGINAL_GROUP), head.get(ORIGINAL_TOPIC), head.get(TOPIC_ID)


async def test_each_record_of_ours_says_whose_it_is(bench: Bench) -> None:
    """Parked records, tombstones, dead letters, what became of them, requests and their answers name group and topic."""
    script = Script()

    def act(event: Event, ctx: Context) -> None:
        if event.id == "bad":
            raise Reject("no")
        if ctx.attempt == 1:
            raise Retry("busy")

    script.act = act
    async with bench.running(script.handler()):
        await bench.emit(raw("ann", event_id="good"), raw("bob", event_id="bad"), b"no event")
        await until(lambda: script.done and len(bench.dead_letters()) == 2 and not bench.parked())
        refused = next(each for each in bench.dead_letters() if each.handler)
        script.act = None
        key, value, headers = request(refused, request_id="r1")
        bench.broker.put(RETRIES, key.encode(), value, headers)
        await until(lambda: "replayed" in {each.state for each in bench.dead_letters()})
        await until(lambda: bench.broker.partition(*RETRIES).records[-1].key == b"replay/r1")
        await until(lambda: bench.broker.partition(*RETRIES).records[-1].value is None)

    records = [*bench.broker.partition(*RETRIES).records, *bench.broker.partition(*DEAD).records]
    assert {names(record.headers)[:2] for record in records} == {(b"usher", TOPIC.encode())}
    assert len(records) == 4 + 3


@pytest.mark.parametrize(("group", "topic"), [("usher.identity", "events"), ("usher", "events"), ("other", TOPIC)])
async def test_a_record_of_another_group_or_topic_is_passed_over(bench: Bench, group: str, topic: str) -> None:
    """It is not run, not answered, and not counted, whether it was there before the claim or comes later."""
    script = Script()
    before, later = parked("before", 0, topic), parked("later", 1, topic)

    def put(delivery: Delivery) -> None:
        headers = [*delivery_headers(delivery), (ORIGINAL_GROUP, group.encode())]
        bench.broker.put(RETRIES, delivery.key.encode(), delivery.value, headers)

    put(before)
    async with bench.running(script.handler()) as worker:
        await bench.emit(*(raw(f"u{number}") for number in range(3)))
        await until(lambda: len(script.done) == 3)
        put(later)
        await bench.emit(raw("last"))
        await until(lambda: bench.committed() == 4)
        assert [len(state.table) for state in worker.claims.states.values()] == [0]

    assert {user for user, _ in script.done} == {"u0", "u1", "u2", "last"}
    assert [record.key for record in bench.broker.partition(*RETRIES).records] == [
        delivery.key.encode() for delivery in (before, later)
    ]


async def test_a_tombstone_of_another_group_ends_nothing(bench: Bench) -> None:
    """What is parked stays parked when somebody else is done with a delivery of the same key."""
    delivery = parked("mine", 0)
    headers = [*delivery_headers(delivery), (ORIGINAL_GROUP, b"usher")]
    bench.broker.put(RETRIES, delivery.key.encode(), delivery.value, headers)
    bench.broker.put(RETRIES, delivery.key.encode(), None, owner_headers("usher.identity", "events"))
    script = Script()

    async with bench.running(script.handler()):
        await bench.emit(raw("bob"))
        await until(lambda: len(script.done) == 2)

    assert {event for _, event in script.done} >= {"mine"}


async def test_a_request_of_another_group_is_not_carried_out(bench: Bench) -> None:
    """Nor is it answered: its own group has to find it."""
    delivery = parked("theirs", 0, "events")
    headers = [*delivery_headers(delivery), (ORIGINAL_GROUP, b"usher.identity"), ("usher-replay", b"r9")]
    headers.append(("usher-dead-letter", b"0@0"))
    bench.broker.put(RETRIES, b"replay/r9", delivery.value, headers)
    script = Script()

    async with bench.running(script.handler()):
        await bench.emit(raw("bob"))
        await until(lambda: bench.committed() == 1)

    assert [user for user, _ in script.done] == ["bob"]
    assert len(bench.broker.partition(*RETRIES).records) == 1


async def test_foreign_records_are_warned_about_once_a_minute(bench: Bench) -> None:
    """A thousand of them are one line, which names the group and the topic they are of."""
    for number in range(1000):
        delivery = parked(f"e{number}", number, "events")
        headers = [*delivery_headers(delivery), (ORIGINAL_GROUP, b"usher.identity")]
        bench.broker.put(RETRIES, delivery.key.encode(), delivery.value, headers)

    with capture_logs() as lines:
        async with bench.running(Script().handler()):
            pass

    [line] = [line for line in lines if line["event"] == "a foreign record in the retry topic"]
    assert line["error"] == "it is of group usher.identity, topic events"
    assert (line["topic"], line["partition"]) == RETRIES


# Records of the version before


def previous(name: str = PREVIOUS[0]) -> Mapping[str, Mapping[str, Any]]:
    return {record["what"]: record for record in json.loads((SAMPLES / name).read_text())}


def decoded(record: Mapping[str, Any]) -> tuple[bytes | None, bytes | None, Headers]:
    key, value = (None if record[name] is None else b64decode(record[name]) for name in ("key", "value"))
    return key, value, [(name, b64decode(text)) for name, text in record["headers"]]


def put_previous(bench: Bench, *whats: str, name: str = PREVIOUS[0]) -> None:
    for what in whats:
        record = previous(name)[what]
        bench.broker.put(TopicPartition(record["topic"], 0), *decoded(record))


@pytest.mark.parametrize("name", PREVIOUS)
async def test_records_of_earlier_versions_are_ours(bench: Bench, name: str) -> None:
    """What they parked is run, what they have done is not run again, and what they were asked is carried out and answered."""
    put_previous(bench, "parked", "tombstone", "dead letter", "request", "answer", name=name)
    script = Script()

    async with bench.running(script.handler(expires_after=None)):
        parked_value = decoded(previous(name)["parked"])[1]
        done_value = parked_value.replace(b"0a01", b"0a00") if parked_value else b""
        await bench.emit(raw("first"), done_value, raw("third"))
        await until(lambda: len(script.done) == 4 and bench.committed() == 3)
        await until(lambda: not pending(bench))

    assert sorted(event for user, event in script.done if user == "u1") == ["0a01", "0a02"]
    [dead_letter] = bench.dead_letters()
    assert dead_letter.state == "replayed"


def pending(bench: Bench) -> Sequence[bytes | None]:
    """The keys of the retry partition whose last record has a value."""
    last = {record.key: record.value for record in bench.broker.partition(*RETRIES).records}
    return [key for key, value in last.items() if value is not None]


# A source topic that was made anew


async def test_a_topic_made_anew_is_read_from_its_start_and_what_was_parked_of_the_old_one_goes_out(
    bench: Bench,
) -> None:
    """Neither the old offset nor the old offset of a parked delivery means anything in the new topic."""
    script = Script()
    gate = asyncio.Event()

    def act(event: Event, _ctx: Context) -> None:
        if event.id == "parked" and not gate.is_set():
            raise Hold("paused", after=0.05)

    script.act = act
    async with bench.running(script.handler()):
        await bench.emit(*(raw(f"u{number}") for number in range(5)), raw("ann", event_id="parked"))
        await until(lambda: bench.committed() == 6 and bench.parked())
        bench.broker.remake(TOPIC)
        await bench.emit(raw("bob", event_id="new"), raw("ann", event_id="after"))
        await until(lambda: ("bob", "new") in script.done)
        gate.set()
        await until(lambda: bench.committed() == 2 and not bench.parked())

    assert [event for user, event in script.done if user == "ann"] == ["parked", "after"]
    ids = {names(record.headers)[2] for record in bench.broker.partition(*RETRIES).records if record.value}
    assert ids == {f"{TOPIC}#1".encode(), f"{TOPIC}#2".encode()}


async def test_what_is_in_memory_of_a_deleted_topic_is_parked_before_the_claim_goes(bench: Bench) -> None:
    """What runs and what is queued behind it go out all the same, each once and in order: nobody could read them again."""
    script = Script()
    gate = asyncio.Event()

    async def act(event: Event, _ctx: Context) -> None:
        if event.id == "first":
            await gate.wait()

    script.act = act
    async with bench.running(script.handler()):
        await bench.emit(*(raw("ann", event_id=name) for name in ("first", "second", "third")))
        await until(lambda: script.attempts)
        bench.broker.remake(TOPIC)
        await until(lambda: len(bench.parked()) == 3)
        gate.set()
        await bench.emit(raw("ann", event_id="fourth"))
        await until(lambda: bench.committed() == 1 and not bench.parked() and len(script.done) == 4)

    assert [event for _, event in script.done] == ["first", "second", "third", "fourth"]


async def test_a_late_word_about_the_old_topic_does_not_repeat_what_is_done(bench: Bench) -> None:
    """A park record of a worker that was frozen is answered where a tombstone of the same topic is known."""
    script = Script()
    script.act = lambda event, ctx: (_ for _ in ()).throw(Retry("busy", after=0)) if ctx.attempt == 1 else None
    async with bench.running(script.handler()):
        bench.broker.remake(TOPIC)
        await until(lambda: bench.broker.group("usher").topic_ids[TopicPartition(TOPIC, 0)].endswith("#2"))
        old = parked("old", 7)
        headers = [*delivery_headers(old), (ORIGINAL_GROUP, b"usher"), (TOPIC_ID, f"{TOPIC}#1".encode())]
        bench.broker.put(RETRIES, old.key.encode(), old.value, headers)
        await until(lambda: script.done and not bench.parked())
        bench.broker.put(RETRIES, old.key.encode(), old.value, headers)
        await until(lambda: not bench.parked())

    assert [event for _, event in script.done] == ["old"]
