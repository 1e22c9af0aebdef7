"""Traces of events in an event log: commits and their Marks, duplicates, deliveries whose event is gone."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from tests.fakes.memory_broker import MemoryBroker
from tests.fakes.memory_log import MemoryBrowser
from tests.receipts import receipt

from usher import Context, Event, on
from usher.delivery import Delivery, Origin, Replay, StoredRecord
from usher.delivery.headers import delivery_headers
from usher.engine.dead_letters import dead_letter_headers
from usher.engine.ledger import Mark, handlers_hash
from usher.event import EventUid
from usher.eventlog.names import dead_letter_topic, receipts_topic, retry_topic
from usher.eventlog.port import LogConfig, Position, TopicPartition
from usher.handler import Router
from usher.operate.fates import Fate
from usher.operate.progress import ReadingProgress
from usher.operate.trace import Question, trace
from usher.receipts import pack
from usher.settings import Settings
from usher.systems.decode import decode
from usher.systems.source import event_key
from usher.testing import raw_event

TOPIC, GROUP = "identity.events", "usher"
PARTITION = TopicPartition(TOPIC, 0)


@on("user.created")
async def first(event: Event, ctx: Context) -> None:
    """Runs."""


@on("user.created")
async def second(event: Event, ctx: Context) -> None:
    """Runs too."""


ROUTER = Router([first, second], ["admin_api"])


async def _log(*events: bytes) -> MemoryBrowser:
    browser = MemoryBrowser(LogConfig(GROUP, (TOPIC,)), MemoryBroker())
    for event in events:
        await browser.append(TOPIC, event_key(decode(event)), event, partition=0)
    return browser


def _commit(browser: MemoryBrowser, next_: int, mark: str = "") -> None:
    browser.broker.group(GROUP).committed[PARTITION] = Position(next_, mark)


@dataclass(frozen=True)
class Answer:
    """What `trace` says of one delivery, and of which arrival."""

    uid: EventUid
    offset: int
    handler: str
    state: str
    reason: str
    fate: Fate


@pytest.fixture
def why(tmp_path: Path) -> Callable[..., Awaitable[list[Answer]]]:
    """Asks about an event, in the event log of a browser."""

    async def ask(browser: MemoryBrowser, event_id: str, *, topics: str = TOPIC, **asked: Any) -> list[Answer]:
        settings = Settings.load({"USHER_CACHE_DIR": str(tmp_path), "USHER_TOPICS": topics}, env_file=None)
        question = Question(ids=(event_id,), since=0.0, **asked)
        found = await trace(settings, browser, ROUTER, question, ReadingProgress())
        return [
            Answer(event.uid, fate.sighting.offset, fate.handler, fate.state, fate.reason, fate)
            for event in found
            for fate in event.fates
        ]

    return ask


Why = Callable[..., Awaitable[list[Answer]]]


def states(answers: list[Answer]) -> dict[str, str]:
    return {each.handler: each.state for each in answers}


async def test_what_is_before_the_commit_is_settled(why: Why) -> None:
    """What is at it or after it waits."""
    browser = await _log(raw_event(id="0a"), raw_event(id="0b"))
    _commit(browser, 1)

    assert states(await why(browser, "0a")) == {"first": "no-receipt", "second": "no-receipt"}
    assert states(await why(browser, "0b")) == {"first": "not-read", "second": "not-read"}


async def test_the_mark_says_what_is_done_beyond_the_commit(why: Why) -> None:
    """Handler by handler; what it has not seen waits."""
    browser = await _log(*(raw_event(id=f"0{digit}") for digit in "abcd"))
    mark = Mark(0, 3, {0: 0, 2: 0b01}, handlers_hash(["first", "second"]))
    _commit(browser, 0, mark.encode())

    assert states(await why(browser, "0a")) == {"first": "running", "second": "running"}
    assert states(await why(browser, "0b")) == {"first": "no-receipt", "second": "no-receipt"}
    assert states(await why(browser, "0c")) == {"first": "no-receipt", "second": "running"}
    assert states(await why(browser, "0d")) == {"first": "not-read", "second": "not-read"}


async def test_the_bits_of_other_handlers_say_nothing(why: Why) -> None:
    """A Mark of another set of handlers: what is undone is undone for all."""
    browser = await _log(raw_event(id="0a"))
    _commit(browser, 0, Mark(0, 1, {0: 0b11}, handlers_hash(["other"])).encode())

    assert states(await why(browser, "0a")) == {"first": "running", "second": "running"}


async def test_a_second_arrival_is_a_duplicate(why: Why) -> None:
    """It names the first."""
    event = raw_event(id="0a")
    browser = await _log(event, event)
    _commit(browser, 2)

    fates = await why(browser, "0a")
    assert [(each.offset, each.state) for each in fates if each.handler == "first"] == [
        (0, "no-receipt"),
        (1, "duplicate"),
    ]
    assert fates[-1].reason == "it repeats identity.events 0@0"


async def test_two_tenants_events_of_one_id_are_two_events(why: Why) -> None:
    """They can be asked for one by one."""
    browser = await _log(raw_event(id="0a", tenant="one"), raw_event(id="0a", tenant="two"))

    assert {each.uid.tenant for each in await why(browser, "0a")} == {"one", "two"}
    assert {each.uid.tenant for each in await why(browser, "0a", tenant="two")} == {"two"}


async def test_a_parked_delivery_outlives_its_event(why: Why) -> None:
    """A delivery whose source record is gone, of a handler that is gone, is still shown, until its tombstone."""
    browser = await _log()
    event = decode(raw_event(id="0a"))
    parked = Delivery("removed", event.uid, "lane", Origin(TOPIC, 0, 7, 0, b"k"), b"{}", attempt=3, error="busy")
    retries = retry_topic(GROUP, TOPIC)
    await browser.append(retries, parked.key.encode(), parked.value, delivery_headers(parked), partition=0)

    (fate,) = await why(browser, "0a")
    assert (fate.handler, fate.state, fate.fate.attempts, fate.reason) == ("removed", "parked", 3, "busy")
    assert fate.fate.sighting.event is None

    await browser.append(retries, parked.key.encode(), None, partition=0)
    assert await why(browser, "0a") == []


async def test_what_waits_behind_another_names_it(why: Why) -> None:
    """The one right before it in its lane; the first of a lane waits for its own due time."""
    browser = await _log(*(raw_event(id=f"0{digit}") for digit in "abc"))
    retries, at = retry_topic(GROUP, TOPIC), 1_750_000_000_000
    for offset, digit in enumerate("abc"):
        uid = decode(raw_event(id=f"0{digit}")).uid
        parked = Delivery(
            "first", uid, "lane", Origin(TOPIC, 0, offset, 0, b"k"), b"{}", attempt=1, due=None if offset else at
        )
        await browser.append(retries, parked.key.encode(), parked.value, delivery_headers(parked), partition=0)

    found = {
        digit: next(each.fate for each in await why(browser, f"0{digit}") if each.handler == "first") for digit in "abc"
    }

    assert [(fate.state, fate.due) for fate in found.values()] == [("parked", at), ("parked", None), ("parked", None)]
    assert [fate.behind.partition("@")[0][-2:] for fate in found.values()] == ["", "0a", "0b"]


async def test_a_receipt_counts_before_its_tombstone_and_a_dead_letter_knows_more(why: Why) -> None:
    """A delivery that has ended is not parked any more, though its tombstone is not there yet; a replay that runs is parked."""
    browser = await _log(raw_event(id="0a"))
    uid, retries = decode(raw_event(id="0a")).uid, retry_topic(GROUP, TOPIC)
    parked = Delivery("first", uid, "lane", Origin(TOPIC, 0, 0, 0, b"k"), raw_event(id="0a"), attempt=1, error="503")
    await browser.append(retries, parked.key.encode(), parked.value, delivery_headers(parked), partition=0)
    at = {"tenant": uid.tenant, "topic": TOPIC}
    for value in pack([receipt("0a", "dead", handler="first", reason="rejected", **at)]):
        await browser.broker.write(TopicPartition(receipts_topic(GROUP), 0), None, value, ())

    assert [(each.state, each.reason) for each in await why(browser, "0a") if each.handler == "first"] == [
        ("dead", "rejected")
    ]

    headers = dead_letter_headers(parked, reason="rejected", group=GROUP, expires_at=None)
    await browser.append(dead_letter_topic(GROUP, TOPIC), b"k", parked.value, headers, partition=0)
    again = replace(parked, replay=Replay("r1", "0@0", 1))
    (dead,) = [each for each in await why(browser, "0a") if each.handler == "first"]
    await browser.append(retries, parked.key.encode(), again.value, delivery_headers(again), partition=0)
    (replaying,) = [each for each in await why(browser, "0a") if each.handler == "first"]

    assert (dead.state, dead.reason, dead.fate.dead_letter) == ("dead", "rejected: 503", "0@0")
    assert (replaying.state, [entry.receipt.state for entry in replaying.fate.history]) == ("parked", ["dead"])


async def test_a_foreign_record_under_the_key_of_a_delivery_is_shown_with_its_text(why: Why) -> None:
    """Workers pass over it, so the state is what it was; the detail says what is wrong with the record."""
    browser = await _log(raw_event(id="0a"))
    parked = Delivery("first", decode(raw_event(id="0a")).uid, "lane", Origin(TOPIC, 0, 0, 0, b"k"), b"{}", attempt=3)
    headers = [*delivery_headers(parked), ("usher-due", b"9" * 30)]
    await browser.append(retry_topic(GROUP, TOPIC), parked.key.encode(), b"{}", headers, partition=0)

    first_, second_ = await why(browser, "0a")

    assert (first_.state, second_.state) == ("not-read", "not-read")
    assert (
        "a foreign record under its key in the retry topic is passed over: the header 'usher-due' is" in first_.reason
    )
    assert "9" * 30 in first_.reason
    assert "foreign" not in second_.reason


async def test_what_was_parked_once_and_is_done_is_settled(why: Why) -> None:
    """Also if the commit is still before it."""
    browser = await _log(raw_event(id="0a"))
    event = decode(raw_event(id="0a"))
    key = Delivery("first", event.uid, "lane", Origin(TOPIC, 0, 0, 0, b"k"), b"{}").key
    await browser.append(retry_topic(GROUP, TOPIC), key.encode(), None, partition=0)
    _commit(browser, 0)

    assert states(await why(browser, "0a")) == {"first": "no-receipt", "second": "not-read"}


async def test_a_raw_topic_is_read_through_its_source(why: Why) -> None:
    """What a system wrote itself has an id only as its source reads it; what is no event there is passed over."""
    raw, body = "genauth-raw", b'{"eventName":"user:created","data":{"id":"u-1","registerSource":["import:excel"]}}'
    browser = MemoryBrowser(LogConfig(GROUP, (raw,)), MemoryBroker())
    for value in (b'{"eventName":"test"}', b"no JSON", body):
        await browser.append(raw, None, value, partition=0)

    fates = await why(browser, "created-u-1", topics=f"{raw}=genauth")

    assert {(each.handler, each.state, each.offset) for each in fates} == {
        ("first", "not-read", 2),
        ("second", "not-read", 2),
    }


async def test_what_an_open_transaction_holds_is_not_committed_yet(why: Why) -> None:
    """It is found, and distinguished from what waits for the worker; what no handler runs for is filtered all the same."""
    browser = await _log(raw_event(id="0a"))
    held = [raw_event(id="0b"), raw_event(id="0c", triggered_by="user")]
    browser.broker.uncommitted[TOPIC] = [
        StoredRecord(TOPIC, 0, offset, 1_000, b"k", value) for offset, value in enumerate(held, 2)
    ]
    _commit(browser, 1)

    fates = await why(browser, "0b")

    assert states(fates) == {"first": "not-read", "second": "not-read"}
    assert all("not committed yet" in each.reason for each in fates)
    assert states(await why(browser, "0c")) == {"first": "filtered", "second": "filtered"}
