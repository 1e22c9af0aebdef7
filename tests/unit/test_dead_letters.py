"""The dead-letter topic is a journal: its records fold into dead letters and what became of them."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from usher.delivery import Delivery, Headers, Origin, Replay, StoredRecord
from usher.delivery.headers import delivery_headers, read_delivery
from usher.engine.dead_letters import (
    MAX_REPLAYS,
    OPEN_STATES,
    DeadLetter,
    State,
    dead_letter_headers,
    dead_letter_id,
    fold,
    mark_requested,
    pending_requests,
    request,
    request_key,
    state_headers,
    undecodable,
)
from usher.event import EventUid

ONE = Delivery(
    handler="welcome_email",
    uid=EventUid("authgear", "shop", "7"),
    lane="authgear/shop/u1",
    origin=Origin("identity.events", 2, 42, 1_700_000_000_000, b"u1", (("traceparent", b"00-1"),)),
    value=b'{"id": "7"}',
    attempt=5,
    first_failed_at=1_700_000_001_000,
    error="no such mailbox",
    error_type="usher.outcome.Reject",
)


class Journal:
    """One partition of a dead-letter topic."""

    def __init__(self, partition: int = 2) -> None:
        self.partition = partition
        self.records: list[StoredRecord] = []

    def add(self, headers: Headers, value: bytes | None = None, *, at: int = 1000) -> str:
        offset = len(self.records)
        self.records.append(StoredRecord("usher.t-dlt", self.partition, offset, at, None, value, headers))
        return dead_letter_id(self.partition, offset)

    def dead_letter(self, delivery: Delivery = ONE, *, reason: str = "rejected", expires_at: int | None = None) -> str:
        headers = dead_letter_headers(delivery, reason=reason, group="usher", expires_at=expires_at)
        return self.add(headers, delivery.value)

    def opened(self, delivery: Delivery = ONE) -> DeadLetter:
        """A dead letter, written and read."""
        id_ = self.dead_letter(delivery)
        return self.dead_letters[id_]

    def mark(self, dead_letter: str, state: State, note: str = "") -> None:
        self.add(state_headers(dead_letter, state, group="usher", topic="identity.events", note=note, replay="r1"))

    @property
    def dead_letters(self) -> dict[str, DeadLetter]:
        found: dict[str, DeadLetter] = {}
        fold(self.records, found)
        return found


def test_a_dead_letter_is_read_back_as_it_was_written() -> None:
    """The delivery with its bytes, why, when, whose, and until when it would have been good."""
    journal = Journal()
    id_ = journal.dead_letter(expires_at=2000)

    dead_letter = journal.dead_letters[id_]

    assert dead_letter == DeadLetter("2@0", 2, 0, 1000, "rejected", ONE, 2000, "usher")
    assert (dead_letter.handler, dead_letter.state, dead_letter.delivery.origin.headers) == (
        "welcome_email", "open", (("traceparent", b"00-1"),),
    )  # fmt: skip
    assert [dead_letter.expired(now) for now in (1999, 2000, 2001)] == [False, False, True]


@pytest.mark.parametrize(
    "name", ["usher-expires-at", "usher-attempt", "usher-due", "usher-first-failed-at", "usher-replays"]
)
def test_a_number_out_of_range_makes_a_dead_letter_foreign(name: str) -> None:
    """It is shown with the text that it holds, and is not open: nobody replays it."""
    journal, odd = Journal(), "9" * 30
    id_ = journal.add(
        [*dead_letter_headers(ONE, reason="rejected", group="usher", expires_at=None), (name, odd.encode())]
    )

    dead_letter = journal.dead_letters[id_]

    assert dead_letter.state == "foreign"
    assert name in dead_letter.note
    assert odd in dead_letter.note
    assert dead_letter.handler == ""


def test_a_foreign_request_is_nobodys() -> None:
    """A record under the key of a request that holds no delivery is passed over."""
    record = StoredRecord("usher.t-retry", 0, 0, 0, b"replay/r1", b"{}", [("usher-attempt", b"9" * 30)])

    assert pending_requests([record]) == {}


def test_a_dead_letter_without_expiry_never_expires() -> None:
    """None is not zero."""
    journal = Journal()

    assert not journal.opened().expired(2**60)


@pytest.mark.parametrize("state", ["replayed", "dropped", "refused"])
def test_a_state_record_says_what_became_of_a_dead_letter(state: State) -> None:
    """The others stay as they are; a refused one is still open."""
    journal = Journal()
    first, second = journal.dead_letter(), journal.dead_letter()
    journal.mark(first, state, "because")

    dead_letters = journal.dead_letters

    assert (dead_letters[first].state, dead_letters[first].note, dead_letters[second].state) == (
        state,
        "because",
        "open",
    )
    assert (state in OPEN_STATES) == (state == "refused")


def test_a_replay_that_fails_replaces_its_dead_letter() -> None:
    """The newer dead letter counts, says how often it was replayed, and is open."""
    journal = Journal()
    old = journal.dead_letter()
    again = replace(ONE, replays=1, replay=Replay("r1", old, 1), error="still no such mailbox")
    new = journal.dead_letter(again)

    dead_letters = journal.dead_letters

    assert (dead_letters[old].state, dead_letters[old].note) == ("replaced", f"by {new}")
    assert (dead_letters[new].state, dead_letters[new].delivery.replays, dead_letters[new].delivery.replay) == (
        "open",
        1,
        None,
    )


def test_what_others_wrote_there_is_passed_over() -> None:
    """Records without our headers, states of no dead letter, dead letters that can't be read, and states of a later version."""
    journal = Journal()
    journal.add([("kafka_dlt-exception-message", b"oops")], b"of another tool")
    journal.add([("usher-reason", b"rejected")], b"half a dead letter")
    journal.mark("2@99", "dropped")
    dead_letter = journal.dead_letter()
    journal.add([("usher-dead-letter", dead_letter.encode()), ("usher-state", b"embalmed")])

    assert {id_: dead_letter.state for id_, dead_letter in journal.dead_letters.items()} == {dead_letter: "open"}


def test_bytes_that_are_no_event_have_a_dead_letter_without_a_handler() -> None:
    """With everything that is needed to route them anew."""
    journal = Journal(partition=0)
    source = StoredRecord("identity.events", 0, 5, 77, b"k", b"{oops", [("h", b"1"), ("usher-attempt", b"9")])
    id_ = journal.dead_letter(undecodable(source, "no JSON"), reason="undecodable")

    delivery = journal.dead_letters[id_].delivery

    assert (delivery.handler, delivery.value, delivery.attempt) == ("", b"{oops", 0)
    assert delivery.origin == Origin("identity.events", 0, 5, 77, b"k", (("h", b"1"),))


def test_a_request_asks_for_one_fresh_attempt_of_the_handler_that_failed() -> None:
    """It has the dead letter that it is about, how often that has been replayed, and whether it may be late."""
    journal = Journal()
    dead_letter = journal.opened(replace(ONE, replays=2))

    key, value, headers = request(dead_letter, request_id="r7", even_expired=True)
    asked = read_delivery(StoredRecord("usher.t-retry", 2, 0, 0, key.encode(), value, headers))

    assert (key, value) == ("replay/r7", ONE.value)
    assert asked == replace(
        ONE, attempt=0, due=None, replays=3, replay=Replay("r7", dead_letter.id, 3, even_expired=True)
    )
    assert asked.idempotency_key == ONE.idempotency_key
    assert MAX_REPLAYS >= 3


def test_requests_are_pending_until_they_are_answered() -> None:
    """A tombstone answers; parked deliveries in the same topic are no requests. A pending one shows at its dead letter."""
    journal = Journal()
    first, second = journal.opened(), journal.opened()
    table: list[StoredRecord] = []

    def put(key: str, value: bytes | None, headers: Headers) -> None:
        table.append(StoredRecord("usher.t-retry", 2, len(table), 0, key.encode(), value, headers))

    put(ONE.key, ONE.value, delivery_headers(ONE))
    put(*request(first, request_id="r1"))
    put(*request(second, request_id="r2"))
    put(request_key("r1"), None, [])
    put(request_key("r9"), None, [])

    pending = pending_requests(table)
    dead_letters = journal.dead_letters
    mark_requested(pending.values(), dead_letters)

    assert list(pending) == ["r2"]
    assert (dead_letters[first.id].state, dead_letters[second.id].state) == ("open", "requested")
    assert dead_letters[second.id].note == "replay r2"


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["dead-letter", "replayed", "dropped", "refused", "replaced", "noise"]), st.integers(0, 5)
    ),
    max_size=30,
)


def a_journal(steps: list[tuple[str, int]]) -> Journal:
    """A topic in which things happen to dead letters, some of which do not exist."""
    journal = Journal()
    for what, about in steps:
        if what == "dead-letter":
            journal.dead_letter()
        elif what == "replaced":
            journal.dead_letter(replace(ONE, replays=1, replay=Replay("r", dead_letter_id(2, about), 1)))
        elif what == "noise":
            journal.add([], b"?")
        elif what == "replayed":
            journal.mark(dead_letter_id(2, about), "replayed")
        else:
            journal.mark(dead_letter_id(2, about), "dropped" if what == "dropped" else "refused")
    return journal


@given(STEPS, st.integers(0, 30))
def test_folding_in_parts_is_folding_at_once(steps: list[tuple[str, int]], cut: int) -> None:
    """So that a reader may go on where it stopped."""
    journal = a_journal(steps)
    parts: dict[str, DeadLetter] = {}
    fold(journal.records[:cut], parts)
    fold(journal.records[cut:], parts)

    assert parts == journal.dead_letters


@given(STEPS)
def test_no_dead_letter_is_ever_lost(steps: list[tuple[str, int]]) -> None:
    """Whatever states are written: each dead letter is there, in some state."""
    journal = a_journal(steps)

    assert len(journal.dead_letters) == sum(what in {"dead-letter", "replaced"} for what, _ in steps)
