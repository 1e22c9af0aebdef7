"""The `usher` command as a process, beside a running worker: emit, look, replay, and what comes of it."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import signal
import socket
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from tests.engine import until
from tests.receipts import receipt
from tests.service import environment, running, usher

from usher.receipts import pack
from usher.settings import Settings
from usher.storage import browser
from usher.testing import raw_event
from usher.testing.providers import FakeProviders, answer

ANN, BOB = "ann.other@example.org", "bob.other@example.org"


def _env(provider: FakeProviders, **more: object) -> dict[str, str]:
    return environment(
        email="sendgrid",
        mail_from="a@example.org",
        sendgrid__api_key=provider.sendgrid_api_key,
        sendgrid__base_url=provider.url,
        retry_delays="100ms",
        **more,
    )


async def _rows(*arguments: str, cwd: Path, env: Mapping[str, str]) -> tuple[int, list[dict[str, Any]]]:
    code, out, err = await usher(*arguments, "--json", cwd=cwd, env=env)
    assert out, err
    return code, json.loads(out)


async def test_a_dead_letter_goes_round(tmp_path: Path) -> None:
    """Refused, listed, replayed in vain, replayed with success; `why` follows it all the way."""
    async with FakeProviders(refused={BOB}) as provider:
        env = _env(provider)
        events = b"\n".join([raw_event(id="0a", email=ANN), raw_event(id="0b", email=BOB)])
        async with running(tmp_path, env) as service:
            code, out, err = await usher("emit", "-", cwd=tmp_path, env=env, stdin=events)
            assert code == 0, err
            assert "2 appended" in out
            await service.line("dead-lettered", event_id="0b")

            _, (dead_letter,) = await _rows("dlq", "list", cwd=tmp_path, env=env)
            assert (dead_letter["handler"], dead_letter["event_id"], dead_letter["reason"]) == (
                "welcome_email",
                "0b",
                "rejected",
            )
            assert await _fate("0b", tmp_path, env) == "dead"

            code, (vain,) = await _rows("dlq", "replay", dead_letter["id"], "--wait", cwd=tmp_path, env=env)
            assert (code, vain["result"]) == (1, "replaced")

            provider.refused.clear()
            code, (mended,) = await _rows("dlq", "replay", "--all", "--wait", cwd=tmp_path, env=env)
            assert (code, mended["result"]) == (0, "replayed")
            assert [request.to for request in provider.accepted] == [ANN, BOB]
            assert await _fate("0b", tmp_path, env) == "sent"
            assert (await _rows("dlq", "list", cwd=tmp_path, env=env))[1] == []
        assert await _fate("0a", tmp_path, env) == "sent"


async def test_why_shows_a_parked_delivery(tmp_path: Path) -> None:
    """Attempt, due time and error of what waits for its retry."""
    async with FakeProviders() as provider:
        provider.script(answer(503))
        env = _env(provider) | {"USHER_RETRY_DELAYS": "1h"}
        async with running(tmp_path, env) as service:
            await usher("emit", "-", cwd=tmp_path, env=env, stdin=raw_event(id="0a", email=ANN))
            await service.line("parked", event_id="0a")
            _, rows = await _rows("why", "0a", cwd=tmp_path, env=env)

    (parked,) = [row for row in rows[0]["deliveries"] if row["handler"] == "welcome_email"]
    assert (parked["state"], parked["attempts"]) == ("parked", 1)
    assert "503" in parked["reason"]
    assert parked["due"]


async def test_commands_at_once_share_an_index_that_somebody_deletes(tmp_path: Path) -> None:
    """Each of them answers, whatever becomes of the file; the next one finds an index that is whole."""
    env = environment(cache_dir=tmp_path / "cache")
    settings = Settings.load({"USHER_EVENT_LOG": f"sqlite:///{tmp_path / 'usher.db'}"}, env_file=None)
    async with browser(settings, create=True) as event_log:
        for value in pack([receipt(f"e{number}", offset=number) for number in range(40_000)]):
            await event_log.append("usher.receipts", None, value)

    async def ask() -> tuple[int, list[str]]:
        code, rows = await _rows("why", "e39999", cwd=tmp_path, env=env)
        return code, [row["state"] for event in rows for row in event["deliveries"]]

    asked = [asyncio.create_task(ask()) for _ in range(4)]
    await until(lambda: any((tmp_path / "cache").glob("*.sqlite")))
    for file in (tmp_path / "cache").glob("*.sqlite"):
        file.unlink()

    assert await asyncio.gather(*asked) == [(0, ["sent"])] * 4
    assert await ask() == (0, ["sent"])


async def test_an_undecodable_dead_letter_is_decoded_and_routed_anew(tmp_path: Path) -> None:
    """It has no handler; replayed while it still can't be decoded, it is a dead letter again."""
    async with FakeProviders() as provider:
        env = _env(provider)
        async with running(tmp_path, env) as service:
            await usher("emit", "-", "--force", cwd=tmp_path, env=env, stdin=b'{"by": "admin_api"}')
            await service.line("dead-lettered")
            _, (dead_letter,) = await _rows("dlq", "list", cwd=tmp_path, env=env)
            code, (row,) = await _rows("dlq", "replay", dead_letter["id"], "--wait", cwd=tmp_path, env=env)

    assert (dead_letter["handler"], dead_letter["reason"]) == ("", "undecodable")
    assert (code, row["result"]) == (1, "replaced")


async def test_a_new_handlers_test_passes_and_the_handler_is_found(tmp_path: Path) -> None:
    """What `usher new handler` writes runs as it is, under pytest and in the service."""
    env = environment()
    code, _, err = await usher("new", "handler", "welcome_back", "--type", "user.reenabled", cwd=tmp_path, env=env)
    assert code == 0, err

    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "pytest", "-q", "handlers", "-p", "no:cacheprovider", cwd=tmp_path, env=env,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    out, _ = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode == 0, out.decode()
    assert "3 passed" in out.decode()

    _, rows = await _rows("handlers", "--handlers-dir", "handlers", cwd=tmp_path, env=env)
    assert "welcome_back" in {row["handler"] for row in rows}
    assert (await usher("check", "--handlers-dir", "handlers", cwd=tmp_path, env=env))[0] == 0


async def test_a_handlers_secret_is_not_shown(tmp_path: Path) -> None:
    """Whatever its name: the handler's model says what is secret, and where there is no model to ask, all is."""
    (tmp_path / "bridge.py").write_text(
        "from pydantic import BaseModel, SecretStr\nfrom usher import on\n\n"
        "class Settings(BaseModel):\n    api_key: SecretStr\n    where: str\n\n"
        '@on("user.created", settings=Settings)\nasync def bridge(event, ctx):\n    ...\n'
    )
    env = environment(bridge__api_key="hush", bridge__where="https://example.org")
    code, rows = await _rows("check", "--handlers-dir", ".", cwd=tmp_path, env=env)
    assert code == 0
    shown = {row["what"]: row["text"] for row in rows}
    assert shown["USHER_BRIDGE__API_KEY"] == "********"
    assert shown["USHER_BRIDGE__WHERE"] == "https://example.org"

    (tmp_path / "bridge.py").write_text("import no_such_module\n")
    code, rows = await _rows("check", "--handlers-dir", ".", cwd=tmp_path, env=env)
    assert code == 2
    assert "hush" not in json.dumps(rows)


async def test_a_taken_address_is_named_once_with_its_setting(tmp_path: Path) -> None:
    """The second worker on one machine says which address it was and what to set."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        code, _, err = await usher("run", cwd=tmp_path, env=environment(http=address))

    assert code == 1
    last = err.strip().splitlines()[-1]
    assert last.count(address.rpartition(":")[2]) == 1
    assert "USHER_HTTP" in last


async def test_the_help_loads_nothing_heavy(tmp_path: Path) -> None:
    """`usher --help` imports neither a log, nor a provider, nor the engine."""
    heavy = [
        "aiokafka",
        "aiohttp",
        "jinja2",
        "structlog",
        "sqlite3",
        "twilio",
        "sendgrid",
        "usher.app",
        "usher.parts",
        "usher.engine",
    ]
    code = (
        "import sys; from usher.cli import main; main(['--help']);"
        f"sys.exit(', '.join(set({heavy}) & set(sys.modules)) or 0)"
    )
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", code, cwd=tmp_path, env=environment(),
        stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    _, err = await asyncio.wait_for(process.communicate(), 60)

    assert process.returncode == 0, err.decode()


async def test_on_a_terminal_a_question_is_asked(tmp_path: Path) -> None:
    """A no drops nothing, a yes does."""
    async with FakeProviders(refused={BOB}) as provider:
        env = _env(provider)
        async with running(tmp_path, env) as service:
            await usher("emit", "-", cwd=tmp_path, env=env, stdin=raw_event(email=BOB))
            await service.line("dead-lettered")
        for said, code, left in ((b"n\n", 1, 1), (b"y\n", 0, 0)):
            assert await _on_a_terminal("dlq", "drop", "--all", said=said, cwd=tmp_path, env=env) == code
            assert len((await _rows("dlq", "list", cwd=tmp_path, env=env))[1]) == left


async def _on_a_terminal(*arguments: str, said: bytes, cwd: Path, env: Mapping[str, str]) -> int:
    """The exit code of a command whose question is answered with *said*."""
    ours, theirs = pty.openpty()
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "usher", *arguments, cwd=cwd, env=dict(env),
        stdin=theirs, stdout=asyncio.subprocess.DEVNULL, stderr=theirs,
    )  # fmt: skip
    os.close(theirs)
    os.write(ours, said)
    code = await asyncio.wait_for(process.wait(), 60)
    os.close(ours)
    return code


async def _fate(event_id: str, cwd: Path, env: Mapping[str, str]) -> str:
    """What `why` says of the event's welcome mail."""
    _, rows = await _rows("why", event_id, cwd=cwd, env=env)
    (state,) = [row["state"] for row in rows[0]["deliveries"] if row["handler"] == "welcome_email"]
    return str(state)


@pytest.mark.parametrize(
    ("name", "value"), [("EVENT_LOG", "kafka://host:9092,"), ("SMTP__URL", "smtp://user@host:587")], ids=["log", "smtp"]
)
async def test_wrong_settings_end_the_process_with_one_sentence(name: str, value: str, tmp_path: Path) -> None:
    """As an operator sees it: `usher run` does not start, and `usher check` says the same."""
    env = environment(email="smtp", mail_from="a@example.org") | {f"USHER_{name}": value}
    code, out, err = await usher("run", cwd=tmp_path, env=env)
    checked, table, _ = await usher("check", cwd=tmp_path, env=env)

    (sentence,) = err.splitlines()
    what, _, hint = sentence.removeprefix("usher: ").partition(": ")
    assert (code, checked, out) == (2, 2, "")
    assert what.startswith(f"USHER_{name}")
    assert what in table
    assert hint in table


@pytest.mark.parametrize(
    ("command", "code"),
    [
        ("emit event.json >&-", 0),
        ("dlq list --json >&-", 0),
        ("why nobody 2>&-", 4),
        ("why nobody 2>/dev/full", 4),
        ("why nobody <&- >&- 2>&-", 4),
        ("dlq list --json >/dev/full", 1),
    ],
)
async def test_a_stream_that_takes_nothing_decides_nothing(tmp_path: Path, command: str, code: int) -> None:
    """Closed, or full: the command does its work, and its exit code says how it went. Only a result that is lost is a failure."""
    (tmp_path / "event.json").write_bytes(raw_event(id="00aa"))
    assert (await usher("emit", "event.json", cwd=tmp_path, env=environment()))[0] == 0
    shell = await asyncio.create_subprocess_exec(
        "sh", "-c", f'"$0" -m usher {command}', sys.executable, cwd=tmp_path, env=environment(),
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    said, _ = await shell.communicate()

    assert (shell.returncode, b"Traceback" in said) == (code, False), said


async def test_no_file_of_ours_takes_the_place_of_a_closed_stream(tmp_path: Path) -> None:
    """What a crash writes to descriptor 2 would else land in the event log."""
    command = '"$0" -m usher run <&- >&- 2>&- & echo $!; wait'
    shell = await asyncio.create_subprocess_exec(
        "sh", "-c", command, sys.executable, cwd=tmp_path, env=environment(), stdout=asyncio.subprocess.PIPE
    )
    assert shell.stdout is not None
    number = int(await shell.stdout.readline())
    descriptors = Path(f"/proc/{number}/fd")
    try:
        await until((tmp_path / "usher.db-wal").exists)
        assert {str((descriptors / str(each)).readlink()) for each in range(3)} == {os.devnull}
    finally:
        os.kill(number, signal.SIGTERM)
        await shell.wait()
