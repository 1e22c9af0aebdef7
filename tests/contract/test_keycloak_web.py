"""Keycloak's webhook over HTTP: whatever is posted, no 500, no exception in the log, and no credential in the log's topic."""

from __future__ import annotations

import hashlib
import hmac
import json
import string
from collections.abc import Mapping
from typing import Any

import aiohttp
import structlog
from hypothesis import given, settings
from hypothesis import strategies as st
from structlog.testing import CapturingLogger, LogCapture

from usher.delivery import Headers
from usher.engine.port import LogUnavailable, Place
from usher.metrics import Metrics
from usher.sources import decode
from usher.sources.keycloak import Keycloak
from usher.testing.keycloak import FakeKeycloak
from usher.web import OK, Ingress, Server, build_web

PATH, SECRET = "/ingest/keycloak", "whsec-of-keycloak"


def signed(body: bytes, secret: str = SECRET) -> dict[str, str]:
    return {"X-Keycloak-Signature": hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()}


class Site:
    """A server with Keycloak's ingress; *kept* is what was stored, unless the log is *down*."""

    def __init__(self) -> None:
        self.kept: list[tuple[bytes | None, bytes]] = []
        self.down = False
        self.lines = LogCapture()
        log = structlog.wrap_logger(CapturingLogger(), processors=[self.lines], wrapper_class=structlog.BoundLogger)
        metrics = Metrics()
        ingress = Ingress(self, "identity.events", Keycloak([SECRET, "another"]), metrics, log)
        self.server = Server(build_web(vital=self, metrics=metrics, log=log, ingresses={PATH: ingress}), "127.0.0.1", 0)

    async def append(self, topic: str, key: bytes | None, value: bytes, headers: Headers = ()) -> Place:
        if self.down:
            raise LogUnavailable("no broker")
        self.kept.append((key, value))
        return Place(topic, 0)

    async def alive(self) -> Mapping[str, str]:
        return {"loop": OK}

    async def ready(self) -> Mapping[str, str]:
        return {"log": OK}

    async def __aenter__(self) -> Site:
        await self.server.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.server.stop()

    async def post(self, body: bytes, headers: Mapping[str, str] | None = None) -> int:
        async with (
            aiohttp.ClientSession(f"http://127.0.0.1:{self.server.port}") as client,
            client.post(PATH, data=body, headers=signed(body) if headers is None else headers) as answer,
        ):
            return answer.status


async def test_a_signed_event_is_stored_under_its_user() -> None:
    """By either secret, while one replaces the other; 503 while the log takes nothing, so that Keycloak sends it again."""
    event = FakeKeycloak(realm="acme").create_user("u-1", email="eva@example.com")
    async with Site() as site:
        for secret in (SECRET, "another"):
            assert await site.post(*FakeKeycloak(realm="acme").webhook(event, secret)) == 200
        site.down = True
        assert await site.post(*FakeKeycloak(realm="acme").webhook(event, SECRET)) == 503

    assert [key for key, _ in site.kept] == [b"u-1", b"u-1"]
    assert len({decode(value).identity for _, value in site.kept}) == 1


async def test_a_call_without_a_good_signature_is_401() -> None:
    """Another secret, another body, none at all: nothing of it is kept."""
    body, headers = FakeKeycloak().webhook(FakeKeycloak().create_user("u-1"), "guessed")
    async with Site() as site:
        for given_ in (headers, {}, {"X-Keycloak-Signature": ""}, signed(body + b" ")):
            assert await site.post(body, given_) == 401

    assert site.kept == []


HIDDEN = "Hidden-Credential-7f3a"
_SECRET_FIELDS = st.sampled_from(
    ["password", "secret", "clientSecret", "access_token", "otp", "salt", "apiKey", "credentials"]
)
_NAMES = st.sampled_from(["username", "email", "attributes", "requiredActions", "self", "id"]) | st.text(
    string.ascii_letters, max_size=6
)
_LEAVES = (
    st.none() | st.booleans() | st.integers() | st.text(max_size=10) | st.sampled_from(["UPDATE_PASSWORD", "urn:usher"])
)
_HIDDEN = st.tuples(_SECRET_FIELDS, st.sampled_from([HIDDEN, [HIDDEN], [{"value": HIDDEN}]]))
_OPEN = st.recursive(
    _LEAVES | _HIDDEN.filter(lambda pair: pair[0] != "credentials").map(lambda pair: dict([pair])),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_NAMES, inner, max_size=5),
    max_leaves=12,
)
_USERS = st.dictionaries(_NAMES, _OPEN, max_size=4).flatmap(
    lambda user: _HIDDEN.map(lambda pair: {**user, pair[0]: pair[1]})
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
    statuses: set[int] = set()
    async with Site() as site:

        @settings(max_examples=300)
        @given(_BODIES)
        def shoot(body: bytes) -> None:
            bodies.append(body)

        bodies: list[bytes] = []
        shoot()
        for body in bodies:
            statuses.add(await site.post(body))

    assert statuses == {200, 202, 400}
    assert sum(HIDDEN.encode() in body for body in bodies) > 20
    assert [value for _, value in site.kept if HIDDEN.encode() in value] == []
    assert [line for line in site.lines.entries if line["log_level"] in {"error", "critical"}] == []
