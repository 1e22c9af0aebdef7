"""GenAuth's webhook over HTTP: whatever is posted, no 500, no exception in the log, and no credential in the log's topic."""

from __future__ import annotations

import asyncio
import json
import string
from typing import Any
from urllib.parse import urlencode

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tests.ingress import HIDDEN, LEAVES, Site, documents, hidden

from usher.outcome import Retry
from usher.systems.decode import decode
from usher.systems.genauth.source import SECRET_HEADERS, GenAuthSource
from usher.systems.source import Arrival

SECRET = "whsec-of-genauth"
PROOF = {SECRET_HEADERS[0]: SECRET}
FORM = {"content-type": "application/x-www-form-urlencoded"}
CREATED = {
    "eventName": "user:created",
    "data": {"id": "u-1", "email": "kim.berg@example.com", "registerSource": ["import:excel"]},
}


def genauth(**options: Any) -> Site:
    return Site(GenAuthSource([SECRET]), lambda _: PROOF, **options)


@pytest.mark.parametrize("header", SECRET_HEADERS)
async def test_a_call_with_the_secret_is_stored_under_its_user(header: str) -> None:
    """In any of the three headers; 200 once it is stored, canonical, with who made the user."""
    async with genauth() as site:
        assert await site.post(json.dumps(CREATED).encode(), {header: SECRET}) == 200

    (kept,) = site.kept
    event = decode(kept.value)
    assert (kept.key, event.type, event.context.triggered_by) == (b"u-1", "user.created", "admin_api")


@pytest.mark.parametrize(
    "headers", [{}, {SECRET_HEADERS[0]: "wrong"}, {SECRET_HEADERS[1]: ""}, {"authorization": SECRET}]
)
async def test_a_call_without_the_secret_is_401(headers: dict[str, str]) -> None:
    """And nothing of it is kept; the answer names the headers, and no secret."""
    async with genauth() as site:
        assert await site.post(json.dumps(CREATED).encode(), headers) == 401

    assert site.kept == []


async def test_the_consoles_test_button_gets_its_200() -> None:
    """It has no event name, and leaves nothing behind."""
    async with genauth() as site:
        assert await site.post(b'{"description": "A test from GenAuth Webhook"}') == 200

    assert site.kept == []


async def test_what_could_not_be_looked_up_is_asked_for_again() -> None:
    """503 and nothing stored: GenAuth repeats it where its webhook is set up to."""

    async def down(_arrival: Arrival) -> Arrival:
        raise Retry("GenAuth answered 503")

    async with genauth(enrich=down) as site:
        assert await site.post(json.dumps(CREATED).encode()) == 503

    assert site.kept == []


_SECRET_FIELDS = st.sampled_from(
    [
        "password",
        "salt",
        "encryptedPassword",
        "token",
        "oauth",
        "secretInfo",
        "nextAccessToken",
        "oldSecret",
        "otp",
        "refresh_token",
    ]
)
_NAMES = st.sampled_from(
    ["eventName", "data", "user", "users", "id", "userId", "phone", "phoneCountryCode", "updates", "updatedAt", "createdAt",
     "userSourceType", "registerSource", "userPoolId", "description", "specversion", "data_base64"]
) | st.text(string.ascii_letters + "[]", max_size=8)  # fmt: skip
_LEAVES = LEAVES | st.sampled_from(
    ["user:created", "register", "user:updated", "test", "2025-03-01T12:00:00.000Z", "0001-01-01T00:00:00Z", "+86"]
)
_HIDDEN = hidden(_SECRET_FIELDS)
_WRITTEN = _HIDDEN.map(json.dumps)
"""The same, as a document within a text."""
DOCUMENTS = documents(_LEAVES | _HIDDEN | _WRITTEN, _NAMES, max_leaves=24)


async def _post_all(bodies: list[tuple[bytes, dict[str, str]]]) -> list[int]:
    """The statuses; none is out of the way, and the site is as it was."""
    async with genauth() as site:
        statuses = [await site.post(body, {**PROOF, **headers}) for body, headers in bodies]
    assert set(statuses) <= {200, 202, 400, 413}
    site.is_unharmed()
    return statuses


@settings(max_examples=30, deadline=None)
@given(st.lists(DOCUMENTS, min_size=1, max_size=8))
@example(
    [{"eventName": "user:created", "data": {"id": "u", "nickname": json.dumps({"a": json.dumps({"token": HIDDEN})})}}]
)
@example([{"eventName": "user:created", "data": {"id": "u", "nickname": '{"token": "' + HIDDEN}}])
@example([{"specversion": "1.0", "type": "x", "data": {"eventName": "login", "data": {"token": HIDDEN}}}])
def test_no_document_gives_a_500_or_leaves_a_credential(documents: list[Any]) -> None:
    """Bare, in an envelope, as a CloudEvent, with credentials anywhere, also in documents within texts."""
    bodies: list[tuple[bytes, dict[str, str]]] = [(json.dumps(document).encode(), {}) for document in documents]
    bodies += [(json.dumps({"eventName": "user:updated", "data": document}).encode(), {}) for document in documents]

    asyncio.run(_post_all(bodies))


def _fields(document: Any, name: str = "data") -> list[tuple[str, str]]:
    """A document as the fields of a form."""
    if isinstance(document, dict):
        return [field for key, item in document.items() for field in _fields(item, f"{name}[{key}]")]
    if isinstance(document, list):
        return [field for number, item in enumerate(document) for field in _fields(item, f"{name}[{number}]")]
    return [(name, "" if document is None else str(document))]


@settings(max_examples=30, deadline=None)
@given(st.lists(st.dictionaries(_NAMES, DOCUMENTS, max_size=5), min_size=1, max_size=6), st.binary(max_size=60))
def test_no_form_gives_a_500_or_leaves_a_credential(documents: list[dict[str, Any]], noise: bytes) -> None:
    """Whatever the names are, and whatever bytes follow."""
    forms = [
        urlencode([("eventName", "user:created"), *_fields(document)], errors="replace").encode()
        for document in documents
    ]
    written = [
        urlencode({"eventName": "register", "data": json.dumps(document)}, errors="replace").encode()
        for document in documents
    ]

    asyncio.run(_post_all([(form, FORM) for form in (*forms, *written, forms[0] + noise)]))


@settings(max_examples=30, deadline=None)
@given(st.lists(st.binary(max_size=200), min_size=1, max_size=10), st.booleans())
def test_no_bytes_give_a_500(bodies: list[bytes], form: bool) -> None:
    """Neither JSON nor a form is 400; what is JSON and no event is 202."""
    asyncio.run(_post_all([(body, FORM if form else {}) for body in bodies]))


async def test_documents_nested_as_deep_as_is_taken_are_stripped() -> None:
    """At the limits of the parser, and in texts within texts."""
    deep: Any = {"token": HIDDEN}
    for _ in range(190):
        deep = [deep]
    text = json.dumps(deep)
    for _ in range(5):
        text = json.dumps({"inner": text})
    bodies = [json.dumps({"eventName": "user:updated", "data": {"user": item}}).encode() for item in (deep, text)]

    assert await _post_all([(body, {}) for body in bodies]) == [200, 200]
