"""Auth0's webhook over HTTP: whatever is posted, no 500, no exception in the log, and no credential in the log's topic."""

from __future__ import annotations

import base64
import json
import string
from typing import Any

import pytest
from hypothesis import strategies as st
from tests.ingress import LEAVES, Site, bombard, documents, hidden

from usher.event import Undecodable
from usher.eventlog.errors import LogUnavailable
from usher.systems.auth0.rules import Auth0Rules
from usher.systems.auth0.source import Auth0Source
from usher.systems.decode import decode

TOKEN = "whsec-of-auth0"


def scp(number: int) -> dict[str, Any]:
    data = {"type": "scp", "date": "2026-03-02T14:00:01.000Z", "user_id": "auth0|1", "user_name": "eva@example.com"}
    return {"log_id": f"900{number}", "data": data}


def auth0() -> Site:
    source = Auth0Source([TOKEN, "usher:pass"], "acme", Auth0Rules(created_from="logs", admin_markers=("created_by",)))
    return Site(source, lambda _: {"authorization": f"Bearer {TOKEN}"})


@pytest.mark.parametrize(
    "authorization", [f"Bearer {TOKEN}", TOKEN, "Basic " + base64.b64encode(b"usher:pass").decode()]
)
async def test_a_call_that_proves_itself_is_stored_under_its_user(authorization: str) -> None:
    """By bearer token, by a log stream's plain value, by user and password."""
    async with auth0() as site:
        assert await site.post(json.dumps(scp(1)).encode(), {"authorization": authorization}) == 200

    (kept,) = site.kept
    assert (kept.key, decode(kept.value).type) == (b"auth0|1", "password.changed")


@pytest.mark.parametrize("authorization", ["Bearer wrong", "Basic eDp5", "Basic ", "Bearer", "", None])
async def test_a_call_without_proof_is_401(authorization: str | None) -> None:
    """And nothing of it is kept."""
    async with auth0() as site:
        headers = {} if authorization is None else {"authorization": authorization}
        assert await site.post(json.dumps(scp(1)).encode(), headers) == 401

    assert site.kept == []


async def test_a_batch_that_was_stored_in_part_is_sent_again_and_stored_once() -> None:
    """503 while the log is down; the stream's next attempt brings what is missing, and no more."""
    batch = "\n".join(json.dumps(scp(number)) for number in range(4)).encode()
    async with auth0() as site:
        site.shelf.trouble, site.shelf.room = LogUnavailable("no broker"), 2
        assert await site.post(batch) == 503
        site.shelf.trouble = None
        assert await site.post(batch) == 200

    assert [decode(value).id for _, _, value in site.kept] == ["9000", "9001", "9002", "9003"]


async def test_one_of_a_batch_that_is_too_large_leaves_a_stub() -> None:
    """Its neighbours are stored: a batch that is refused would be sent again for ever."""
    entries = [scp(number) for number in range(3)]
    entries[1]["data"]["details"] = {"text": "x" * 5_000}
    async with auth0() as site:
        site.shelf.largest = 4_000
        assert await site.post(json.dumps(entries).encode()) == 200

    first, stub, last = (value for _, _, value in site.kept)
    assert [decode(first).id, decode(last).id] == ["9000", "9002"]
    with pytest.raises(Undecodable, match="event 9001 is too large"):
        decode(stub)


_SECRET_FIELDS = st.sampled_from(
    ["password", "newPassword", "resetUrl", "access_token", "client_secret", "otp", "recovery_code", "hash", "apiKey"]
)
_LOG_ONLY = st.sampled_from(["ticket", "httpAuthorization", "cookie", "link_with", "SAMLResponse", "device_code"])
_FIELDS = st.sampled_from(
    ["type", "data", "object", "context", "client", "id", "time", "details", "request", "response", "body", "path", "method",
     "user_id", "user_name", "email", "app_metadata", "identities", "channel", "log_id", "date", "logs", "event", "offset"]
) | st.text(string.ascii_letters, max_size=6)  # fmt: skip
_LEAVES = LEAVES | st.sampled_from(
    ["user.created", "sapi", "scp", "scpr", "post", "patch", "/api/v2/users", "/api/v2/users/a%7Cb"]
)


def _documents(secret_fields: st.SearchStrategy[str]) -> st.SearchStrategy[Any]:
    return documents(_LEAVES | hidden(secret_fields), _FIELDS)


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
    async with auth0() as site:
        await bombard(site, _BODIES)
