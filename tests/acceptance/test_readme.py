"""README.md as a new user follows it: its files are written, its commands run, and what it says comes of them does.

What is done with a fenced block is said in a comment before it, which no reader sees: ``<!-- test: file NAME -->`` writes it,
``<!-- test: run -->`` runs it. In a block that is run, `usher run` is the service: it is started there, and what follows runs
beside it, as in another terminal.
"""

from __future__ import annotations

import asyncio
import email
import email.policy
import hashlib
import hmac
import json
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import pytest
from tests.kafka import Broker, unique
from tests.service import Service, environment, running

from usher.testing.events import raw_event

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text("utf-8")

_BLOCK = re.compile(
    r"(?:^<!-- test: (?P<how>[^>]*?) -->\n)?^```(?P<kind>\w+)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL
)
_SERVICE = re.compile(r"^usher run\b.*\n", re.MULTILINE)
_EXPORT = re.compile(r"^export (.*)$", re.MULTILINE)
_EVENT_ID = "0000000000000001"


class Block(NamedTuple):
    """A fenced block: what to do with it, its language, its text."""

    how: str
    kind: str
    text: str


def blocks(page: str) -> list[Block]:
    """The fenced blocks of *page*, in order."""
    return [Block(found["how"] or "", found["kind"], found["text"]) for found in _BLOCK.finditer(page)]


BLOCKS = blocks(README)


def block(how: str, holding: str = "") -> str:
    """The text of the one block that is marked *how* and holds *holding*."""
    (found,) = (block for block in BLOCKS if block.how == how and holding in block.text)
    return found.text


def write_files(folder: Path, among: Iterable[Block] = BLOCKS) -> None:
    """Write every file of the README, or *among* other blocks, into *folder*."""
    for each in among:
        if each.how.startswith("file "):
            path = folder / each.how.removeprefix("file ")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(each.text, "utf-8")


async def shell(script: str, cwd: Path, env: Mapping[str, str]) -> str:
    """Run *script* as a shell that stops at the first failure; what it wrote. Fails where it fails."""
    process = await asyncio.create_subprocess_exec(
        "bash", "-euo", "pipefail", "-c", script,
        cwd=cwd, env=dict(env), stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    out, _ = await asyncio.wait_for(process.communicate(), 90)
    assert process.returncode == 0, f"{script}\n{out.decode()}"
    return out.decode()


def on_path(**settings: str) -> dict[str, str]:
    """The environment of somebody who has pytest without plugins; wide, so that no table is folded."""
    env = environment(**settings)
    return {
        **env,
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
        "PATH": f"{Path(sys.executable).parent}:{env['PATH']}",
        "COLUMNS": "300",
    }


async def follow(script: str, cwd: Path, env: Mapping[str, str]) -> str:
    """Run a block with its service; what the commands after the service's start wrote, once its message is out."""
    before, service, after = re.split(f"({_SERVICE.pattern})", script, flags=re.MULTILINE)
    exports = "\n".join(_EXPORT.findall(script))
    env = {**env, **dict(pair.split("=", 1) for pair in exports.split())}
    arguments = service.partition("#")[0].split()[2:]
    await shell(before, cwd, env)
    async with running(cwd, env, *arguments) as usher:
        if "usher emit" not in after:
            await _sent(usher)
            return await shell(after, cwd, env)
        emit, output = after.split("\n", 1)
        await shell(emit, cwd, env)
        await _sent(usher)
        return await shell(output, cwd, env)


async def _sent(service: Service) -> None:
    await service.line("message sent", handler="welcome_email", event_id=_EVENT_ID)


def test_every_block_of_commands_is_run_or_is_the_set_up() -> None:
    """Nothing in the README goes untried: the two commands of the set-up are CI's own."""
    untried = [each.text for each in BLOCKS if not each.how]

    assert untried == ["make demo\nmake test\n"]


def test_the_set_up_is_what_ci_runs() -> None:
    """The Makefile has both commands, and CI's test command is the README's."""
    makefile = (ROOT / "Makefile").read_text("utf-8")
    ci = (ROOT / ".ci" / "run").read_text("utf-8")

    for command in ("make demo", "make test"):
        assert re.search(rf"^{command.removeprefix('make ')}:.*\n\t", makefile, re.MULTILINE)
    assert re.search(r"^\t\$\(bin\)/usher demo$", makefile, re.MULTILINE)
    assert re.search(r"^(\w+=\S+ )*make test$", ci, re.MULTILINE)


async def test_a_first_event_becomes_a_mail(tmp_path: Path) -> None:
    """From the event in the README to the `.eml` file that it promises, without a broker."""
    write_files(tmp_path)

    output = await follow(block("run", "usher emit"), tmp_path, on_path())

    (path,) = (tmp_path / "outbox").glob("*.eml")
    mail = email.message_from_bytes(path.read_bytes(), policy=email.policy.default)
    assert mail["To"] == "ann@example.org"
    assert "welcome_email" in output


async def test_the_handler_in_ten_lines_and_its_test_in_five(tmp_path: Path) -> None:
    """They are no longer than that, the test passes, and Usher finds the handler and what `new handler` wrote."""
    write_files(tmp_path)

    output = await shell(block("run", "pytest handlers"), tmp_path, on_path())

    assert _lines("file handlers/account_disabled.py") <= 10
    assert _lines("file handlers/test_account_disabled.py") <= 5
    assert "1 passed" in output
    assert "account_disabled" in output.partition("passed")[2]
    assert "account_back" in output.partition("wrote")[2]
    assert "2 passed" not in output
    assert "4 passed" in await shell("pytest handlers", tmp_path, on_path())


async def test_the_snippet_can_fail(tmp_path: Path) -> None:
    """A handler that sends nothing does not pass the README's test: it tests something."""
    write_files(tmp_path)
    handler = tmp_path / "handlers" / "account_disabled.py"
    handler.write_text(handler.read_text().replace('"account_disabled", to', '"no_such_template", to'))

    with pytest.raises(AssertionError, match="1 failed"):
        await shell("pytest handlers", tmp_path, on_path())


_SECRET = "the-secret-of-all-four-webhooks"


def _disabled_by_all() -> Iterator[tuple[str, bytes, dict[str, str]]]:
    """Each system's webhook about a user whom an administrator has just disabled: its path, body and proof."""
    now = datetime.now(UTC)
    person = {"email": "kim@keycloak.example.org", "enabled": False}
    admin = {
        "operationType": "UPDATE",
        "resourceType": "USER",
        "resourcePath": "users/kim/",
        "type": "admin.USER-UPDATE",
    }
    call = {"method": "patch", "path": "/api/v2/users/auth0%7Ckim", "body": {"blocked": True}}
    answered = {"user_id": "auth0|kim", "email": "kim@auth0.example.org", "identities": [], "blocked": True}
    entry = {"type": "sapi", "date": now.isoformat(), "details": {"request": call, "response": {"body": answered}}}
    documents = {
        "authgear": json.loads(raw_event("user.disabled", email="kim@authgear.example.org", disabled=True)),
        "keycloak": {**admin, "id": "k-1", "realmName": "shop", "representation": json.dumps(person)},
        "auth0": {"log_id": "900", "data": entry},
        "genauth": {"eventName": "user:blocked", "data": {"user": {"id": "kim", "email": "kim@genauth.example.org"}}},
    }
    for system, document in documents.items():
        body = json.dumps(document).encode()
        signature = hmac.new(_SECRET.encode(), body, hashlib.sha256).hexdigest()
        proofs = {"authgear": "x-authgear-body-signature", "keycloak": "x-keycloak-signature"}
        plain = {"auth0": ("authorization", f"Bearer {_SECRET}"), "genauth": ("x-authing-webhook-secret", _SECRET)}
        yield f"/ingest/{system}", body, dict([plain.get(system) or (proofs[system], signature)])


async def test_the_handler_in_ten_lines_runs_on_all_four_systems(tmp_path: Path) -> None:
    """An administrator disables a user, wherever: that user gets its mail, and the bundled handlers send none."""
    write_files(tmp_path)
    secrets = {f"{system}__webhook_secret": _SECRET for system in ("authgear", "genauth", "keycloak")}
    env = on_path(handlers_dir="handlers", auth0__webhook_token=_SECRET, auth0__domain="acme.eu.auth0.com", **secrets)

    async with running(tmp_path, env) as service:
        for path, body, proof in _disabled_by_all():
            assert await service.post(path, body, proof) == 200
        await service.wait(lambda: [line["event"] for line in service.lines].count("message sent") == 4)

    mails = [
        email.message_from_bytes(path.read_bytes(), policy=email.policy.default)
        for path in (tmp_path / "outbox").glob("[!.]*")
    ]
    assert {mail["To"] for mail in mails} == {
        f"kim@{system}.example.org" for system in ("authgear", "auth0", "genauth", "keycloak")
    }
    assert {mail["Subject"] for mail in mails} == {"Your account on our service"}


async def test_the_snippets_of_the_page_on_handlers(tmp_path: Path) -> None:
    """A handler with settings, and its test, pass as they stand there."""
    write_files(tmp_path, blocks((ROOT / "docs" / "handlers.md").read_text("utf-8")))

    assert "1 passed" in await shell("pytest .", tmp_path, on_path())


async def test_the_commands_for_kafka(kafka: Broker, tmp_path: Path) -> None:
    """With the address, topic and group of a real broker in place of the README's; its own topics are made."""
    write_files(tmp_path)
    topic, group = unique("readme"), unique("usher")
    await kafka.create_topic(topic, 3)
    script = block("run kafka")
    assert "localhost:9092" in script
    script = script.replace("localhost:9092", kafka.servers)
    script = script.replace("identity.events", topic).replace("USHER_GROUP=usher", f"USHER_GROUP={group}")

    output = await follow(script, tmp_path, on_path())

    assert re.search(r"welcome_email +(sent|running|not-read)", output), output
    assert len(list((tmp_path / "outbox").glob("*.eml"))) == 1
    async with kafka.admin() as admin:
        assert {f"{group}.{topic}-retry", f"{group}.{topic}-dlt"} <= set(await admin.list_topics())


def _lines(how: str) -> int:
    """How many lines of a block are not blank."""
    return sum(1 for line in block(how).splitlines() if line.strip())
