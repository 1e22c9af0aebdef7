"""Auth0's webhook over HTTP: whatever is posted, no 500, no exception in the log, and no credential in the log's topic."""

from __future__ import annotations

import base64
import json
import string
from collections.abc import Mapping
from typing import Any

import aiohttp
import pytest
import structlog
from hypothesis import given, settings
from hypothesis import strategies as st
from structlog.testing import CapturingLogger, LogCapture

from usher.delivery import Headers
from usher.engine.port import LogUnavailable, Place
from usher.metrics import Metrics
from usher.sources import decode
from usher.sources.auth0 import Auth0
from usher.sources.auth0_rules import Rules
from usher.web import OK, Ingress, Server, build_web

PATH, TOKEN = "/ingest/auth0", "whsec-of-auth0"
BEARER = {"authorization": f"Bearer {TOKEN}"}


def scp(number: int) -> dict[str, Any]:
    data = {"type": "scp", "date": "2026-03-02T14:00:01.000Z", "user_id": "auth0|1", "user_name": "eva@example.com"}
    return {"log_id": f"900{number}", "data": data}


class Site:
    """A server with Auth0's ingress; *kept* is what was stored, and from the *fails*-th on nothing is."""

    def __init__(self) -> None:
        self.kept: list[tuple[bytes | None, bytes]] = []
        self.fails: int | None = None
        self.lines = LogCapture()
        log = structlog.wrap_logger(CapturingLogger(), processors=[self.lines], wrapper_class=structlog.BoundLogger)
        metrics = Metrics()
        source = Auth0([TOKEN, "usher:pass"], "acme", Rules(created_from="logs", admin_markers=("created_by",)))
        ingress = Ingress(self, "identity.events", source, metrics, log)
        self.server = Server(build_web(vital=self, metrics=metrics, log=log, ingresses={PATH: ingress}), "127.0.0.1", 0)

    async def append(self, topic: str, key: bytes | None, value: bytes, headers: Headers = ()) -> Place:
        if self.fails is not None and len(self.kept) >= self.fails:
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
            client.post(PATH, data=body, headers=BEARER if headers is None else headers) as answer,
        ):
            return answer.status


@pytest.mark.parametrize(
    "authorization", [f"Bearer {TOKEN}", TOKEN, "Basic " + base64.b64encode(b"usher:pass").decode()]
)
async def test_a_call_that_proves_itself_is_stored_under_its_user(authorization: str) -> None:
    """By bearer token, by a log stream's plain value, by user and password."""
    async with Site() as site:
        assert await site.post(json.dumps(scp(1)).encode(), {"authorization": authorization}) == 200

    ((key, value),) = site.kept
    assert (key, decode(value).type) == (b"auth0|1", "password.changed")


@pytest.mark.parametrize("authorization", ["Bearer wrong", "Basic eDp5", "Basic ", "Bearer", "", None])
async def test_a_call_without_proof_is_401(authorization: str | None) -> None:
    """And nothing of it is kept."""
    async with Site() as site:
        headers = {} if authorization is None else {"authorization": authorization}
        assert await site.post(json.dumps(scp(1)).encode(), headers) == 401

    assert site.kept == []


async def test_a_batch_that_was_stored_in_part_is_sent_again_and_stored_once() -> None:
    """503 while the log is down; the stream's next attempt brings what is missing, and no more."""
    batch = "\n".join(json.dumps(scp(number)) for number in range(4)).encode()
    async with Site() as site:
        site.fails = 2
        assert await site.post(batch) == 503
        site.fails = None
        assert await site.post(batch) == 200

    assert [decode(value).id for _, value in site.kept] == ["9000", "9001", "9002", "9003"]


HIDDEN = "Hidden-Credential-7f3a"
_SECRET_FIELDS = st.sampled_from(
    ["password", "newPassword", "resetUrl", "access_token", "client_secret", "otp", "recovery_code", "hash", "apiKey"]
)
_LOG_ONLY = st.sampled_from(["ticket", "httpAuthorization", "cookie", "link_with", "SAMLResponse", "device_code"])
_FIELDS = st.sampled_from(
    ["type", "data", "object", "context", "client", "id", "time", "details", "request", "response", "body", "path", "method",
     "user_id", "user_name", "email", "app_metadata", "identities", "channel", "log_id", "date", "logs", "event", "offset"]
) | st.text(string.ascii_letters, max_size=6)  # fmt: skip
_LEAVES = st.none() | st.booleans() | st.integers() | st.text(max_size=10)
_LEAVES |= st.sampled_from(
    ["user.created", "sapi", "scp", "scpr", "post", "patch", "/api/v2/users", "/api/v2/users/a%7Cb"]
)


def _documents(secret_fields: st.SearchStrategy[str]) -> st.SearchStrategy[Any]:
    hidden = st.tuples(secret_fields, st.sampled_from([HIDDEN, [HIDDEN], {"x": HIDDEN}])).map(lambda pair: dict([pair]))
    return st.recursive(
        _LEAVES | hidden,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_FIELDS, inner, max_size=5),
        max_leaves=15,
    )


_LOGS = _documents(_SECRET_FIELDS | _LOG_ONLY).map(
    lambda details: {**scp(1), "data": {**scp(1)["data"], "details": details}}
)
_CALLS = _documents(_SECRET_FIELDS | _LOG_ONLY).map(
    lambda body: {"log_id": "1", "data": {"type": "sapi", "details": {"request": {"path": "/api/v2/x", "body": body}}}}
)
_EVENTS = _documents(_SECRET_FIELDS).map(
    lambda about: {
        "specversion": "1.0",
        "type": "user.created",
        "id": "evt_1",
        "data": {"object": {"user_id": "a", "more": about}},
    }
)
_ANY = _documents(_SECRET_FIELDS)
_BODIES = (
    (_LOGS | _CALLS | _EVENTS | _ANY).map(lambda document: json.dumps(document).encode())
    | st.lists(_LOGS | _EVENTS | _ANY, max_size=4).map(lambda documents: json.dumps(documents).encode())
    | st.lists(_LOGS | _CALLS | _ANY, max_size=4).map(lambda documents: "\n".join(map(json.dumps, documents)).encode())
    | st.binary(max_size=40)
)


async def test_no_body_is_too_strange() -> None:
    """No 500, no exception in the log; what is stored decodes or is a stub; no credential, wherever in the body it was."""
    statuses: set[int] = set()
    async with Site() as site:

        @settings(max_examples=150, deadline=None)
        @given(_BODIES)
        def shoot(body: bytes) -> None:
            bodies.append(body)

        bodies: list[bytes] = []
        shoot()
        for body in bodies:
            statuses.add(await site.post(body))

    assert statuses <= {200, 202, 400}
    assert {200, 202, 400} <= statuses
    assert any(HIDDEN.encode() in body for body in bodies)
    assert [value for _, value in site.kept if HIDDEN.encode() in value] == []
    assert [line for line in site.lines.entries if line["log_level"] in {"error", "critical"}] == []
