"""Whose a record of our own topics is: each carries its group, its source topic and the id of that, and only ours count."""

from __future__ import annotations

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
from usher.engine.dead_letters import request
from usher.event import EventUid
from usher.eventlog.port import TopicPartition, dead_letter_topic, retry_topic
from usher.headers import ORIGINAL_GROUP, ORIGINAL_TOPIC, TOPIC_ID, Head, delivery_headers, owner_headers

RETRIES = TopicPartition(retry_topic("usher", TOPIC), 0)
DEAD = TopicPartition(dead_letter_topic("usher", TOPIC), 0)
PREVIOUS = Path(__file__).parents[1] / "samples" / "usher" / "records-0.json"
"""Records of the version before each carried its group and the id of its topic."""


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


def previous() -> Mapping[str, Mapping[str, Any]]:
    return {record["what"]: record for record in json.loads(PREVIOUS.read_text())}


def decoded(record: Mapping[str, Any]) -> tuple[bytes | None, bytes | None, Headers]:
    key, value = (None if record[name] is None else b64decode(record[name]) for name in ("key", "value"))
    return key, value, [(name, b64decode(text)) for name, text in record["headers"]]


def put_previous(bench: Bench, *whats: str) -> None:
    for what in whats:
        record = previous()[what]
        bench.broker.put(TopicPartition(record["topic"], 0), *decoded(record))


async def test_records_of_the_version_before_are_ours(bench: Bench) -> None:
    """What it parked is run, what it has done is not run again, and what it was asked is carried out and answered."""
    put_previous(bench, "parked", "tombstone", "dead letter", "request", "answer")
    script = Script()

    async with bench.running(script.handler(expires_after=None)):
        parked_value = decoded(previous()["parked"])[1]
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
