"""The quick reader agrees with `decode` on every document, says Undecodable where that does, and what it leaves unread is read once."""

from __future__ import annotations

import base64
import gc
import json
import re
import sys
import types
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from usher.event import Event, Undecodable
from usher.systems import peek as peek_module
from usher.systems.decode import decode
from usher.systems.peek import peek
from usher.testing import raw_event

SECRET = "h4nter2"
USUAL = raw_event(id="17", user_id="00000000-0000-4000-8000-000000000001", timestamp=1767605400.5)
ADDED = raw_event(
    "admin_api.mutation.create_authenticator.executed", id="18", payload={"authenticator": {"type": "password"}}
)
ENCODED = "cGFzc3dvcmQ9aDRudGVyMg=="


def _nested(depth: int, text: str) -> str:
    return "[" * depth + json.dumps(text) + "]" * depth


def _encoded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


TEXTS = [
    "", "authgear", "ledger", "admin_api", "user.created", "password", "primary", "secondary", SECRET, "kim@example.org", "+447700900123",
    f"password={SECRET}", f"https://h.example/reset?token={SECRET}", ENCODED, "eyJhbGciOiJIUzI1NiJ9.h4nter2.x", '{"a', '{"password": "x"}',
    "abcdabcdabcd", "x" * 300, "admin_api.mutation.set_password_expired.executed", "admin_api.mutation.create_authenticator.executed",
    "\u00e9", "\ufe57", "basic a1b2c3d4e5", "0", "1.0", "_id", "Kim Berg +47 22 33 44 55",
    *(_encoded(_nested(150, _nested(depth, '["y"]'))) for depth in range(64, 69)),
]  # fmt: skip
ABSENT = "absent"
ITEMS = st.one_of(
    st.sampled_from(TEXTS), st.just(ABSENT), st.none(), st.booleans(), st.text(max_size=6), st.floats(),
    st.sampled_from([0, -1, 1, 1767605400, 1e300, 10**30, 99_999_999, 253_402_300_800, {}, [], {"id": "u"}, {"a": {"b": [1]}}, [[]]]),
)  # fmt: skip
NAMES = st.sampled_from([
    "id", "type", "source", "tenant", "raw_type", "seq", "user", "specversion", "data", "data_base64", "time",
    "subject", "context", "payload",
    "triggered_by", "triggered_by_basis", "user_id", "app_id", "timestamp", "language", "preferred_languages", "already_notified_by",
    "audit_context", "expired", "authenticator", "kind", "name", "value", "password", "identities", "extra",
])  # fmt: skip
VALUE = re.compile(rb'(?:: |, |\[)("[^"]*"|[0-9.]+|true|false|null)(?=[,}\]])')
PLACES = st.sampled_from([(), ("context",), ("payload",), ("payload", "authenticator"), ("payload", "user")])
PIECES = [
    b'"', b"\\", b"{", b"}", b"[", b"]", b",", b":", b"\x00", b"\x1f", b"\xff", b"\xc3", b"\xed\xa0\x80", b"\xef\xbb\xbf",
    b"\\ud800", b"\\u0061",
    b"\\q", b"01", b"1.", b"-", b"1e999", b"NaN", b"Infinity", b"-Infinity", b"tru", b"null", b" ", b"\x0c", b"\xc2\xa0", b"//", b"'",
    b"9" * 4290, b"9" * 4310, b"9" * 9000, b"[" * 120, b"[" * 199 + b"]" * 199, b'{"a":' * 230 + b"1" + b"}" * 230,
    b"[" * 30 + b"0.1e-5" + b"]" * 30, b"[" * 196 + b"]" * 196, b"[" * 210 + b"]" * 210, b"\\/",
    b'"id":"other",', b'"type":5,', b'"context":{},', b'"user":{"id":"v"},', b'"specversion":null,', b'"\\u0074ype":"user.deleted",',
    b'"source":"ledger",', b'"timestamp":1e9,', b'"triggered_by":"user",', b'"payload":{"expired":true},',
]  # fmt: skip


def outcome(read: Any, value: bytes) -> Event | str:
    try:
        event: Event = read(value)
    except Undecodable as refusal:
        return f"{type(refusal).__name__}: {refusal}"
    return event


def assert_agrees(value: bytes) -> None:
    """What the engine sees at first, and what is read later, is what `decode` says."""
    seen, wanted = outcome(peek, value), outcome(decode, value)
    if not isinstance(seen, Event) or not isinstance(wanted, Event):
        assert seen == wanted
        return
    for one in (seen, wanted):
        assert one.uid
    assert (seen.uid, seen.type, seen.raw_type) == (wanted.uid, wanted.type, wanted.raw_type)
    assert (seen.user.id, seen.context.user_id) == (wanted.user.id, wanted.context.user_id)
    assert (seen.context.triggered_by, seen.context.timestamp) == (
        wanted.context.triggered_by,
        wanted.context.timestamp,
    )
    assert seen.time == wanted.time
    assert seen == wanted
    assert repr(seen) == repr(wanted)


def changed(value: bytes, changes: list[tuple[tuple[str, ...], str, Any]]) -> bytes:
    document = json.loads(value)
    for place, name, item in changes:
        node = document
        for step in place:
            node = node[step] if isinstance(node.get(step), dict) else node.setdefault(step + "_", {})
        if isinstance(item, str) and item == ABSENT:
            node.pop(name, None)
        else:
            node[name] = item
    return json.dumps(document).encode()


@given(st.sampled_from([USUAL, ADDED]), st.lists(st.tuples(PLACES, NAMES, ITEMS), min_size=1, max_size=3))
def test_the_quick_reader_agrees_on_fields_of_all_kinds(
    value: bytes, changes: list[tuple[tuple[str, ...], str, Any]]
) -> None:
    """Wrong types, credentials, other sources, envelopes, missing ids: wherever it does not know better it decodes."""
    assert_agrees(changed(value, changes))


@given(
    st.sampled_from([USUAL, ADDED, raw_event(name="J\u00fcrgen \u9648", id="19").decode().encode("ascii")]),
    st.lists(st.tuples(st.floats(0, 1), st.integers(0, 2), st.sampled_from(PIECES)), min_size=1, max_size=3),
)
def test_the_quick_reader_agrees_on_broken_bytes(value: bytes, places: list[tuple[float, int, bytes]]) -> None:
    """Repeated keys, escapes, huge numbers, deep nesting, NaN, invalid UTF-8: what is undecodable is so at once, for the same reason."""
    for at, cut, piece in places:
        where = int(at * len(value))
        value = value[:where] + piece + value[where + cut :]
    assert_agrees(value)


HEADS = [
    *(((), name) for name in ("id", "type", "tenant", "source", "raw_type", "user", "specversion")),
    *((("context",), name) for name in ("triggered_by", "user_id", "app_id", "timestamp")),
    *((("payload", "authenticator"), name) for name in ("type", "kind")),
    (("payload",), "expired"),
]


@pytest.mark.parametrize("head", HEADS, ids=lambda head: ".".join((*head[0], head[1])))
def test_the_quick_reader_agrees_on_what_it_reads(head: tuple[tuple[str, ...], str]) -> None:
    """Each field that it reads may hold anything: a credential, a person, an encoded text, another type."""
    north = changed(ADDED, [(("context",), "app_id", ABSENT), ((), "tenant", "north")])
    secret = changed(ADDED, [(("payload",), "note", f"token={SECRET}")])  # so that all of it is walked through
    kinds = [ADDED, north, secret, USUAL]
    for item in (*TEXTS, None, True, 1, 0.5, -1, 1e300, 10**30, {}, [], {"id": "u"}, ["x"]):
        for value in kinds[:3] if "authenticator" in head[0] else kinds:
            assert_agrees(changed(value, [(*head, item)]))


@pytest.mark.parametrize("piece", PIECES, ids=lambda piece: repr(piece[:20]))
def test_the_quick_reader_agrees_on_a_piece_wherever_it_stands(piece: bytes) -> None:
    """Repeated keys, escapes, huge numbers, deep nesting, NaN, invalid UTF-8: at each joint and for each value."""
    joints = [at + 1 for at, byte in enumerate(ADDED) if byte in b'{,:["']
    for at in joints:
        assert_agrees(ADDED[:at] + piece + ADDED[at:])
    for value in VALUE.finditer(ADDED):
        assert_agrees(ADDED[: value.start(1)] + piece + ADDED[value.end(1) :])


def test_most_events_are_read_quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that Authgear sends about users: none of them is parsed as a whole at intake."""
    monkeypatch.setattr(peek_module, "shortened", lambda *_: pytest.fail("it was decoded"))

    assert peek(USUAL).type == "user.created"
    assert peek(ADDED).type == "password.reset"
    assert peek(raw_event("password.expired")).type == "password.expired"
    assert peek(raw_event(name="J\u00fcrgen", email="j@example.org")).user.id


LARGE = raw_event(id="20", payload={"rows": [{"name": f"n{number}"} for number in range(500)]})


@pytest.mark.parametrize(
    "value", [USUAL, LARGE, changed(LARGE, [((), "source", "ledger")]), changed(LARGE, [((), "raw_type", "x")])]
)
def test_an_event_that_waits_holds_its_bytes_and_little_more(value: bytes) -> None:
    """Ten thousand wait in the lanes of a busy worker: none of them keeps a parsed tree, however it was read."""
    event = peek(value)
    held = 0
    nodes: list[Any] = [event]
    for node in nodes:
        if not isinstance(node, type | types.FunctionType) and node is not value:
            held += sys.getsizeof(node)
            nodes += gc.get_referents(node)

    assert held < 1500
