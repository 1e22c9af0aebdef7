"""What an administrator did is recognised by what it is: by whatever way through the API it came, and however it was written."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

import pytest

from usher.event import Event
from usher.systems.auth0.rules import Auth0Rules
from usher.systems.auth0.source import Auth0Source
from usher.systems.authgear.source import AuthgearHabits, AuthgearSource
from usher.systems.canonical import canonical_document
from usher.systems.decode import decode
from usher.systems.document import dump
from usher.systems.genauth.source import GenAuthSource
from usher.systems.keycloak.source import KeycloakSource, is_about_a_user
from usher.systems.source import Source

KIM = "7c1d0d6e-2222-4b33-8c44-0123456789ab"
PERSON = {"id": KIM, "username": "kim", "email": "kim@example.org", "enabled": True}
SCIM = {
    "schemas": ["urn:ietf:params:scim:schemas:core:2.0:User"],
    "id": KIM,
    "userName": "kim",
    "name": {"givenName": "Kim", "familyName": "Berg"},
    "emails": [{"value": "old@example.org"}, {"value": "kim@example.org", "primary": True}],
    "phoneNumbers": [{"type": "work", "value": "1234"}, {"type": "mobile", "value": "tel:+447400123456"}],
    "preferredLanguage": "de-CH",
    "active": True,
}


def only(source: Source, body: Any, headers: dict[str, str] | None = None) -> Event:
    (arrival,) = source.arrivals(json.dumps(body).encode(), headers or {}, 1_767_600_000.0)
    assert arrival.event is not None, arrival.reason
    assert decode(arrival.value) == arrival.event
    return arrival.event


def keycloak(path: str, user: Any = None, operation: str = "CREATE", resource: Any = "USER", **more: Any) -> Event:
    document = {
        "id": "e-1", "time": 1_767_600_000_000, "realmId": "r", "realmName": "shop", "resourcePath": path,
        "authDetails": {"realmId": "master", "userId": "an-admin"}, "operationType": operation, "resourceType": resource,
    }  # fmt: skip
    given = {} if user is None else {"representation": json.dumps(user)}
    return only(KeycloakSource(), {**document, **given, **more})


@pytest.mark.parametrize("resource", ["USER", "REALM", None, "", "SOMETHING_NEW"])
@pytest.mark.parametrize(
    "path", [f"users/{KIM}", f"users//{KIM}", f"users/{KIM}/", f"/users/{KIM}//", f"//users///{KIM}"]
)
def test_a_user_is_made_whatever_the_slashes_and_the_resource_type_say(path: str, resource: str | None) -> None:
    """A partial import writes REALM, or nothing; clients of the API write slashes twice, or one at the end."""
    found = keycloak(path, PERSON, resource=resource)

    assert (found.type, found.context.triggered_by, found.tenant) == ("user.created", "admin_api", "shop")
    assert (found.user.id, found.user.email, found.user.disabled) == (KIM, "kim@example.org", False)


@pytest.mark.parametrize(
    ("path", "operation", "user", "type_"),
    [
        (f"users/{KIM}/reset-password/", "ACTION", None, "password.reset"),
        (f"users//{KIM}//reset-password", "action", None, "password.reset"),
        (f"users/{KIM}/execute-actions-email", "ACTION", None, "password.reset_requested"),
        (f"users/{KIM}/execute-actions-email/", "UPDATE", None, "password.reset_requested"),
        (f"users/{KIM}/", "UPDATE", {"requiredActions": ["UPDATE_PASSWORD"]}, "password.expired"),
        (f"users/{KIM}", "update", {"enabled": False}, "user.disabled"),
        (f"users/{KIM}", "UPDATE", {**PERSON, "enabled": False}, "user.disabled"),
        (f"users/{KIM}", "UPDATE", {"enabled": False, "requiredActions": ["UPDATE_PASSWORD"]}, "user.disabled"),
        (f"users/{KIM}", "UPDATE", {"enabled": True}, "user.reenabled"),
        (f"users/{KIM}", "UPDATE", PERSON, "admin.USER-UPDATE"),  # the console writes all fields with each change
        (f"users/{KIM}", "UPDATE", {"credentials": [{"type": "password", "value": "***"}]}, "password.reset"),
        (f"users/{KIM}", "UPDATE", {**PERSON, "credentials": [{"value": "***"}]}, "password.reset"),
        (f"users/{KIM}", "UPDATE", {"credentials": [{"type": "otp"}]}, "admin.USER-UPDATE"),
        (f"users/{KIM}", "UPDATE", {"credentials": []}, "admin.USER-UPDATE"),
        (f"users/{KIM}", "DELETE", None, "user.deleted"),
        (f"users/{KIM}/", "DELETE", None, "user.deleted"),
    ],
)
def test_each_deed_is_recognised_by_the_parts_of_its_path(path: str, operation: str, user: Any, type_: str) -> None:
    """Doubled and trailing slashes count for nothing, and neither does the case of the operation."""
    found = keycloak(path, user, operation)

    assert (found.type, found.user.id, found.context.triggered_by) == (type_, KIM, "admin_api")
    assert "***" not in dump(canonical_document(found)).decode()


@pytest.mark.parametrize(
    ("path", "resource", "user_id", "stays"),
    [
        ("users/profile", "USER_PROFILE", None, "admin.USER_PROFILE-UPDATE"),
        (f"users/{KIM}/groups/users", "GROUP_MEMBERSHIP", KIM, "admin.GROUP_MEMBERSHIP-UPDATE"),
        (f"users/{KIM}/role-mappings/realm", "REALM_ROLE_MAPPING", KIM, "admin.REALM_ROLE_MAPPING-UPDATE"),
        (f"users/{KIM}/federated-identity/reset-password", "USER", KIM, "admin.USER-UPDATE"),
        (f"groups/users/{KIM}", "GROUP", None, "admin.GROUP-UPDATE"),
        (f"groups/{KIM}/users/reset-password", "GROUP", None, "admin.GROUP-UPDATE"),
        (f"clients/{KIM}/users/{KIM}", "CLIENT", None, "admin.CLIENT-UPDATE"),
        ("roles/users", "REALM_ROLE", None, "admin.REALM_ROLE-UPDATE"),
        ("users", "USER", None, "admin.USER-UPDATE"),
        ("scim/v2/Groups/g-1", "GROUP", None, "admin.GROUP-UPDATE"),
    ],
)
def test_what_only_looks_like_a_user_is_none(path: str, resource: str, user_id: str | None, stays: str) -> None:
    """Groups and roles may be called users, and what hangs on a user is not the user."""
    found = keycloak(path, {"enabled": False, "id": "g-1"}, "UPDATE", resource)

    assert (found.type, found.user.id, found.user.disabled) == (stays, user_id, None)


@pytest.mark.parametrize(
    ("path", "resource", "brought"),
    [
        (f"users/{KIM}", "REALM", True),
        (f"users//{KIM}/", None, True),
        (f"users/{KIM}/reset-password/", None, True),
        (f"scim/v2/Users/{KIM}", "USER", True),
        (f"users/{KIM}/role-mappings/realm", "REALM_ROLE_MAPPING", False),
        ("users/profile", "USER_PROFILE", False),
        ("clients/c-1", "CLIENT", False),
        (None, "USER", False),
    ],
)
def test_the_poller_brings_what_is_about_users_and_nothing_else(path: Any, resource: Any, brought: bool) -> None:
    """It reads all admin events, since the resource type does not tell."""
    assert is_about_a_user({"resourcePath": path, "resourceType": resource}) is brought


def test_two_imported_users_are_two_events() -> None:
    """Each has an event of its own, of one moment."""
    first, second = (keycloak(f"users/{name}", {**PERSON, "id": name}, resource="REALM", id=name) for name in "ab")

    assert (first.user.id, second.user.id) == ("a", "b")
    assert first.uid != second.uid


def test_the_realm_is_the_events_and_not_the_administrators() -> None:
    """An administrator of master acts in other realms."""
    found = keycloak(f"users/{KIM}/", PERSON, realmName="other")

    assert found.tenant == "other"


@pytest.mark.parametrize("operation", ["CREATE", "UPDATE", "DELETE"])
def test_scim_is_another_way_to_the_same_users(operation: str) -> None:
    """Its paths and bodies are read: the primary address, a number that an SMS can go to, name and language."""
    found = keycloak(f"scim/v2/Users/{KIM}", SCIM, operation)

    assert found.type == {"CREATE": "user.created", "DELETE": "user.deleted"}.get(operation, "admin.USER-UPDATE")
    assert asdict(found.user) == {
        "id": KIM, "username": "kim", "email": "kim@example.org", "phone": "+447400123456", "name": "Kim Berg",
        "locale": "de-CH", "disabled": False,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("change", "type_"),
    [({"active": False}, "user.disabled"), ({"password": "pw-0a7"}, "password.reset"), ({}, "admin.USER-UPDATE")],
)
def test_a_change_by_scim_is_recognised(change: dict[str, Any], type_: str) -> None:
    """The whole user is written with each change; a password is not kept."""
    found = keycloak(f"scim/v2/Users/{KIM}/", {**SCIM, **change}, "UPDATE")

    assert found.type == type_
    assert "pw-0a7" not in dump(canonical_document(found)).decode()


@pytest.mark.parametrize(
    ("attributes", "phone"),
    [
        ({"phoneNumber": ["1234", "+447400123456", "+447400123457"]}, "+447400123456"),
        ({"phoneNumber": ["internal 12"], "mobile": ["", "00447400123456"]}, "00447400123456"),
        ({"phoneNumber": ["internal 12"]}, "internal 12"),
        ({"phoneNumber": [None, 7]}, None),
    ],
)
def test_of_several_numbers_it_is_the_first_that_an_sms_can_go_to(attributes: Any, phone: str | None) -> None:
    """Attributes hold several values, and the first may be an extension."""
    assert keycloak(f"users/{KIM}", {**PERSON, "attributes": attributes}).user.phone == phone


@pytest.mark.parametrize(
    "document",
    [
        {"type": "org.acme.invited", "userId": KIM},
        {"type": "com.acme.reset", "operationType": "CREATE", "resourceType": "USER", "resourcePath": f"users/{KIM}"},
        {"type": "REGISTER", "uid": "u-1", "userId": KIM, "authDetails": {"userId": "a-program"}},
        {"type": "system.thing", "uid": "u-1", "userId": KIM},
    ],
)
def test_a_custom_event_is_nobodys_deed(document: dict[str, Any]) -> None:
    """Any program with the right to publish can send one: it has neither a user's nor an administrator's word, whatever is in it."""
    found = only(KeycloakSource(realm="shop"), {"id": "1", "time": 1_767_600_000_000, **document})

    assert (found.type, found.raw_type) == (document["type"], document["type"])
    assert found.context.triggered_by == "unknown"
    assert found.user.id in (KIM, None)


@pytest.mark.parametrize(
    ("kind", "type_", "by"),
    [
        ("access.DELETE_ACCOUNT", "user.deleted", "user"),
        ("DELETE_ACCOUNT", "user.deleted", "user"),
        ("access.USER_DISABLED_BY_PERMANENT_LOCKOUT", "user.disabled", "system"),
        ("access.USER_DISABLED_BY_TEMPORARY_LOCKOUT", "access.USER_DISABLED_BY_TEMPORARY_LOCKOUT", "system"),
    ],
)
def test_what_keycloak_does_to_an_account_is_not_the_users_doing(kind: str, type_: str, by: str) -> None:
    """A lockout is the brute-force detection's; the user deletes the own account."""
    found = only(KeycloakSource(realm="shop"), {"id": "1", "type": kind, "userId": KIM})

    assert (found.type, found.context.triggered_by, found.user.id) == (type_, by, KIM)


# Auth0


def stream_event(type_: str, about: dict[str, Any], **more: Any) -> dict[str, Any]:
    envelope = {
        "id": "evt_1",
        "source": "urn:auth0:acme:users",
        "spec_version": "1.0",
        "time": "2026-01-05T10:36:25.794Z",
    }
    return {
        **envelope,
        "type": type_,
        "data": {"object": {"user_id": "auth0|1", "email": "kim@example.org", **about}},
        **more,
    }


@pytest.mark.parametrize("prefix", ["", "com.auth0."])
@pytest.mark.parametrize("name", ["user.created", "user.updated", "user.deleted", "organization.created"])
def test_auth0s_events_have_one_name_under_two(name: str, prefix: str) -> None:
    """One of its pages puts com.auth0. before the type; all else is the same."""
    found = only(Auth0Source(), stream_event(prefix + name, {}))

    assert (found.type, found.raw_type, found.user.email) == (name, prefix + name, "kim@example.org")


def test_a_marked_user_is_an_administrators_under_both_names() -> None:
    """The back office's mark is read."""
    rules = Auth0Rules(admin_markers=("created_by=back-office",))
    event = stream_event("com.auth0.user.created", {"app_metadata": {"created_by": "back-office"}})

    found = only(Auth0Source(rules=rules), event)
    apart = only(Auth0Source(rules=Auth0Rules(created_from="logs")), event)

    assert (found.type, found.context.triggered_by) == ("user.created", "admin_api")
    assert apart.type == "auth0.user.created"


def call(method: str, path: str, body: dict[str, Any], answer: dict[str, Any] | None = None) -> dict[str, Any]:
    details = {"request": {"method": method, "path": path, "body": body}, "response": {"body": answer or {}}}
    return {"log_id": "900", "date": "2026-01-05T10:00:00.000Z", "type": "sapi", "client_id": "c", "details": details}


@pytest.mark.parametrize(
    ("entry", "type_"),
    [
        (call("patch", "/api/v2/users/auth0%7C1", {"blocked": True}), "user.disabled"),
        (call("PATCH", "/api/v2//users/auth0%7C1/", {"blocked": True, "name": "Kim"}), "user.disabled"),
        (call("patch", "/api/v2/users/auth0%7C1", {"blocked": False}), "user.reenabled"),
        (call("patch", "/api/v2/users/auth0%7C1", {"blocked": False, "name": "Kim"}), "sapi"),
        (call("patch", "/api/v2/users/auth0%7C1", {"blocked": False, "password": "pw"}), "password.reset"),
        (call("delete", "/api/v2/users/auth0%7C1", {}), "user.deleted"),
        (call("delete", "/api/v2/users/auth0%7C1/multifactor/duo", {}), "sapi"),
    ],
)
def test_what_the_management_api_did_to_an_account(entry: dict[str, Any], type_: str) -> None:
    """A log entry tells it, with the user in its path."""
    found = only(Auth0Source(rules=Auth0Rules(created_from="logs")), entry)

    assert (found.type, found.context.triggered_by) == (type_, "admin_api")
    assert found.user.id in ("auth0|1", None)


@pytest.mark.parametrize("made_by", ["events", "logs"])
def test_a_deletion_is_reported_once(made_by: Any) -> None:
    """By the report that announces new users, too: an event stream and a log would be two messages."""
    source = Auth0Source(rules=Auth0Rules(created_from=made_by))
    by_stream = only(source, stream_event("user.deleted", {}))
    by_log = only(source, call("delete", "/api/v2/users/auth0%7C1", {}))

    assert [found.type for found in (by_stream, by_log)].count("user.deleted") == 1


# Authgear


def audit(type_: str, payload: dict[str, Any]) -> dict[str, Any]:
    user = {"id": "u-1", "standard_attributes": {"email": "kim@example.org"}}
    context = {"triggered_by": "admin_api", "user_id": "u-1", "app_id": "demo", "timestamp": 1_767_600_000}
    return {"id": "0000000000000501", "type": type_, "payload": {"user": user, **payload}, "context": context}


@pytest.mark.parametrize(
    ("authenticator", "type_"),
    [
        ({"type": "password", "kind": "primary"}, "password.reset"),
        ({"type": "password"}, "password.reset"),
        ({"type": "password", "kind": "secondary"}, "admin_api.mutation.create_authenticator.executed"),
        ({"type": "totp", "kind": "secondary"}, "admin_api.mutation.create_authenticator.executed"),
        (None, "admin_api.mutation.create_authenticator.executed"),
    ],
)
def test_a_password_that_an_administrator_adds_is_a_reset(authenticator: Any, type_: str) -> None:
    """Authgear mails nothing for it, whatever the back office does at resets."""
    habits = AuthgearHabits(mails=frozenset({"reset"}), expires=frozenset({"reset"}))
    event = audit("admin_api.mutation.create_authenticator.executed", {"authenticator": authenticator})

    found = only(AuthgearSource(habits=habits), event)

    assert (found.type, found.context.already_notified_by) == (type_, None)


# CloudEvents with plain data


@pytest.mark.parametrize(
    "data",
    [
        {"user": {"id": "u-1", "email": "kim@example.org"}, "context": {"triggered_by": "admin_api"}},
        {"email": "kim@example.org", "context": {"triggered_by": "admin_api"}},
        {"id": "u-1", "email": "kim@example.org", "context": {"triggered_by": "admin_api"}},
    ],
)
def test_plain_data_takes_what_happened_from_its_envelope(data: dict[str, Any]) -> None:
    """Id, type, time and source are the envelope's; the data is the user, or has one."""
    envelope = {
        "specversion": "1.0", "id": "e-7", "type": "user.created", "source": "/our/bridge", "subject": "u-1",
        "time": "2026-01-05T10:00:00Z", "data": data,
    }  # fmt: skip
    found = decode(json.dumps(envelope).encode())

    assert (found.id, found.type, found.source) == ("e-7", "user.created", "/our/bridge")
    assert (found.user.id, found.user.email) == ("u-1", "kim@example.org")
    assert found.context.triggered_by == "admin_api"
    assert found.time is not None
    assert found.time.isoformat() == "2026-01-05T10:00:00+00:00"


@pytest.mark.parametrize("data", [None, "text", [1], {}])
def test_an_envelope_without_a_user_is_an_event_about_nobody(data: Any) -> None:
    """Its own fields are enough; and nobody is known to have done it."""
    envelope = {"specversion": "1.0", "id": "e-7", "type": "acme.happened", "source": "/our/bridge", "data": data}
    for document in (envelope, {name: item for name, item in envelope.items() if name != "data"}):
        found = decode(json.dumps(document).encode())
        assert (found.id, found.type, found.source, found.user.id) == ("e-7", "acme.happened", "/our/bridge", None)
        assert found.context.triggered_by == "unknown"


def test_what_the_data_itself_says_stays() -> None:
    """An event within an envelope is that event: the envelope is the bridge's."""
    inner = {"id": "inner", "type": "user.created", "source": "hr", "user": {"email": "kim@example.org"}}
    found = decode(json.dumps({"specversion": "1.0", "id": "e-7", "type": "t", "source": "s", "data": inner}).encode())

    assert (found.id, found.type, found.source) == ("inner", "user.created", "hr")


def test_authgears_payload_in_an_envelope_is_authgears_event() -> None:
    """On a topic of Authgear's own events, too."""
    whole = audit("user.created", {})
    data = {name: whole[name] for name in ("payload", "context")}
    found = only(
        AuthgearSource(), {"specversion": "1.0", "id": "e-7", "type": "user.created", "source": "x", "data": data}
    )

    assert (found.id, found.type, found.source) == ("e-7", "user.created", "authgear")
    assert (found.tenant, found.user.email) == ("demo", "kim@example.org")


# Disabled accounts


def genauth(name: str, data: dict[str, Any]) -> Event:
    return only(GenAuthSource(), {"eventName": name, "data": data})


_OFF: list[tuple[str, Event, bool | None]] = [
    ("keycloak", keycloak(f"users/{KIM}", {**PERSON, "enabled": False}), True),
    ("keycloak, not said", keycloak(f"users/{KIM}", {"email": "kim@example.org"}), None),
    ("keycloak, scim", keycloak(f"scim/v2/Users/{KIM}", {**SCIM, "active": False}), True),
    ("auth0", only(Auth0Source(), stream_event("user.created", {"blocked": True})), True),
    ("auth0, a whole profile", only(Auth0Source(), stream_event("user.created", {"identities": []})), False),
    ("auth0, log", only(Auth0Source(), call("post", "/api/v2/users", {"blocked": True}, {"user_id": "auth0|1"})), True),
    ("authgear", only(AuthgearSource(), audit("user.created", {"user": {"id": "u-1", "is_disabled": True}})), True),
    ("authgear, deactivated", only(AuthgearSource(), audit("user.created", {"user": {"is_deactivated": True}})), True),
    ("authgear, enabled", only(AuthgearSource(), audit("user.created", {"user": {"is_disabled": False}})), False),
    ("authgear, not said", only(AuthgearSource(), audit("user.created", {})), None),
    ("genauth, blocked", genauth("user:created", {"id": "u-1", "blocked": True, "status": "Activated"}), True),
    ("genauth, as a form", genauth("user:created", {"id": "u-1", "blocked": "true"}), True),
    ("genauth, status", genauth("user:created", {"userId": "u-1", "status": "Suspended"}), True),
    ("genauth, active", genauth("user:created", {"userId": "u-1", "status": "Activated"}), False),
]  # fmt: skip


@pytest.mark.parametrize(("found", "disabled"), [row[1:] for row in _OFF], ids=[row[0] for row in _OFF])
def test_an_event_says_whether_the_account_is_disabled(found: Event, disabled: bool | None) -> None:
    """All four systems write it, each in its own way."""
    assert found.user.disabled is disabled


@pytest.mark.parametrize(
    ("name", "type_", "by"),
    [
        ("user:blocked", "user.disabled", "admin_api"),
        ("user:unblocked", "user.reenabled", "admin_api"),
        ("user:deleted", "user.deleted", "unknown"),
        ("user:archived", "user:archived", "unknown"),
    ],
)
def test_what_genauth_calls_it(name: str, type_: str, by: str) -> None:
    """Nobody blocks the own account; who has deleted one is not said."""
    found = genauth(name, {"user": {"id": "u-1", "email": "kim@example.org"}})

    assert (found.type, found.raw_type, found.context.triggered_by) == (type_, name, by)
    assert found.user.id == "u-1"
