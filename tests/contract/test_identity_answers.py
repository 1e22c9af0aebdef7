"""What an identity system's API answers, over HTTP: whatever users have written into it can be stored and read again."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Awaitable, Callable
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from pytest_aiohttp.plugin import AiohttpClient

from usher.outcome import Retry
from usher.systems.api import ApiClient, Token
from usher.systems.auth0.source import Auth0Source
from usher.systems.authgear.source import AuthgearSource
from usher.systems.decode import decode
from usher.systems.keycloak.source import KeycloakSource
from usher.systems.source import Arrival


def nested(levels: int) -> Any:
    node: Any = {"end": 1}
    for _ in range(levels):
        node = {"n": [node]}
    return node


Answered = Callable[[bytes], Awaitable[Any]]


@pytest.fixture
def answered(aiohttp_client: AiohttpClient) -> Answered:
    """What `Api.call` makes of an answer with this body."""

    async def ask(body: bytes) -> Any:
        async def give(_request: web.Request) -> web.Response:
            return web.Response(body=body, content_type="application/json")

        async def token() -> Token:
            return Token("t", 60.0)

        application = web.Application()
        application.router.add_get("/", give)
        client = await aiohttp_client(application)
        api = ApiClient("the API", str(client.make_url("")).rstrip("/"), lambda: client.session, fetch_token=token)
        return (await api.call("GET", "/")).document

    return ask


def auth0_event(odd: Any) -> Arrival | None:
    return Auth0Source().of_document(
        {"id": "1", "type": "user.created", "data": {"object": {"user_id": "u", "x": odd}}}
    )


def auth0_log(odd: Any) -> Arrival | None:
    return Auth0Source().of_document(
        {"log_id": "1", "type": "scp", "details": odd if isinstance(odd, dict) else {"x": odd}}
    )


def authgear(odd: Any) -> Arrival | None:
    return AuthgearSource().arrival(
        {"id": "1", "type": "user.created", "payload": {"user": {"custom_attributes": odd}}}
    )


def keycloak(odd: Any) -> Arrival | None:
    user = {"attributes": odd, "firstName": odd}
    return KeycloakSource().arrival(
        {
            "id": "1",
            "operationType": "CREATE",
            "resourceType": "USER",
            "resourcePath": "users/1",
            "representation": user,
        }
    )


@pytest.mark.parametrize("arrival_of", [auth0_event, auth0_log, authgear, keycloak])
@pytest.mark.parametrize(
    "body",
    [
        b'"half \\ud83d of one"',
        b'{"\\udc00": {"\\ud800": ["\\ud800"]}}',
        json.dumps(nested(240)).encode(),
        b"[NaN, Infinity]",
    ],
    ids=["half a character", "in names", "deep", "no number"],
)
async def test_nothing_in_an_answer_holds_up_a_feed(arrival_of: Any, body: bytes, answered: Answered) -> None:
    """A name may hold half a character, and metadata may be nested: the entry is an event like any other, else a feed would stop there."""
    arrival = arrival_of(await answered(body))
    assert arrival.event is not None
    assert decode(arrival.value) == arrival.event


async def test_an_answer_beyond_what_can_be_parsed_is_none(answered: Answered) -> None:
    """Nesting that no parser takes is an answer without a document, and no defect."""
    assert await answered(b"[" * 100_000 + b"]" * 100_000) is None


async def test_ordinary_answers_come_as_they_are(answered: Answered) -> None:
    """Characters of all scripts, numbers, flags and empty things."""
    document: dict[str, Any] = {"名": "Zoë 👋", "n": [1, 2.5, True, False, None, {}, [], ""]}
    assert await answered(json.dumps(document).encode()) == document


async def test_a_port_without_tls_is_no_riddle() -> None:
    """https where plain HTTP is spoken: the reason says so, and is no number of an error that means something else."""

    async def plain(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()

    server = await asyncio.start_server(plain, "127.0.0.1", 0)
    async with server, aiohttp.ClientSession() as session:
        api = ApiClient("the API", f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}", lambda: session)
        with pytest.raises(Retry, match="TLS"):
            await api.ask("GET", "/")


async def test_what_cannot_be_reached_is_named_without_its_login() -> None:
    """An operator reads which host it was and why; neither the login in the address nor the path, which may hold a user."""
    async with aiohttp.ClientSession() as session:
        api = ApiClient("the API", "http://login:hush@127.0.0.1:1/auth", lambda: session)
        with pytest.raises(Retry) as caught:
            await api.ask("GET", "/users/ann@example.org")

    assert caught.value.reason.startswith("the API could not be reached at 127.0.0.1:1: ")
    assert "refused" in caught.value.reason.lower()
    assert "hush" not in caught.value.reason
    assert "ann" not in caught.value.reason
