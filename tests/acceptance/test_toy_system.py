"""A further system is one folder and its name in the registry: Toybox, in `tests/acceptance/toy`, is all that docs/sources.md shows."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import structlog
from tests.engine import until
from tests.unit.test_sdk import noop, refusal

from usher import Context, Event, on, registry
from usher.app import App, build
from usher.cli import main
from usher.settings import Settings, SettingsError

MADE: Mapping[str, Any] = {
    "no": "7", "what": "made", "who": {"id": "u-ann", "nick": "ann.o", "mail": "ann@example.org"}, "by": "staff", "at": 1767600000,
    "pin": "initial-pin-0c1",
}  # fmt: skip
BODY = json.dumps(MADE).encode()


@pytest.fixture(autouse=True)
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Toybox is in the registry, and no setting comes from outside."""
    monkeypatch.setitem(registry.SYSTEMS, "toy", "tests.acceptance.toy")
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith("USHER_")]:
        monkeypatch.delenv(name)


def load(**given: str) -> Settings:
    return Settings.load({f"USHER_{name.upper()}": text for name, text in given.items()})


@contextlib.asynccontextmanager
async def serving(settings: Settings) -> AsyncIterator[tuple[App, list[Event]]]:
    """The service with one handler, and the events that the handler gets."""
    seen: list[Event] = []

    @on("user.created", "lent", expires_after=None)
    async def see(event: Event, ctx: Context) -> None:
        seen.append(event)

    app = build(settings, handlers=[see])
    service = asyncio.create_task(app.run())
    try:
        await until(lambda: service.done() or (app.worker is not None and app.worker.ready))
        yield app, seen
    finally:
        app.stop()
        await asyncio.wait_for(service, 30)


async def post(app: App, path: str, key: str) -> int:
    async with (
        aiohttp.ClientSession() as client,
        client.post(f"http://127.0.0.1:{app.port}{path}", data=BODY, headers={"X-Toy-Key": key}) as answer,
    ):
        return answer.status


def stored(folder: Path) -> bytes:
    """The bytes of the event log's files."""
    return b"".join(path.read_bytes() for path in folder.glob("usher.db*"))


async def test_settings_from_the_environment_open_a_webhook_whose_events_reach_handlers(tmp_path: Path) -> None:
    """Of two tenants, each with its key and path; a wrong key is refused, and no credential is stored."""
    settings = load(
        http="127.0.0.1:0", toy__webhook_key="k", toy__box="attic", toy__shed__webhook_key="s", toy__shed__box="shed"
    )
    async with serving(settings) as (app, seen):
        assert await post(app, "/ingest/toy", "s") == 401
        assert await post(app, "/ingest/toy", "k") == 200
        assert await post(app, "/ingest/toy/shed", "s") == 200
        await until(lambda: len(seen) == 2)

    assert [event.uid for event in seen] == [("toy", "attic", "7"), ("toy", "shed", "7")]
    assert (seen[0].type, seen[0].raw_type, seen[0].context.triggered_by) == ("user.created", "made", "admin_api")
    assert seen[0].user.username == "ann.o"
    assert b"initial-pin" not in stored(tmp_path)


def test_explain_and_emit_read_what_it_sends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With --source; what is emitted is in the event log under the user's name."""
    monkeypatch.setenv("USHER_TOY__WEBHOOK_KEY", "k")
    (tmp_path / "made.json").write_bytes(BODY)
    configured = structlog.get_config()

    def rows(*arguments: str) -> Any:
        assert main([*arguments, "--json"]) == 0
        return json.loads(capsys.readouterr().out)

    try:
        (explained,) = [
            row for row in rows("explain", "made.json", "--source", "toy") if row["handler"] == "welcome_email"
        ]
        assert (explained["event_id"], explained["runs"]) == ("7", True)
        assert rows("emit", "made.json", "--source", "toy") == [
            {"topic": "identity.events", "partition": 0, "event": "7"}
        ]
        assert {row["event"]["source"] for row in rows("why", "--user", "ann.o")} == {"toy"}
        assert ("toy: webhook", "ok") in {(row["what"], row["status"]) for row in rows("check")}
    finally:
        structlog.configure(**configured)


def test_mistakes_in_its_settings_and_types_are_found_like_any_others() -> None:
    """A misspelt setting, a raw name that no event has, a type that nobody sends."""
    with pytest.raises(SettingsError) as misspelt:
        load(toy__boxx="attic")
    assert "USHER_TOY__BOXX: there is no such setting (did you mean 'USHER_TOY__BOX'?)" in str(misspelt.value)
    assert "the event type 'made' is called 'user.created' here" in refusal(noop, "made")
    assert "there is no event type 'lend' (did you mean 'lent'?)" in refusal(noop, "lend")
