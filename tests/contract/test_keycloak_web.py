"""Keycloak's webhook over HTTP: whatever is posted, no 500, no exception in the log, and no credential in the log's topic."""

from __future__ import annotations

import json
import string
from typing import Any

from hypothesis import strategies as st
from tests.fakes.keycloak import FakeKeycloak
from tests.ingress import HIDDEN, LEAVES, Site, bombard, documents, hidden, sign

from usher.eventlog.errors import LogUnavailable
from usher.systems.decode import decode
from usher.systems.keycloak.source import KeycloakSource

SECRET = "whsec-of-keycloak"


def signed(body: bytes) -> dict[str, str]:
    return sign("X-Keycloak-Signature", body, SECRET)


def keycloak() -> Site:
    return Site(KeycloakSource([SECRET, "another"]), signed)


async def test_a_signed_event_is_stored_under_its_user() -> None:
    """By either secret, while one replaces the other; 503 while the log takes nothing, so that Keycloak sends it again."""
    event = FakeKeycloak(realm="acme").create_user("u-1", email="eva@example.com")
    async with keycloak() as site:
        for secret in (SECRET, "another"):
            assert await site.post(*FakeKeycloak(realm="acme").webhook(event, secret)) == 200
        site.shelf.trouble = LogUnavailable("no broker")
        assert await site.post(*FakeKeycloak(realm="acme").webhook(event, SECRET)) == 503

    assert [kept.key for kept in site.kept] == [b"u-1", b"u-1"]
    assert len({decode(kept.value).uid for kept in site.kept}) == 1


async def test_a_call_without_a_good_signature_is_401() -> None:
    """Another secret, another body, none at all: nothing of it is kept."""
    body, headers = FakeKeycloak().webhook(FakeKeycloak().create_user("u-1"), "guessed")
    async with keycloak() as site:
        for given in (headers, {}, {"X-Keycloak-Signature": ""}, signed(body + b" ")):
            assert await site.post(body, given) == 401

    assert site.kept == []


_SECRET_FIELDS = st.sampled_from(
    ["password", "secret", "clientSecret", "access_token", "otp", "salt", "apiKey", "credentials"]
)
_NAMES = st.sampled_from(["username", "email", "attributes", "requiredActions", "self", "id"]) | st.text(
    string.ascii_letters, max_size=6
)
_LEAVES = LEAVES | st.sampled_from(["UPDATE_PASSWORD", "urn:usher"])
_OPEN = documents(_LEAVES | hidden(_SECRET_FIELDS.filter(lambda name: name != "credentials")), _NAMES, max_leaves=12)
_USERS = st.builds(
    lambda user, secret: {**user, **secret}, st.dictionaries(_NAMES, _OPEN, max_size=4), hidden(_SECRET_FIELDS)
)
_REPRESENTATIONS = (
    _USERS.map(json.dumps) | _USERS | st.sampled_from([HIDDEN, f'{{"value": "{HIDDEN}"', f'["{HIDDEN}"]'])
)
_LINKS = st.sampled_from([f"https://a.example/back?code={HIDDEN}", f"app://x#{HIDDEN}"])
_FIELDS: dict[str, st.SearchStrategy[Any]] = {
    "id": st.text(max_size=5) | st.none() | st.integers(),
    "time": st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.none(),
    "operationType": st.sampled_from(["CREATE", "UPDATE", "ACTION", "DELETE", ""]) | st.none(),
    "resourceType": st.sampled_from(["USER", "CLIENT", "REALM", ""]) | st.none(),
    "resourcePath": st.sampled_from(["users/u-1", "users/u-1/reset-password", "users/", "clients/c-1", "users/a/b/c"]),
    "type": st.sampled_from(["admin.USER-CREATE", "access.REGISTER", "UPDATE_PASSWORD", ""]) | st.integers(),
    "authDetails": _OPEN,
    "details": _OPEN | st.dictionaries(_NAMES, _LINKS, max_size=3),
    "error": st.none() | st.text(max_size=5),
    "realmName": _LEAVES,
    "representation": _REPRESENTATIONS,
}
_EVENTS = st.fixed_dictionaries({}, optional=_FIELDS)
_BODIES = (
    (_EVENTS | _OPEN).map(lambda document: json.dumps(document).encode())
    | st.lists(_EVENTS, max_size=4).map(lambda documents: json.dumps(documents).encode())
    | _EVENTS.map(lambda event: json.dumps({"specversion": "1.0", "data": event}).encode())
    | st.binary(max_size=40)
)


async def test_no_body_is_too_strange() -> None:
    """No 500, no exception in the log; what is stored decodes or is a stub; no credential, wherever in the body it was."""
    async with keycloak() as site:
        await bombard(site, _BODIES, examples=300)
