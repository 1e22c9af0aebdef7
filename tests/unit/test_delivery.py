"""A delivery is written into headers and read back the same; its keys are stable and can be taken apart."""

from __future__ import annotations

import json
from dataclasses import replace
from urllib.parse import unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from usher.delivery import Delivery, Origin, Replay, StoredRecord, delivery_key, lane_of, offset_in, opaque
from usher.delivery.headers import ATTEMPT, EVENT_ID, HANDLER, Head, delivery_headers, read_delivery
from usher.event import EventUid, idempotency_key
from usher.systems.decode import decode

TEXT = st.text(max_size=40)
WHEN = st.integers(0, 2**45)
HEADERS = st.lists(
    st.tuples(TEXT.filter(lambda name: not name.startswith(("usher-", "kafka_dlt-"))), st.binary(max_size=20)),
    max_size=3,
).map(tuple)
ORIGINS = st.builds(
    Origin, TEXT, st.integers(0, 999), st.integers(0, 2**60), WHEN, st.none() | st.binary(max_size=20), HEADERS
)
IDENTITIES = st.builds(EventUid, TEXT, TEXT, TEXT)
PLAIN = st.builds(
    Delivery,
    handler=st.from_regex(r"[a-z][a-z0-9_]{0,20}", fullmatch=True),
    uid=IDENTITIES,
    lane=TEXT,
    origin=ORIGINS,
    value=st.binary(max_size=50),
    attempt=st.integers(0, 50),
    due=st.none() | WHEN,
    first_failed_at=st.none() | WHEN,
    error=TEXT,
    error_type=TEXT,
    sent=st.booleans(),
    replays=st.integers(0, 9),
)
DELIVERIES = PLAIN | st.builds(
    lambda delivery, id_, dead_letter, count, even: replace(delivery, replays=count, replay=Replay(id_, dead_letter, count, even)),
    PLAIN, st.uuids().map(str), st.just("3@17"), st.integers(1, 9), st.booleans(),
)  # fmt: skip

ONE = Delivery("welcome_email", EventUid("authgear", "shop", "7"), "l", Origin("t", 3, 42, 1, b"k"), b"{}")


def stored(delivery: Delivery) -> StoredRecord:
    return StoredRecord("usher.t-retry", 0, 0, 0, delivery.key.encode(), delivery.value, delivery_headers(delivery))


@given(DELIVERIES)
def test_a_delivery_survives_its_headers(delivery: Delivery) -> None:
    """Everything that is known of it comes back, the stranger's headers and key included."""
    assert read_delivery(stored(delivery)) == delivery


@given(DELIVERIES)
def test_a_key_can_be_taken_apart(delivery: Delivery) -> None:
    """Handler first, the source offset last, and nothing in an id can be taken for a divider."""
    assert delivery.key.split("/")[0] == delivery.handler
    assert delivery.key.count("/") == 3
    assert delivery.key.count("@") == 1
    assert offset_in(delivery.key) == delivery.offset


def test_a_key_names_the_delivery() -> None:
    """As an operator sees it."""
    assert ONE.key == "welcome_email/authgear/shop/7@3-42"
    assert delivery_key("h", EventUid("a", "b c", "x/y@z"), 0, 1) == "h/a/b%20c/x%2Fy%40z@0-1"
    assert len(delivery_key("h", EventUid("a", "b", "x" * 5000), 0, 1)) < 100
    assert offset_in("replay/abc") == -1


def test_a_failure_keeps_when_the_first_one_was() -> None:
    """Later ones only add to the count."""
    first = ONE.failed(attempt=1, due=10, now=5, error="a", error_type="A")
    second = first.failed(attempt=2, due=20, now=15, error="b", error_type="B")

    assert (first.first_failed_at, second.first_failed_at) == (5, 5)
    assert (second.attempt, second.due, second.error, second.error_type) == (2, 20, "b", "B")


def test_the_idempotency_key_depends_on_handler_and_event_alone() -> None:
    """Not on where the event lies, nor on the attempt; it is short and plain."""
    moved = replace(ONE, origin=Origin("other", 9, 1, 1, None), attempt=4)

    assert ONE.idempotency_key == moved.idempotency_key == idempotency_key("welcome_email", ONE.uid)
    assert ONE.idempotency_key != replace(ONE, handler="sms_notice").idempotency_key
    assert ONE.idempotency_key != replace(ONE, uid=EventUid("authgear", "shop2", "7")).idempotency_key


@given(TEXT, TEXT, TEXT, TEXT, TEXT, TEXT)
def test_lanes_of_different_users_never_meet(a: str, b: str, c: str, d: str, e: str, f: str) -> None:
    """Whatever characters their ids hold; an event without a user has a lane that no user has."""
    if (a, b, c) != (d, e, f) and c and f:
        assert lane_of(a, b, c, "x") != lane_of(d, e, f, "x")
    if c:
        assert lane_of(a, b, c, "x") != lane_of(a, b, None, c)


def test_strangers_can_not_write_our_headers() -> None:
    """A producer's `usher-attempt` is not taken over; its own headers are."""
    record = StoredRecord(
        "t", 0, 1, 2, b"k", b"v", [(ATTEMPT, b"9"), ("kafka_dlt-original-topic", b"x"), ("trace", b"1")]
    )

    assert Origin.of(record) == Origin("t", 0, 1, 2, b"k", (("trace", b"1"),))


@pytest.mark.parametrize(
    ("headers", "said"),
    [
        ({}, "the header 'usher-event-id' is missing: not written by Usher?"),
        ({EVENT_ID: b"a/b"}, "the header 'usher-event-id' has 2 parts, and should have 3"),
        ({EVENT_ID: b"a/b/c"}, "the header 'kafka_dlt-original-topic' is missing"),
    ],
)
def test_a_record_that_usher_did_not_write_is_none(headers: dict[str, bytes], said: str) -> None:
    """The error names the header."""
    with pytest.raises(ValueError, match=said.replace("?", r"\?")):
        read_delivery(StoredRecord("t", 0, 0, 0, None, b"", list(headers.items())))


def test_a_number_in_a_header_is_one() -> None:
    """The error shows what is there instead."""
    with pytest.raises(ValueError, match="the header 'usher-attempt' is 'many', and should be a whole number"):
        Head([(ATTEMPT, b"many")]).integer(ATTEMPT)
    assert Head([(HANDLER, b"a"), (HANDLER, b"b")]).text(HANDLER) == "b"


@pytest.mark.parametrize("id_", ["evt-ann@example.org", "ann@localhost", "+44 7700 900123", "x" * 300])
def test_an_id_that_is_a_person_stands_in_no_key_and_no_header(id_: str) -> None:
    """Of an event and of a user: another word stands for it, always the same. Ids of digits are ids."""
    event = decode(json.dumps({"id": id_, "type": "user.created", "source": "own", "user": {"id": id_}}).encode())
    lane = lane_of("own", "", event.user.id, "0-1")
    delivery = Delivery("welcome", event.uid, lane, Origin("t", 0, 1, 1, None), b"")
    written = str([delivery.key, delivery.lane_key, *delivery_headers(delivery)])

    assert id_ not in unquote(written)
    assert event.id == decode(json.dumps({"id": id_, "type": "t", "source": "own"}).encode()).id == opaque(id_)
    assert opaque("90020240101123456789") == "90020240101123456789"
    assert opaque("auth0|64c0ffee0000000000000a01") == "auth0|64c0ffee0000000000000a01"


@pytest.mark.parametrize("alone", ["", "/0-17"])
def test_what_an_earlier_version_parked_stays_in_the_lane_of_its_user(alone: str) -> None:
    """A lane with an address in it, as it was written once, is the lane that the user's next event gets. Its key stays its key."""
    uid = EventUid("own", "", "evt-ann@example.org")
    old = Delivery("welcome", uid, f"own//ann%40example.org{alone}", Origin("t", 0, 17, 1, None), b"")
    read = read_delivery(stored(old))

    assert read.lane == lane_of("own", "", "ann@example.org", "") + alone
    assert read.key == old.key
