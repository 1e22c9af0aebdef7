"""Keycloak's events: what each sample becomes, which user it is about, who did it, and what of it is never kept."""

from __future__ import annotations

import hashlib
import hmac
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from usher.delivery import StoredRecord
from usher.event import Event
from usher.systems.decode import decode
from usher.systems.document import NotJson
from usher.systems.keycloak.source import SIGNATURE, KeycloakSource
from usher.systems.source import Arrival, event_key, read_record

SAMPLES = Path(__file__).parents[1] / "samples" / "keycloak"
FILES = sorted(SAMPLES.glob("*.json"))
MIRA, SAM = "7c1d0e5a-0a3f-4c59-8f07-1f2d3c4b5a01", "7c1d0e5a-0a3f-4c59-8f07-1f2d3c4b5a02"
SECRETS = (
    "initial-password-0a1",
    "hash-0a2",
    "salt-0a3",
    "client-secret-0b1",
    "signing-key-0b2",
    "ticket-of-an-invitation",
    "state-of-the-app",
)
"""Every credential in the samples."""
ADMIN, USER = (
    ("admin_api", "admin event: written for calls of the admin API only"),
    ("user", "user event: the user did it"),
)
FAILED = ("unknown", "failed: nothing has changed")


def arrivals(body: bytes | dict[str, Any], **options: Any) -> list[Arrival]:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return list(KeycloakSource(**{"realm": "harbour", **options}).arrivals(raw, {}, 0.0))


def sample(name: str) -> dict[str, Any]:
    document: dict[str, Any] = json.loads((SAMPLES / f"{name}.json").read_bytes())
    return document


def event(body: str | dict[str, Any], **options: Any) -> Event:
    (arrival,) = arrivals(sample(body) if isinstance(body, str) else body, **options)
    assert arrival.event is not None, arrival.reason
    return arrival.event


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_what_is_stored_reads_back_as_the_same_event_and_holds_no_credential(path: Path) -> None:
    """The canonical form of each sample decodes to the very event; no password, hash, secret or live link is in it."""
    for arrival in arrivals(path.read_bytes()):
        assert arrival.event is not None
        assert decode(arrival.value) == arrival.event
        assert arrival.event.tenant == "harbour"
        assert not any(secret in arrival.value.decode() for secret in SECRETS)


def test_the_samples_hold_what_the_search_looks_for() -> None:
    """The search for credentials could find each of them."""
    everything = "".join(path.read_text() for path in FILES)
    assert all(secret in everything for secret in SECRETS)


@pytest.mark.parametrize(
    ("name", "type_", "who"),
    [
        ("webhook.admin.USER-CREATE", "user.created", ADMIN),
        ("webhook.admin.USER-CREATE.credentials", "user.created", ADMIN),
        ("webhook.admin.USER-ACTION.reset-password", "password.reset", ADMIN),
        ("webhook.admin.USER-UPDATE.required-action", "password.expired", ADMIN),
        ("webhook.admin.USER-UPDATE.ours", "password.expired", ADMIN),
        ("webhook.admin.USER-UPDATE.console", "admin.USER-UPDATE", ADMIN),
        ("webhook.admin.USER-ACTION.execute-actions-email", "password.reset_requested", ADMIN),
        ("webhook.admin.USER-ACTION.logout", "admin.USER-ACTION", ADMIN),
        ("webhook.admin.USER-DELETE", "user.deleted", ADMIN),
        ("webhook.admin.USER_PROFILE-UPDATE", "admin.USER_PROFILE-UPDATE", ADMIN),
        ("webhook.access.REGISTER", "user.created", USER),
        ("webhook.access.UPDATE_PASSWORD", "password.changed", USER),
        ("webhook.access.REGISTER_ERROR", "access.REGISTER_ERROR", FAILED),
        ("kafka.AdminEvent.USER-CREATE", "user.created", ADMIN),
        ("kafka.AdminEvent.USER-CREATE.error", "admin.USER-CREATE_ERROR", FAILED),
        ("kafka.Event.REGISTER", "user.created", USER),
        ("rabbitmq.AdminEvent.USER-UPDATE", "admin.USER-UPDATE", ADMIN),
    ],
)
def test_types_and_who_triggered_it(name: str, type_: str, who: tuple[str, str]) -> None:
    """The structure shows what an admin did; users' own events are the user's; a failed operation has no actor."""
    found = event(name)
    assert found.type == type_
    assert (found.context.triggered_by, found.context.triggered_by_basis) == who


def test_the_subject_is_in_the_path_and_not_the_actor() -> None:
    """An admin event is about the user in its path, with the addresses that the representation has, under that user's key."""
    found = event("webhook.admin.USER-CREATE")
    assert asdict(found.user) == {
        "id": MIRA, "username": "mira", "email": "mira.halloran@example.com",
        "phone": "+41440000017", "name": "Mira Halloran", "locale": "de-CH",
        "disabled": False,
    }  # fmt: skip
    assert event_key(found) == MIRA.encode()
    assert found.time is not None
    assert found.time.isoformat() == "2025-03-01T08:12:31.337000+00:00"
    assert found.payload["representation"]["username"] == "mira"


def test_a_reset_password_has_no_address_and_says_whose_it_is() -> None:
    """Keycloak writes no representation for it: who the user is remains to be looked up."""
    found = event("webhook.admin.USER-ACTION.reset-password")
    assert (found.user.id, found.user.email, found.user.phone) == (MIRA, None, None)


def test_what_a_user_did_is_about_that_user() -> None:
    """A registration has addresses and names in its details."""
    found = event("webhook.access.REGISTER")
    assert (found.user.id, found.user.email, found.user.name) == (SAM, "sam.self@example.com", "Sam Self")


@pytest.mark.parametrize(
    ("name", "username"),
    [
        ("webhook.admin.USER-CREATE", "mira"),
        ("webhook.admin.USER-UPDATE.required-action", "mira"),  # only the details say it
        ("webhook.admin.USER-ACTION.reset-password", None),  # the only name in it is the administrator's
        ("webhook.access.REGISTER", "sam"),
        ("webhook.access.UPDATE_PASSWORD", "mira"),
        ("kafka.Event.REGISTER", "sam"),
    ],
)
def test_the_username_is_the_users_and_never_the_administrators(name: str, username: str | None) -> None:
    """It is in the representation, in what the webhook adds about the user, or in a registration's details."""
    assert event(name).user.username == username


def test_what_a_user_typed_at_the_login_is_no_username() -> None:
    """Keycloak's own event has it under the same name, and it may be an address."""
    document = {**sample("kafka.Event.REGISTER"), "type": "UPDATE_PASSWORD"}
    document["details"] = {**document["details"], "username": "sam.self@example.com"}
    assert event(document).user.username is None


def test_the_username_in_the_details_counts_only_where_they_are_about_the_same_user() -> None:
    """An admin event may have details about something else."""
    document = sample("webhook.admin.USER-UPDATE.required-action")
    assert event({**document, "details": {"userId": SAM, "username": "sam"}}).user.username is None


def test_our_own_update_says_that_the_user_hears_of_it_already() -> None:
    """The update that Usher's own handler made is no second message."""
    assert event("webhook.admin.USER-UPDATE.ours").context.already_notified_by
    assert event("webhook.admin.USER-UPDATE.required-action").context.already_notified_by is None


@pytest.mark.parametrize(
    "kind", ["admin.USER-CREATE", "admin.USER-ACTION.reset-password", "admin.USER-UPDATE.required-action"]
)
def test_webhook_api_and_topic_give_one_fact_one_identity(kind: str) -> None:
    """Webhook and admin-events API differ in fields and names of realms, and agree in source, tenant and id."""
    by_webhook = event(f"webhook.{kind}")
    by_api = [arrival.event for arrival in arrivals((SAMPLES / "api.admin-events.json").read_bytes())]
    assert [found.type for found in by_api if found and found.uid == by_webhook.uid] == [by_webhook.type]


def test_webhook_and_topic_agree_too() -> None:
    """Also what a Kafka listener writes."""
    assert event("kafka.AdminEvent.USER-CREATE").uid == event("webhook.admin.USER-CREATE").uid
    assert event("kafka.Event.REGISTER").uid == event("webhook.access.REGISTER").uid


def test_an_event_without_an_id_has_one_that_repeats_with_it_and_with_nothing_else() -> None:
    """Early listeners leave the id out: realm, time, operation, path and actor stand for it."""
    bare = {name: value for name, value in sample("webhook.admin.USER-ACTION.reset-password").items() if name != "id"}
    again = {**bare, "uid": "another"}
    assert event(bare).id == event(again).id
    others = [{"time": bare["time"] + 1}, {"resourcePath": f"users/{SAM}/reset-password"}, {"operationType": "UPDATE"}]
    others += [{"id": 1}, {"id": 2}]
    assert len({event({**bare, **other}).id for other in [{}, *others]}) == 6


def test_a_body_full_of_events_is_refused_as_a_whole() -> None:
    """Nobody sends thousands at once, and reading them would hold up everything else."""
    (arrival,) = KeycloakSource().arrivals(json.dumps([{}] * 1_001).encode(), {}, 0.0)
    assert arrival.event is None
    assert "at most 1000 events" in arrival.reason


@pytest.mark.parametrize(
    ("given_", "realm", "tenant"),
    [
        ({"realmName": "other", "realmId": "1"}, "harbour", "other"),
        ({"realmId": "1"}, "harbour", "harbour"),
        ({"realmId": "1"}, None, "1"),
        ({}, None, ""),
    ],
)
def test_the_tenant_is_the_realm_by_name(given_: dict[str, str], realm: str | None, tenant: str) -> None:
    """As the event says it; else the one that is set up; the id only where nothing else is known."""
    document = {name: value for name, value in sample("kafka.Event.REGISTER").items() if not name.startswith("realm")}
    assert event({**document, **given_}, realm=realm).tenant == tenant


@pytest.mark.parametrize(
    ("attributes", "phone"),
    [
        ({"mobile": ["+44"], "phone_number": ["+33"]}, "+33"),
        ({"phoneNumber": [], "mobile": "+44"}, "+44"),
        ({"phoneNumber": [7]}, None),
        ({"tel": ["+1"]}, None),
    ],
)
def test_the_phone_number_is_in_the_first_attribute_that_has_one(attributes: dict[str, Any], phone: str | None) -> None:
    """Attributes are lists of text; what is none is passed over."""
    document = {**sample("webhook.admin.USER-CREATE"), "representation": json.dumps({"attributes": attributes})}
    assert event(document).user.phone == phone


def test_which_attributes_hold_phone_and_language_can_be_said() -> None:
    """Realms name them as they like."""
    representation = json.dumps({"attributes": {"tel": ["+1"], "lang": ["fr"]}})
    document = {**sample("webhook.admin.USER-CREATE"), "representation": representation}
    user = event(document, phone_attributes=["tel"], locale_attribute="lang").user
    assert (user.phone, user.locale) == ("+1", "fr")


@pytest.mark.parametrize("mode", ["any", "alone"])
def test_an_update_of_everything_counts_unless_it_is_to_say_it_alone(mode: str) -> None:
    """The admin console sends all fields, the required action among them, whatever was changed."""
    console = sample("webhook.admin.USER-UPDATE.console")
    representation = {**json.loads(console["representation"]), "requiredActions": ["UPDATE_PASSWORD"]}
    expected = "password.expired" if mode == "any" else "admin.USER-UPDATE"
    assert event({**console, "representation": json.dumps(representation)}, required_action=mode).type == expected
    assert event("webhook.admin.USER-UPDATE.required-action", required_action=mode).type == "password.expired"
    assert event("webhook.admin.USER-UPDATE.ours", required_action=mode).context.already_notified_by


def test_a_webhook_is_verified_by_the_hmac_of_its_raw_body() -> None:
    """Any of the secrets will do, the body has to be the very one, and without a secret nobody is let in."""
    body = (SAMPLES / "webhook.admin.USER-CREATE.json").read_bytes()
    headers = {SIGNATURE: hmac.new(b"new", body, hashlib.sha256).hexdigest()}
    assert KeycloakSource(["old", "new"]).verified(headers, body)
    assert not KeycloakSource(["old", "new"]).verified(headers, body + b" ")
    assert not KeycloakSource(["old"]).verified(headers, body)
    assert not KeycloakSource(["old"]).verified({}, body)
    assert not KeycloakSource().verified(headers, body)


@pytest.mark.parametrize(
    "body", [b'{"hello": 1}', b"[7]", b'"text"', b'{"type": 3, "operationType": "CREATE"}', b"[[]]", b"1"]
)
def test_what_is_no_event_becomes_a_stub_that_quotes_nothing(body: bytes) -> None:
    """An operator sees that something came and how large it was; nothing of it is stored, since it can't be stripped."""
    (arrival,) = arrivals(body)
    assert arrival.event is None
    assert arrival.reason.startswith("no event")
    assert b"hello" not in arrival.value


def test_no_json_is_refused() -> None:
    """The sender hears that it sent something else."""
    with pytest.raises(NotJson):
        arrivals(b"<html>")


def test_a_record_of_a_raw_topic_may_be_a_cloud_event() -> None:
    """In structured form the event is in `data`."""
    cloud = {
        "specversion": "1.0",
        "id": "1",
        "type": "t",
        "source": "s",
        "data": sample("kafka.AdminEvent.USER-CREATE"),
    }
    record = StoredRecord("keycloak-admin", 0, 0, 0, None, json.dumps(cloud).encode(), ())
    arrival = read_record(KeycloakSource(), record)
    assert arrival is not None
    assert arrival.event is not None
    assert arrival.event.type == "user.created"


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
_FIELDS = ("id", "time", "realmId", "realmName", "operationType", "resourceType", "resourcePath", "representation", "type",
           "authDetails", "details", "error", "userId", "clientId")  # fmt: skip


@given(st.sampled_from(FILES), st.dictionaries(st.sampled_from(_FIELDS), _JSON), st.sets(st.sampled_from(_FIELDS)))
def test_whatever_is_in_its_fields_an_event_is_read_and_reads_back(
    path: Path, wrong: dict[str, Any], missing: set[str]
) -> None:
    """Fields of any type or none: an event or a stub, never an exception; what is stored is the event."""
    document = json.loads(path.read_bytes())
    documents = document if isinstance(document, list) else [document]
    changed = [{name: value for name, value in {**item, **wrong}.items() if name not in missing} for item in documents]
    for arrival in arrivals(json.dumps(changed).encode()):
        assert not any(secret in arrival.value.decode() for secret in SECRETS)
        if arrival.event is not None:
            assert decode(arrival.value) == arrival.event
