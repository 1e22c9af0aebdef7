"""Authgear's events: what each sample becomes, and that half of it may be missing."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from usher.event import UNKNOWN, Event, Undecodable
from usher.sources import decode, event_key

SAMPLES = Path(__file__).parents[1] / "samples" / "authgear"
MIRA, MIRA_ID = "mira.halloran@example.com", "5b0c7a52-3f0e-4d0b-9a55-0d3f5c1f7a01"
PHONE = "+41440000017"
MUTATION = "admin_api.mutation."


def sample(name: str) -> bytes:
    return (SAMPLES / f"{name}.json").read_bytes()


def decoded(**document: Any) -> Event:
    return decode(json.dumps({"type": "user.created", **document}).encode())


@pytest.mark.parametrize("path", sorted(SAMPLES.glob("*.json")), ids=lambda path: path.stem)
def test_every_sample_decodes_but_the_one_that_is_no_event(path: Path) -> None:
    """Each event keeps its raw type and its payload; the body of an SMS gateway call is no event."""
    value = path.read_bytes()
    if path.stem == "sms_gateway.request":
        with pytest.raises(Undecodable, match="'type' is missing"):
            decode(value)
        return
    event, document = decode(value), json.loads(value)
    assert (event.source, event.raw_type) == ("authgear", document["type"])
    assert event.payload == document["payload"]


@pytest.mark.parametrize(
    ("name", "type_"),
    [
        ("user.created.admin", "user.created"),
        (f"{MUTATION}create_user.executed", f"{MUTATION}create_user.executed"),
        (f"{MUTATION}reset_password.executed", "password.reset"),
        (f"{MUTATION}set_password_expired.executed", "password.expired"),
        (f"{MUTATION}set_password_expired.executed.off", f"{MUTATION}set_password_expired.executed"),
        (f"{MUTATION}send_reset_password_message.executed", "password.reset_requested"),
        ("identity.phone.added.misprint", "user.phone.added"),
        ("user.deleted", "user.deleted"),
    ],
)
def test_types(name: str, type_: str) -> None:
    """The four facts that have a canonical name get it; all else passes under its raw name."""
    assert decode(sample(name)).type == type_


@pytest.mark.parametrize(
    ("name", "email", "phone"),
    [
        ("user.created.admin", MIRA, None),
        ("user.created.admin.phone", None, PHONE),
        ("user.created.bare", MIRA, None),
        (f"{MUTATION}create_user.executed", None, PHONE),
        (f"{MUTATION}send_reset_password_message.executed", MIRA, None),
        ("identity.email.updated", "mira.new@example.com", None),
        ("identity.phone.added.misprint", MIRA, "+41440000018"),
        ("identity.username.added", None, None),
        ("user.anonymous.promoted", MIRA, PHONE),
        ("identity.email.removed", None, PHONE),
    ],
)
def test_addresses(name: str, email: str | None, phone: str | None) -> None:
    """Addresses come from the user's attributes, else from the identities held now; never from one just removed."""
    user = decode(sample(name)).user
    assert (user.email, user.phone) == (email, phone)


def test_a_complete_event() -> None:
    """Who, where, when, by whom and in which language are all read."""
    event = decode(sample("user.created.admin"))
    assert event.identity == ("authgear", "harbour", "0000000000001005")
    assert event.seq == 4101
    assert (event.user.id, event.user.name, event.user.locale) == (MIRA_ID, "Mira Halloran", "de-CH")
    assert (event.context.triggered_by, event.context.triggered_by_basis) == ("admin_api", "native")
    assert event.languages == ("de", "de-CH", "en")
    assert event.time is not None
    assert event.time.isoformat() == "2025-03-01T08:12:30+00:00"


def test_an_event_without_its_envelope() -> None:
    """Without id, context and tenant: the SHA-256 of the bytes, an unknown trigger, no tenant, the payload's user."""
    value = sample("user.created.bare")
    event = decode(value)
    assert event.identity == ("authgear", "", hashlib.sha256(value).hexdigest())
    assert (event.context.triggered_by, event.context.triggered_by_basis) == (UNKNOWN, "absent")
    assert event.user.id == MIRA_ID
    assert event.time is None


@pytest.mark.parametrize("actor", [None, "", 7, ["admin_api"], {"by": "admin_api"}, True])
def test_a_trigger_that_is_no_text_is_unknown(actor: object) -> None:
    """Only a text says who triggered an event."""
    context = decoded(context={"triggered_by": actor}).context
    assert (context.triggered_by, context.triggered_by_basis) == (UNKNOWN, "absent")


def test_unknown_fields_are_kept() -> None:
    """What a later Authgear adds is passed on, at the top, in the context and in the payload."""
    event = decoded(spec="2", context={"tracking_id": "t", "oauth": {"state": "s"}}, payload={"new": [1]})
    extra, circumstances = event.model_extra or {}, event.context.model_extra or {}
    assert extra["spec"] == "2"
    assert circumstances == {"tracking_id": "t", "oauth": {"state": "s"}}
    assert event.payload == {"new": [1]}


@pytest.mark.parametrize("wrong", [None, 5, "x", [], [1], {"a": 1}, True, 1e300, -1, 10**30], ids=repr)
@pytest.mark.parametrize(
    "place",
    ["id", "seq", "tenant", "user", "context", "payload", "source", "raw_type"]
    + [f"context.{name}" for name in ("timestamp", "user_id", "language", "preferred_languages", "app_id")]
    + [f"payload.{name}" for name in ("user", "identities", "identity", "new_identity", "login_id")]
    + [f"payload.user.{name}" for name in ("id", "standard_attributes")],
)
def test_a_field_of_a_wrong_type_is_left_out(place: str, wrong: object) -> None:
    """No optional field makes an event undecodable, and the rest of it is still read."""
    document: dict[str, Any] = json.loads(sample("user.created.admin"))
    *path, name = place.split(".")
    node = document
    for step in path:
        node = node[step]
    node[name] = wrong
    event = decode(json.dumps(document).encode())
    assert event.type == "user.created"
    assert event.time is None or event.time.year < 10_000
    if not place.startswith("context"):
        assert event.context.triggered_by == "admin_api"
    assert event_key(event)


@pytest.mark.parametrize(
    ("login_id", "email", "phone"),
    [
        (MIRA, MIRA, None),
        (PHONE, None, PHONE),
        ("mira", None, None),
        ({"key": "email", "type": "email", "value": MIRA}, MIRA, None),
        ({"key": "phone", "value": PHONE}, None, PHONE),
        ({"key": "username", "value": "m@ra"}, None, None),
        ({"email": MIRA}, MIRA, None),
        ({}, None, None),
        (7, None, None),
    ],
    ids=repr,
)
def test_the_login_id_of_a_reset_message(login_id: object, email: str | None, phone: str | None) -> None:
    """A reset message names a login id and no user: the address is taken from it, in whichever form."""
    event = decoded(type=f"{MUTATION}send_reset_password_message.executed", payload={"login_id": login_id})
    assert (event.user.id, event.user.email, event.user.phone) == (None, email, phone)


def test_the_key_is_the_user_and_else_the_event() -> None:
    """A user's events share a key; one without a user has its own."""
    assert event_key(decode(sample("user.created.admin"))) == MIRA_ID.encode()
    assert event_key(decoded(id="e1", tenant="demo")) == b"demo/e1"
    assert event_key(decoded(id="e1", context={"user_id": "ü"})) == "ü".encode()


@pytest.mark.parametrize("name", ["user.created.admin", f"{MUTATION}reset_password.executed", "user.created.bare"])
def test_an_event_written_as_json_reads_back_the_same(name: str) -> None:
    """A canonical event is itself a document that decodes to the same event."""
    event = decode(sample(name))
    assert decode(event.model_dump_json().encode()) == event
