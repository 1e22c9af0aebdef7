"""The door of the sources: any bytes are an Event or Undecodable, other sources' canonical events are taken, credentials fall out."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from usher.event import UNKNOWN, Event, Undecodable
from usher.systems.canonical import canonical_document
from usher.systems.decode import decode
from usher.systems.document import NotJson, dump, parse
from usher.systems.source import event_key
from usher.systems.strip import strip

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
EXACT = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)
_FIELDS = [
    *("id", "seq", "source", "tenant", "user", "payload", "raw_type", "identity", "languages", "model_config", "self"),
    *(
        "timestamp",
        "user_id",
        "triggered_by",
        "triggered_by_basis",
        "language",
        "preferred_languages",
        "app_id",
        "email",
    ),
]
_NAMED = st.dictionaries(st.sampled_from(_FIELDS), JSON, max_size=6)
DOCUMENTS = st.builds(
    lambda type_, fields, context, user: {**fields, "type": type_, "context": context, "user": user},
    st.text(min_size=1, max_size=8) | JSON,
    _NAMED,
    _NAMED | JSON,
    _NAMED | JSON,
)


def outcome(value: bytes) -> Event | Undecodable:
    try:
        return decode(value)
    except Undecodable as refusal:
        return refusal


@given(st.binary(max_size=200))
def test_any_bytes_are_an_event_or_undecodable(value: bytes) -> None:
    """Nothing but Undecodable is ever raised."""
    outcome(value)


@given(DOCUMENTS)
def test_any_document_is_an_event_or_undecodable(document: dict[str, Any]) -> None:
    """An event made of whatever fields has a key, a valid time or none, and can be written again."""
    event = outcome(json.dumps(document).encode())
    if isinstance(event, Event):
        assert event_key(event)
        assert event.time is None or event.time.year < 10_000
        assert isinstance(event.languages, tuple)
        assert isinstance(outcome(dump(canonical_document(event))), Event)


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        (b"", NotJson),
        (b"hello", NotJson),
        (b'{"type": "x"', NotJson),
        (b'{"type": "x"} {}', NotJson),
        (b'{"type": "x", "n": NaN}', NotJson),
        (b'{"type": "x", "n": -Infinity}', NotJson),
        (b'{"type": "\xff"}', NotJson),
        ('{"type": "x"}'.encode("utf-16"), NotJson),
        (b'{"type": "\xed\xa0\x80"}', NotJson),
        (b'{"type": "\\ud800"}', Undecodable),
        (b'{"type": "x", "\\udc00": 1}', Undecodable),
        (b"[" * 100_000 + b"]" * 100_000, Undecodable),
        (b'{"a":' * 3000 + b"1" + b"}" * 3000, Undecodable),
        (b'{"type": "x", "n": ' + b"9" * 5000 + b"}", Undecodable),
        (b"[]", Undecodable),
        (b"null", Undecodable),
        (b"{}", Undecodable),
        (b'{"type": ""}', Undecodable),
        (b'{"type": 5}', Undecodable),
        (b'{"type": null}', Undecodable),
        (b'{"type": "{\\"a"}', Undecodable),
        (b'{"type": "x", "source": "{\\"a"}', Undecodable),
    ],
    ids=lambda value: repr(value[:24]) if isinstance(value, bytes) else value.__name__,
)
def test_what_is_no_event(value: bytes, kind: type[Undecodable]) -> None:
    """Bytes that are not JSON are distinguished from JSON that is no event."""
    with pytest.raises(Undecodable) as caught:
        decode(value)
    assert type(caught.value) is kind


@pytest.mark.parametrize("value", [b'{"type": "ada@example.com', b'{"ada@example.com": \\', b'["ada@example.com"]'])
def test_the_reason_is_short_and_quotes_nothing(value: bytes) -> None:
    """The reason becomes a header and a log line: it says what is wrong and nothing of the content."""
    with pytest.raises(Undecodable) as caught:
        decode(value)
    assert "ada" not in str(caught.value)
    assert 0 < len(str(caught.value)) <= 300
    assert caught.value.__cause__ is None


def test_a_byte_order_mark_is_tolerated() -> None:
    """Some producers on Windows write one."""
    assert decode(b'\xef\xbb\xbf{"type": "user.created"}').type == "user.created"


def test_other_sources_canonical_events_are_taken_as_they_are() -> None:
    """An event that a platform wrote in the canonical shape keeps its source, tenant, user and trigger."""
    event = decode(
        json.dumps(
            {
                "id": "7",
                "type": "password.reset",
                "source": "ledger",
                "tenant": "north",
                "user": {"id": "u", "email": "ada@example.com", "phone": 5},
                "context": {"triggered_by": "admin_api", "triggered_by_basis": "client_allowlist", "timestamp": 1},
            }
        ).encode()
    )
    assert event.uid == ("ledger", "north", "7")
    assert (event.type, event.raw_type) == ("password.reset", "password.reset")
    assert (event.user.id, event.user.email, event.user.phone) == ("u", "ada@example.com", None)
    assert (event.context.triggered_by, event.context.triggered_by_basis) == ("admin_api", "client_allowlist")


def test_another_sources_event_without_a_trigger_is_unknown() -> None:
    """Whoever does not say who triggered it passes no filter."""
    context = decode(b'{"type": "user.created", "source": "ledger"}').context
    assert (context.triggered_by, context.triggered_by_basis) == (UNKNOWN, "absent")


@pytest.mark.parametrize("name", ["password", "access_token", "recoveryCodes", "resetUrl", "A\nPASSWORD"])
@pytest.mark.parametrize("item", ["s3cret", 420240, ["s3cret"], {"value": "s3cret"}], ids=repr)
def test_credentials_are_stripped_wherever_they_are(name: str, item: object) -> None:
    """A value whose name says that it is a credential is gone, at any depth; what is around it stays."""
    document = {"type": "t", "payload": {"list": [{name: item, "kept": 1}]}}
    assert strip(document) == {"type": "t", "payload": {"list": [{"kept": 1}]}}
    assert decode(dump(document)).payload == {"list": [{"kept": 1}]}


@pytest.mark.parametrize(
    "document",
    [
        {
            "geo_location_code": "CH",
            "country_code": "CH",
            "password_updated_at": 1,
            "token_type": "Bearer",
            "zip": "8000",
        },
        {
            "passwordLastSetAt": "2026",
            "phoneCountryCode": "+86",
            "statusCode": 200,
            "http_url": "x",
            "code_id": "1",
            "key": {"kept": "k"},
        },
        {"password": True, "hash": None, "otp": False},
        [[{"a": [1, "token"]}]],
    ],
)
def test_what_is_no_credential_stays(document: Any) -> None:
    """Names that only contain such words, flags, and values that read like them are left; the very same object comes back."""
    assert strip(document) is document


@given(JSON)
def test_stripping_twice_is_stripping_once(document: Any) -> None:
    """What is stripped holds nothing more to strip."""
    once = strip(document)
    assert strip(once) is once


@pytest.mark.parametrize("field", ["source", "tenant", "type", "raw_type", "id"])
def test_what_names_an_event_is_no_longer_than_any_real_name(field: str) -> None:
    """It goes into keys, headers, metrics and receipts; what is longer is its SHA-256 there."""
    document = {"type": "user.created", "source": "ledger", "id": "e1", "context": {"triggered_by": "admin_api"}}
    event = decode(json.dumps({**document, field: "x" * 100_000}).encode())
    assert len(getattr(event, field)) <= 200


@given(EXACT)
def test_a_dumped_document_parses_back(document: Any) -> None:
    """What the ingress writes after stripping is what it read."""
    assert parse(dump(document)) == document
