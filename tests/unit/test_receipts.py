"""Receipts: their bytes, which state counts, and the HMAC that stands in the place of an address."""

from __future__ import annotations

import contextlib
import json
import random
import sys
from base64 import b64decode
from pathlib import Path
from typing import get_args
from uuid import UUID

import cramjam
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import msgpack

from usher.receipts import ENDINGS, MOST_BYTES, RANKS, Receipt, State, UnreadableReceipts, pack, unpack
from usher.receipts.keys import AddressKey, AddressKeys, normalized

SAMPLES = Path(__file__).parents[1] / "samples" / "usher"
_texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
_wholes = st.integers(-(2**63), 2**63 - 1)
_OF = {"str": _texts, "_Whole": _wholes, "_Hash": st.binary(max_size=64), "bool": st.booleans()}
receipts = st.builds(
    Receipt,
    **{
        name: st.sampled_from(sorted(RANKS)) if kind == "State" else _OF[kind]
        for name, kind in Receipt.__annotations__.items()
    },
)
SENT = Receipt(topic="identity.events", partition=0, offset=1, handler="welcome_email", state="sent")


@given(st.lists(receipts, max_size=20))
def test_what_was_packed_is_read_as_it_was(some: list[Receipt]) -> None:
    assert [receipt for record in pack(some) for receipt in unpack(record)] == some


@pytest.mark.parametrize("reason", ["x" * 2_000, random.Random(1).randbytes(1_000).hex(), ""])
def test_receipts_are_packed_into_records_of_bounded_size(reason: str) -> None:
    """In their order, whether they can be compressed or not."""
    many = [
        Receipt(topic="t", partition=0, offset=at, handler="h", state="done", reason=reason[at:] + reason[:at])
        for at in range(1_500)
    ]
    records = pack(many)
    assert [receipt for record in records for receipt in unpack(record)] == many
    assert max(map(len, records)) <= MOST_BYTES < 64 * 1024
    assert pack([]) == []


def test_a_receipt_takes_less_than_200_bytes() -> None:
    """Of messages to many users, as a worker that is busy writes them: ids, provider's ids and HMACs are all different."""
    keys, chance = AddressKeys([b"k"]), random.Random(1)
    many = [
        Receipt(
            topic="identity.events",
            topic_id="mJ0wT3yZQ6mE3r0x2aQ5Yw",
            partition=at % 6,
            offset=1_000_000 + at,
            handler="welcome_email",
            event_id=f"{chance.getrandbits(64):016x}",
            type="user.created",
            source="authgear",
            tenant="demo",
            user_id=str(UUID(int=chance.getrandbits(128))),
            username=keys.kept(f"user-{at}@example.org"),
            stored_at=1_750_000_000_000 + 7 * at,
            state="sent",
            channel="email",
            provider="sendgrid",
            provider_id=f"{chance.randbytes(16).hex()}.recvd-{chance.randbytes(8).hex()}",
            template="welcome",
            language="en",
            address=keys.address_hmac(f"user-{at}@example.org", "email"),
            key=keys.name,
            attempts=1,
            began=1_750_000_000_000 + 7 * at + chance.randrange(100),
            at=1_750_000_000_100 + 7 * at + chance.randrange(500),
        )
        for at in range(1_000)
    ]
    assert sum(map(len, pack(many))) < 200 * len(many)


@pytest.mark.parametrize("text", ["x" * 500_000, random.Random(1).randbytes(100_000).hex()])
def test_texts_that_no_record_has_room_for_are_cut(text: str) -> None:
    """Every receipt is written: a text that is longer than any real one must not stop what has to be durable."""
    records = pack([SENT, Receipt(topic="t", partition=0, offset=1, handler="h", state="done", event_id=text), SENT])

    first, read, last = (receipt for record in records for receipt in unpack(record))
    assert max(map(len, records)) <= MOST_BYTES
    assert (read.topic, read.offset, read.state, read.event_id) == ("t", 1, "done", text[:400])
    assert first == last == SENT


def test_half_a_character_is_written_as_a_question_mark() -> None:
    (record,) = pack([SENT, Receipt(topic="t", partition=0, offset=2, handler="h", state="done", user_id="\ud800")])
    assert [receipt.user_id for receipt in unpack(record)] == ["", "?"]


@given(st.binary(max_size=300), st.booleans())
def test_forged_bytes_are_read_or_refused(forged: bytes, compressed: bool) -> None:
    if compressed:
        forged = b"\x01" + len(forged).to_bytes(4) + bytes(cramjam.zstd.compress(forged))
    with contextlib.suppress(UnreadableReceipts):
        assert all(isinstance(each, Receipt) for each in unpack(forged))


@given(st.data())
def test_a_record_of_which_a_byte_has_changed_is_read_or_refused(data: st.DataObject) -> None:
    record = bytearray(pack([SENT] * 3)[0])
    record[data.draw(st.integers(0, len(record) - 1))] ^= data.draw(st.integers(1, 255))
    with contextlib.suppress(UnreadableReceipts):
        assert all(isinstance(each, Receipt) for each in unpack(bytes(record)))


def _forged(raw: bytes, size: int | None = None) -> bytes:
    return b"\x01" + (len(raw) if size is None else size).to_bytes(4) + bytes(cramjam.zstd.compress(raw))


@pytest.mark.parametrize(
    ("record", "why"),
    [
        (None, "empty"),
        (b"", "empty"),
        (b"\x02" + bytes(20), "of the format 2"),
        (b"\x01", "these are no receipts"),
        (_forged(bytes(10_000_000), 1_000), "these are no receipts"),
        (_forged(msgpack.encode([]), 1_000), "say that they have 1,000"),
        (b"\x01\xff\xff\xff\xff", "is the most"),
        (_forged(msgpack.encode([["t", "", 2**64 - 1, 1, "h"]])), "ValidationError"),
        (_forged(msgpack.encode([["t", "", 0, 1, "h", *[""] * 6, "", 0, "told"]])), "ValidationError"),
        (_forged(b"\x91" * 200_000), "these are no receipts"),
    ],
)
def test_a_record_that_is_no_list_of_receipts_is_refused(record: bytes | None, why: str) -> None:
    with pytest.raises(UnreadableReceipts, match=why):
        unpack(record)


def test_bytes_of_version_1_are_read() -> None:
    """What users have on their disks. This file is never written anew: a later version adds a file of its own."""
    for sample in json.loads((SAMPLES / "receipts-1.json").read_text()):
        expected = [Receipt(**{**each, "address": bytes.fromhex(each["address"])}) for each in sample["receipts"]]
        assert unpack(b64decode(sample["value"])) == expected


def test_a_receipt_of_a_newer_usher_with_fields_more_is_read() -> None:
    raw = msgpack.encode([[*msgpack.decode(msgpack.encode(SENT)), "a new field"]])
    assert unpack(_forged(raw)) == [SENT]


def test_every_state_has_a_rank_and_words_of_providers_are_above_the_endings_they_follow() -> None:
    assert RANKS.keys() == set(get_args(State))
    for climb in (
        ("dead", "replayed", "sent", "deferred", "delivered", "bounced", "complained"),
        ("skipped", "sent"),
        ("unknown", "dropped", "sent", "undelivered"),
    ):
        assert [RANKS[state] for state in climb] == sorted({RANKS[state] for state in climb})
    assert {"done", "skipped", "sent", "dead", "expired", "dropped", "replayed", "unknown"} <= ENDINGS


def test_receipts_of_two_messages_of_one_delivery_have_two_identities() -> None:
    other = Receipt(
        topic="identity.events", partition=0, offset=1, handler="welcome_email", state="sent", provider_id="2"
    )
    assert SENT.delivery == other.delivery
    assert SENT.identity != other.identity


@pytest.mark.parametrize(
    ("one", "other", "channel"),
    [
        ("Ann@Example.ORG", " ann@example.org ", "email"),
        ("ann@bücher.example.com", "ANN@xn--bcher-kva.EXAMPLE.com", "email"),
        ("ann@straße.de", "ann@xn--strae-oqa.de", "email"),
        ("STRASSE@example.org", "straße@example.org", "email"),
        ("jose\u0301@example.org", "JOSÉ@example.org", "email"),
        ("ann@firma.local", "Ann@FIRMA.local", "email"),
        ("ann@intranet", "ann@INTRANET", "email"),
        ("no address", "No Address", "email"),
        ("+1 (202) 555-0123", "0012025550123", "sms"),
        ("12", "1 2", "sms"),
    ],
)
def test_one_address_has_one_hmac_however_it_is_written(one: str, other: str, channel: str) -> None:
    keys = AddressKeys([b"k" * 32])
    assert keys.address_hmac(one, channel) == keys.address_hmac(other, channel)
    assert keys.address_hmac(one, channel) != keys.address_hmac("bo@example.org", channel)


@given(st.text(max_size=400), st.sampled_from(["email", "sms"]))
def test_every_text_has_one_form_and_that_form_has_itself(text: str, channel: str) -> None:
    once = normalized(text, channel)
    assert normalized(once, channel) == once or len(once) > 300


def test_the_first_key_writes_and_all_keys_read() -> None:
    old, new = AddressKeys([b"old"]), AddressKeys([b"new", b"old", b"new"])
    assert new.name != old.name
    assert new.hmacs("ann@example.org", "email") == {
        new.name: new.address_hmac("ann@example.org", "email"),
        old.name: old.address_hmac("ann@example.org", "email"),
    }
    with pytest.raises(ValueError, match="need a key"):
        AddressKeys([])


def test_an_id_that_is_an_address_is_kept_as_its_hmac_and_found_by_the_address() -> None:
    old, new = AddressKeys([b"old"]), AddressKeys([b"new", b"old"])
    assert new.kept("u1") == "u1"
    for person in ("ann@example.org", "auth0|ann@example.org", "+12025550123"):
        assert person not in new.kept(person)
        assert "example" not in new.kept(person)
        assert {new.kept(person), old.kept(person)} <= new.all_kept(person)
    assert new.kept("Ann@Example.org") == new.kept("ann@example.org")
    assert new.all_kept("u1") == {"u1"}


def test_a_long_id_is_not_kept_in_memory() -> None:
    """Ids are remembered, for most come again; one that is longer than any real one would take the place of thousands."""
    keys, long = AddressKeys([b"1"]), "id-" * 100_000
    references = sys.getrefcount(long)

    assert keys.kept(long) == long[:320]
    assert sys.getrefcount(long) == references


def test_a_key_is_not_shown() -> None:
    assert "secret" not in repr(AddressKey(b"secret"))
