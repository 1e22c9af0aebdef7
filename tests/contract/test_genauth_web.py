"""GenAuth's webhook over HTTP: whatever is posted, no 500, no exception in the log, and no credential in the log's topic."""

from __future__ import annotations

import asyncio
import json
import string
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode

import aiohttp
import pytest
import structlog
from hypothesis import example, given, settings
from hypothesis import strategies as st
from structlog.testing import CapturingLogger, LogCapture

from usher.delivery import Headers
from usher.engine.port import Place
from usher.metrics import Metrics
from usher.outcome import Retry
from usher.sources import Arrival, decode
from usher.sources.genauth import SECRET_HEADERS, GenAuth
from usher.web import OK, Ingress, Server, build_web

PATH, SECRET = "/ingest/genauth", "whsec-of-genauth"
FORM = {"content-type": "application/x-www-form-urlencoded"}
CREATED = {
    "eventName": "user:created",
    "data": {"id": "u-1", "email": "kim.berg@example.com", "registerSource": ["import:excel"]},
}


class Site:
    """A server with GenAuth's ingress; *kept* is what was stored: key and value."""

    def __init__(self, complete: Any = None) -> None:
        self.kept: list[tuple[bytes | None, bytes]] = []
        self.lines = LogCapture()
        log = structlog.wrap_logger(CapturingLogger(), processors=[self.lines], wrapper_class=structlog.BoundLogger)
        metrics = Metrics()
        ingress = Ingress(self, "identity.events", GenAuth([SECRET]), metrics, log, complete=complete)
        self.server = Server(build_web(vital=self, metrics=metrics, log=log, ingresses={PATH: ingress}), "127.0.0.1", 0)

    async def append(self, topic: str, key: bytes | None, value: bytes, headers: Headers = ()) -> Place:
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
        given = {SECRET_HEADERS[0]: SECRET} if headers is None else headers
        async with (
            aiohttp.ClientSession(f"http://127.0.0.1:{self.server.port}") as client,
            client.post(PATH, data=body, headers=given, skip_auto_headers=["Content-Type"]) as answer,
        ):
            return answer.status


@pytest.mark.parametrize("header", SECRET_HEADERS)
async def test_a_call_with_the_secret_is_stored_under_its_user(header: str) -> None:
    """In any of the three headers; 200 once it is stored, canonical, with who made the user."""
    async with Site() as site:
        assert await site.post(json.dumps(CREATED).encode(), {header: SECRET}) == 200

    ((key, value),) = site.kept
    event = decode(value)
    assert (key, event.type, event.context.triggered_by) == (b"u-1", "user.created", "admin_api")


@pytest.mark.parametrize(
    "headers", [{}, {SECRET_HEADERS[0]: "wrong"}, {SECRET_HEADERS[1]: ""}, {"authorization": SECRET}]
)
async def test_a_call_without_the_secret_is_401(headers: dict[str, str]) -> None:
    """And nothing of it is kept; the answer names the headers, and no secret."""
    async with Site() as site:
        assert await site.post(json.dumps(CREATED).encode(), headers) == 401

    assert site.kept == []


async def test_the_consoles_test_button_gets_its_200() -> None:
    """It has no event name, and leaves nothing behind."""
    async with Site() as site:
        assert await site.post(b'{"description": "A test from GenAuth Webhook"}') == 200

    assert site.kept == []


async def test_what_could_not_be_looked_up_is_asked_for_again() -> None:
    """503 and nothing stored: GenAuth repeats it where its webhook is set up to."""

    async def down(_arrival: Arrival) -> Arrival:
        raise Retry("GenAuth answered 503")

    async with Site(complete=down) as site:
        assert await site.post(json.dumps(CREATED).encode()) == 503

    assert site.kept == []


HIDDEN = "Hidden-Credential-7f3a"
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
_LEAVES = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=12)
)
_LEAVES |= st.sampled_from(
    ["user:created", "register", "user:updated", "test", "2025-03-01T12:00:00.000Z", "0001-01-01T00:00:00Z", "+86"]
)
_HIDDEN = st.tuples(_SECRET_FIELDS, st.sampled_from([HIDDEN, [HIDDEN], {"x": HIDDEN}])).map(
    lambda pair: {pair[0]: pair[1]}
)
_WRITTEN = _HIDDEN.map(json.dumps)
"""The same, as a document within a text."""
DOCUMENTS = st.recursive(
    _LEAVES | _HIDDEN | _WRITTEN,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_NAMES, inner, max_size=6),
    max_leaves=24,
)


async def _post_all(bodies: list[tuple[bytes, dict[str, str]]]) -> tuple[list[int], Site]:
    async with Site() as site:
        statuses = [await site.post(body, {SECRET_HEADERS[0]: SECRET, **headers}) for body, headers in bodies]
    return statuses, site


def _holds(statuses: list[int], site: Site) -> None:
    assert set(statuses) <= {200, 202, 400, 413}
    assert [line for line in site.lines.entries if line["log_level"] in {"error", "critical", "warning"}] == []
    assert [value for _, value in site.kept if HIDDEN.encode() in value] == []


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

    _holds(*asyncio.run(_post_all(bodies)))


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

    _holds(*asyncio.run(_post_all([(form, FORM) for form in (*forms, *written, forms[0] + noise)])))


@settings(max_examples=30, deadline=None)
@given(st.lists(st.binary(max_size=200), min_size=1, max_size=10), st.booleans())
def test_no_bytes_give_a_500(bodies: list[bytes], form: bool) -> None:
    """Neither JSON nor a form is 400; what is JSON and no event is 202."""
    _holds(*asyncio.run(_post_all([(body, FORM if form else {}) for body in bodies])))


async def test_documents_nested_as_deep_as_is_taken_are_stripped() -> None:
    """At the limits of the parser, and in texts within texts."""
    deep: Any = {"token": HIDDEN}
    for _ in range(190):
        deep = [deep]
    text = json.dumps(deep)
    for _ in range(5):
        text = json.dumps({"inner": text})
    bodies = [json.dumps({"eventName": "user:updated", "data": {"user": item}}).encode() for item in (deep, text)]

    statuses, site = await _post_all([(body, {}) for body in bodies])

    _holds(statuses, site)
    assert statuses == [200, 200]
