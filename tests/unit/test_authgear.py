"""Authgear's events: what each sample becomes, and that half of it may be missing."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from usher.event import UNKNOWN, Event, Undecodable
from usher.systems.authgear.source import AuthgearHabits, AuthgearSource
from usher.systems.canonical import canonical_document
from usher.systems.decode import decode
from usher.systems.document import NotJson, dump
from usher.systems.prefilter import prefilter
from usher.systems.source import event_key
from usher.systems.strip import strip

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
    """Each event keeps its raw type and its payload, less what is named like a credential; the body of an SMS gateway call is no event."""
    value = path.read_bytes()
    if path.stem == "sms_gateway.request":
        with pytest.raises(Undecodable, match="'type' is missing"):
            decode(value)
        return
    event, document = decode(value), json.loads(value)
    assert (event.source, event.raw_type) == ("authgear", document["type"])
    assert event.payload == strip(document["payload"])


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


@pytest.mark.parametrize(
    ("payload", "username"),
    [
        ({"user": {"standard_attributes": {"preferred_username": "mira"}}}, "mira"),
        ({"user": {}, "identities": [{"claims": {"preferred_username": "mira"}}]}, "mira"),
        ({"login_id": {"type": "username", "value": "mira"}}, "mira"),
        ({"login_id": {"type": "email", "value": "mira@example.com"}}, None),
        ({"login_id": "mira"}, None),  # of what kind it is nobody says
    ],
)
def test_a_username_is_in_the_attributes_the_identities_or_the_login_id(
    payload: dict[str, Any], username: str | None
) -> None:
    """In this order, as with addresses."""
    assert decoded(payload=payload).user.username == username


def test_the_username_of_the_sample_is_read() -> None:
    """It is in the attributes and in the identity."""
    assert decode(sample("identity.username.added")).user.username == "mira"


def test_a_complete_event() -> None:
    """User, tenant, time, actor and language are all read."""
    event = decode(sample("user.created.admin"))
    assert event.uid == ("authgear", "harbour", "0000000000001005")
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
    assert event.uid == ("authgear", "", hashlib.sha256(value).hexdigest())
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


@pytest.mark.parametrize(
    "field",
    ["id", "seq", "tenant", "user", "context", "payload", "source", "raw_type"]
    + [f"context.{name}" for name in ("timestamp", "user_id", "language", "preferred_languages", "app_id")]
    + [f"payload.{name}" for name in ("user", "identities", "identity", "new_identity", "login_id")]
    + [f"payload.user.{name}" for name in ("id", "standard_attributes")],
)
def test_a_field_of_a_wrong_type_is_left_out(field: str) -> None:
    """No optional field makes an event undecodable, and the rest of it is still read."""
    document: dict[str, Any] = json.loads(sample("user.created.admin"))
    *path, name = field.split(".")
    node = document
    for step in path:
        node = node[step]
    wrong: list[object] = [None, 5, "x", [], [1], {"a": 1}, True, 1e300, -1, 10**30]
    for node[name] in wrong:
        event = decode(json.dumps(document).encode())
        assert event.type == "user.created"
        assert event.time is None or event.time.year < 10_000
        if not field.startswith("context"):
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
    assert decode(dump(canonical_document(event))) == event


HOOKABLE = [
    "user.created", "user.authenticated", "user.reauthenticated", "user.profile.updated", "user.disabled",
    "user.reenabled", "user.anonymous.promoted", "user.deletion_scheduled", "user.deletion_unscheduled", "user.deleted",
    "user.anonymization_scheduled", "user.anonymization_unscheduled", "user.anonymized", "usage.alert.triggered",
    *(f"identity.{kind}.{verb}" for kind in ("email", "phone", "username") for verb in ("added", "removed", "updated")),
    *(f"identity.{kind}.{verb}" for kind in ("email", "phone", "username") for verb in ("verified", "unverified")),
    *(f"identity.oauth.{verb}" for verb in ("connected", "disconnected")),
    *(f"identity.biometric.{verb}" for verb in ("enabled", "disabled")),
    "project.app.updated", "project.billing.checkout.created", "project.collaborator.invitation.created",
    "project.domain.verified",
]  # fmt: skip
EVERY_HABIT = AuthgearHabits(frozenset({"created", "reset"}), frozenset({"created", "reset"}))


@pytest.mark.parametrize("habits", [AuthgearHabits(), EVERY_HABIT], ids=["no habits", "every habit"])
@pytest.mark.parametrize("path", sorted(SAMPLES.glob("*.json")), ids=lambda path: path.stem)
def test_what_is_stored_gives_the_very_event_back(path: Path, habits: AuthgearHabits) -> None:
    """Whatever a sample becomes on arrival, decoding what was stored of it gives the same, and storing it again changes nothing."""
    source = AuthgearSource(["secret"], habits)
    [arrival] = source.arrivals(path.read_bytes(), {}, 0.0)
    if arrival.event is None:
        with pytest.raises(Undecodable):
            decode(arrival.value)
        return
    assert decode(arrival.value) == arrival.event
    assert source.arrivals(arrival.value, {}, 0.0) == [arrival]


@pytest.mark.parametrize("actor", ["admin_api", "user", "system", "portal", "site_admin"])
def test_every_hookable_type_is_taken(actor: str) -> None:
    """Each passes under its own name, with the actor that Authgear names."""
    document = json.loads(sample("user.created.admin"))
    for type_ in HOOKABLE:
        document["type"], document["context"]["triggered_by"] = type_, actor
        [arrival] = AuthgearSource(["secret"]).arrivals(json.dumps(document).encode(), {}, 0.0)

        assert arrival.event is not None
        assert (arrival.event.type, arrival.event.context.triggered_by) == (type_, actor)
        assert arrival.event.context.triggered_by_basis == "native"


def test_a_call_of_the_sms_gateway_leaves_nothing_of_its_code() -> None:
    """It is signed with the same kind of secret, and easily given the wrong URL: a stub says so, without message or number."""
    body = sample("sms_gateway.request")
    [arrival] = AuthgearSource(["secret"]).arrivals(body, {}, 0.0)

    assert arrival.event is None
    assert "SMS gateway" in arrival.reason
    for secret in (b"000000", PHONE.encode(), b"verification"):
        assert secret in body
        assert secret not in arrival.value
    assert json.loads(arrival.value)["tenant"] == "harbour"
    with pytest.raises(Undecodable, match="SMS gateway"):
        decode(arrival.value)
    assert prefilter({"admin_api"})(arrival.value)


_NAMES = st.sampled_from(
    ["password", "newPassword", "otp", "code", "reset_link", "access_token", "client_secret", "salt", "passwordHash"]
)
_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=10,
)
_OUTSIDE = st.lists(st.sampled_from(["payload", "context", "user", "identities", "x"]), max_size=4)


@given(name=_NAMES, path=_OUTSIDE, rest=_JSON, listed=st.booleans())
@example(name="code", path=[], rest=None, listed=False)
def test_no_credential_by_name_is_stored_wherever_it_is(name: str, path: list[str], rest: Any, listed: bool) -> None:
    """At any depth, in lists too, beside anything."""
    node: Any = {name: ["hunter2-credential"], "rest": rest}
    for step in path:
        node = {step: [node] if listed else node, "rest": rest}
    for document in (node, {**node, "type": "user.created"}, {"specversion": "1.0", "type": "x", "data": node}):
        for arrival in AuthgearSource(["secret"], EVERY_HABIT).arrivals(json.dumps(document).encode(), {}, 0.0):
            assert b"hunter2" not in arrival.value


@given(st.binary(max_size=200) | _JSON.map(lambda document: json.dumps(document).encode()))
def test_any_body_is_an_arrival_or_no_json(body: bytes) -> None:
    """Nothing else is ever raised, and what is stored of an event is that event."""
    try:
        arrivals = AuthgearSource(["secret"], EVERY_HABIT).arrivals(body, {}, 0.0)
    except NotJson:
        return
    for arrival in arrivals:
        if arrival.event is None:
            assert arrival.reason
            assert prefilter({"admin_api"})(arrival.value)
        else:
            assert decode(arrival.value) == arrival.event


_HIDDEN = {"password": "hunter2"}
_PLAIN_EVENT: dict[str, Any] = {
    "id": "1",
    "type": "user.created",
    "payload": {"user": {"id": "u-1"}},
    "context": {"triggered_by": "user", "app_id": "harbour"},
}


@pytest.mark.parametrize(
    "body",
    [
        json.dumps({**_PLAIN_EVENT, "note": json.dumps(_HIDDEN)}),
        json.dumps({**_PLAIN_EVENT, "note": [json.dumps({"inner": json.dumps(_HIDDEN)})]}),
        json.dumps(json.dumps(_HIDDEN)),
        json.dumps(_PLAIN_EVENT)[:-1] + ', "note": {"password": "hunter2"}, "note": 1}',
        json.dumps({"specversion": "1.0", "type": "x", "data": _PLAIN_EVENT, "accesstoken": "hunter2"}),
        json.dumps({"specversion": "1.0", "type": "x", "data": _PLAIN_EVENT, "data_base64": "hunter2"}),
        json.dumps({"specversion": "1.0", "type": "x", "data": json.dumps({**_PLAIN_EVENT, **_HIDDEN})}),
        json.dumps({"to": "+15550100", "body": "hunter2 is your code", "template_name": "x"}),
    ],
    ids=["text", "text in text", "text alone", "repeated field", "envelope", "both data", "data as text", "SMS"],
)
def test_no_credential_is_stored_however_it_is_wrapped(body: str) -> None:
    """In texts that are documents, behind a repeated field, in an envelope: what is stored is what was read, less credentials."""
    [arrival] = AuthgearSource(["secret"]).arrivals(body.encode(), {}, 0.0)
    assert b"hunter2" not in arrival.value
    if arrival.event is not None:
        assert decode(arrival.value) == arrival.event


@pytest.mark.parametrize(
    "foreign", [{"source": "keycloak"}, {"specversion": "1.0"}], ids=lambda fields: next(iter(fields))
)
def test_an_event_of_authgears_stays_one(foreign: dict[str, Any]) -> None:
    """A field that would name another system or an envelope is not stored: who signs for one system speaks for no other."""
    [arrival] = AuthgearSource(["secret"]).arrivals(json.dumps({**_PLAIN_EVENT, **foreign}).encode(), {}, 0.0)
    assert arrival.event is not None
    assert arrival.event.uid == ("authgear", "harbour", "1")
    assert decode(arrival.value) == arrival.event
