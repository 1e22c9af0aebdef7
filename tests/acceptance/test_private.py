"""What is private stays private, end to end: a secret of a handler, a person whom the other side quotes, credentials at every door."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path
from urllib.parse import quote

import pytest
from tests.java import free_ports
from tests.service import Service, environment, running, usher

from usher.testing import raw_event

SECRETS = ("s3cr3tHOOK", "tok-abc-S3CRET/+ü")
CHAT = '''
from pydantic import BaseModel, SecretStr
from usher import Context, Event, on


class Settings(BaseModel):
    hook_url: SecretStr
    api_token: SecretStr


@on("user.created", settings=Settings)
async def chat(event: Event, ctx: Context) -> None:
    """Post to the chat. The URL of its hook is the credential."""
    hook, token = ctx.settings.hook_url.get_secret_value(), ctx.settings.api_token.get_secret_value()
    ctx.logger.info("calling", at=hook, using=f"{token} {token!r}")
    async with ctx.http.post(hook, params={"t": token}, json={}) as answer:
        answer.raise_for_status()
'''
QUOTING = '''
from usher import Context, Event, Reject, on


@on("user.disabled")
async def quoting(event: Event, ctx: Context) -> None:
    """Fail with a text of the other side, which quotes what it was sent."""
    raise Reject(f"the directory said: {event.payload['text']} is wrong")
'''
PRIVATE = [
    "ann.berg@localhost", '"ann berg"@example.org', "GET /people/ann.berg%40example.org", "ann.berg\uff20example.org", "+44·7700·900123",
    "1 Elm Street", "password hunter2xyz", "Authorization: Token hunter2xyz", "https://id.example/lo/reset?ticket=hunter2xyz",
]  # fmt: skip


@asynccontextmanager
async def failing_server() -> AsyncIterator[int]:
    """Serve 500 to every request, on the port that it yields."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        yield server.sockets[0].getsockname()[1]


def headers_of_dead_letters(folder: Path) -> str:
    with closing(sqlite3.connect(folder / "usher.db")) as log:
        return str(log.execute("SELECT key, headers FROM records WHERE topic LIKE '%-dlt'").fetchall())


def _with_handler(folder: Path, name: str, code: str) -> dict[str, object]:
    (folder / "handlers").mkdir()
    (folder / "handlers" / f"{name}.py").write_text(code)
    return {"handlers_dir": folder / "handlers", "handlers": name, "retry_delays": "none"}


async def test_a_handlers_secret_is_found_nowhere(tmp_path: Path) -> None:
    """The other side fails, and the error quotes the URL: no line, no dead letter and no command shows a secret of the settings."""
    handler = _with_handler(tmp_path, "chat", CHAT)
    async with failing_server() as port:
        hook = f"http://127.0.0.1:{port}/services/T000/{SECRETS[0]}"
        env = environment(**handler, chat__hook_url=hook, chat__api_token=SECRETS[1])
        await usher("emit", "-", cwd=tmp_path, env=env, stdin=raw_event(id="01"))
        async with running(tmp_path, env) as service:
            dead = await service.line("dead-lettered")
    said = {"lines": json.dumps(service.lines, ensure_ascii=False), "headers": headers_of_dead_letters(tmp_path)}
    for command in (
        "dlq list",
        "dlq list --json",
        "dlq show 0@0",
        "why 01",
        "why 01 --json",
        "check",
        "explain event.json",
    ):
        (tmp_path / "event.json").write_bytes(raw_event(id="01"))
        _, out, err = await usher(*command.split(), cwd=tmp_path, env=env)
        said[command] = (out + err).replace("\n", "")

    for where, text in said.items():
        for secret in SECRETS:
            assert secret not in text, where
            assert quote(secret, safe="") not in text, where
    assert f"127.0.0.1:{port}" in dead["error"]
    assert "500" in dead["error"]


async def test_what_the_other_side_quotes_of_a_person_is_masked(tmp_path: Path) -> None:
    """In the line and in the dead letter's headers; an id that is an address stands in neither, and `usher why` finds it all the same."""
    env, id_ = environment(**_with_handler(tmp_path, "quoting", QUOTING)), "evt-ann.berg@example.org"
    events = [
        json.loads(raw_event("user.disabled", id=f"{number:04}", payload={"text": text}))
        for number, text in enumerate(PRIVATE)
    ]
    events.append(json.loads(raw_event("user.disabled", id=id_, payload={"text": "nothing"})))
    await usher("emit", "-", cwd=tmp_path, env=env, stdin=json.dumps(events).encode())
    async with running(tmp_path, env) as service:
        await service.wait(lambda: _dead(service) == len(events))
    said = json.dumps(service.lines, ensure_ascii=False) + headers_of_dead_letters(tmp_path)
    code, out, _ = await usher("why", id_, "--json", cwd=tmp_path, env=env)

    for private in (*PRIVATE, "hunter2xyz", "ann.berg", "ann berg", "Elm"):
        assert private not in said
    assert code == 0
    assert [row["state"] for row in json.loads(out)[0]["deliveries"]] == ["dead"]


def _dead(service: Service) -> int:
    return sum(line["event"] == "dead-lettered" for line in service.lines)


EVENT = {
    "id": "01", "type": "user.created",
    "payload": {"user": {"id": "u", "standard_attributes": {"email": "ann@example.org"}}, "x": {"Пароль": "h4nter2", "link": "h4nter2"},
                "shapes": [["password", "h4nter2"], "password=h4nter2", {"name": "token", "value": "h4nter2"}]},
    "context": {"triggered_by": "admin_api", "user_id": "u", "app_id": "demo"},
}  # fmt: skip


@pytest.mark.parametrize("door", ["webhook", "emit", "emit --source"])
async def test_every_door_has_the_same_rule(tmp_path: Path, door: str) -> None:
    """What is stored of an event is the same, wherever it came in."""
    body = json.dumps(EVENT).encode()
    if door == "webhook":
        async with running(tmp_path, environment(authgear__webhook_secret="0123456789abcdef")) as service:
            proof = hmac.new(b"0123456789abcdef", body, hashlib.sha256).hexdigest()
            assert await service.post("/ingest/authgear", body, {"x-authgear-body-signature": proof}) == 200
    else:
        source = ("--source", "authgear") if "--source" in door else ()
        code, _, err = await usher("emit", "-", *source, cwd=tmp_path, env=environment(), stdin=body)
        assert code == 0, err
    with closing(sqlite3.connect(tmp_path / "usher.db")) as log:
        [(value,)] = log.execute("SELECT value FROM records WHERE topic = 'identity.events'")

    payload = json.loads(value)["payload"]
    assert b"h4nter2" not in value
    assert payload["user"] == EVENT["payload"]["user"]  # type: ignore[index]
    assert payload["x"] == {}
    assert payload["shapes"] == [["password", None], "password=<secret>", {"name": "token", "value": None}]


async def test_the_address_of_a_broker_is_readable(tmp_path: Path) -> None:
    """In the answer of a command, and in the lines of a worker that waits: it is a setting, and what an operator looks at first."""
    [port] = free_ports(1)
    address = f"127.0.0.1:{port}"
    env = environment(event_log=f"kafka://{address}", log_format="json", receipts__key="a key that no topic has")
    code, _, err = await usher("emit", "-", cwd=tmp_path, env=env, stdin=raw_event(id="01"))
    async with running(tmp_path, env, ready=False) as service:
        await service.wait(lambda: any(line.get("level") == "warning" for line in service.lines))
        said = [line for line in service.lines if line.get("level") == "warning"]

    assert code == 3
    assert address in err
    assert "<number>" not in str(said)
    assert any(address in f"{line.get('error')} {line.get('reason')}" for line in said)


async def test_the_address_of_a_provider_is_readable(tmp_path: Path) -> None:
    """What a handler's own error says of a server that is not there stays, too."""
    [port] = free_ports(1)
    env = environment(
        **_with_handler(tmp_path, "chat", CHAT),
        chat__hook_url=f"http://127.0.0.1:{port}/x",
        chat__api_token="t0ken-of-ours",
    )
    await usher("emit", "-", cwd=tmp_path, env=env, stdin=raw_event(id="02"))
    async with running(tmp_path, env) as service:
        dead = await service.line("dead-lettered")

    assert f"127.0.0.1:{port}" in dead["error"]
    assert "<number>" not in dead["error"]
