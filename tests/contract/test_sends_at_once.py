"""`USHER_SENDS_AT_ONCE`: how many messages the built service sends at once, over a real connection, and what a stop does to the rest."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from pytest_aiohttp.plugin import AiohttpServer
from tests.engine import CONFIG, Bench, raw, until
from tests.fakes.memory_log import MemoryBroker, MemoryLog

from usher import Context, Event, on
from usher.app import App, build
from usher.channels import Mail, Progress
from usher.settings import Settings, SettingsError


@dataclass
class Desk:
    """What sends are under way; each ends once *go_on* is set. *most* were so at once."""

    under_way: int = 0
    most: int = 0
    ended: int = 0
    go_on: asyncio.Event = field(default_factory=asyncio.Event)

    async def serve(self) -> None:
        self.under_way += 1
        self.most = max(self.most, self.under_way)
        await self.go_on.wait()
        self.under_way -= 1
        self.ended += 1


@dataclass
class Provider:
    """A provider of mail in this process."""

    desk: Desk
    name: str = "desk"

    def check(self) -> list[str]:
        return []

    async def send(self, _mail: Mail, progress: Progress, /) -> None:
        progress.state = "left"
        await self.desk.serve()
        progress.state = "sent"


@pytest.fixture
def templates(tmp_path: Path) -> Path:
    (tmp_path / "hi").mkdir()
    (tmp_path / "hi/en.txt").write_text("Subject: Hi\n\nHello")
    return tmp_path


@contextlib.asynccontextmanager
async def serving(bench: Bench, running: list[str], provider: Any = None, **settings: Any) -> AsyncIterator[App]:
    """The whole service with one handler that sends a mail; *running* are the users for whom it runs."""

    @on("user.created")
    async def hi(event: Event, ctx: Context) -> None:
        running.append(event.user.id or "")
        try:
            await ctx.email("hi", to=event.user)
        finally:
            running.remove(event.user.id or "")

    made = Settings(http="127.0.0.1:0", mail_from="a@example.com", **settings)
    app = build(made, event_log=MemoryLog(CONFIG, bench.broker), handlers=[hi], email=provider)
    service = asyncio.create_task(app.run())
    try:
        await until(lambda: service.done() or (app.worker is not None and app.worker.ready))
        yield app
    finally:
        app.stop()
        await asyncio.wait_for(service, 30)


async def test_so_many_requests_are_under_way_at_once_and_no_more(
    templates: Path, aiohttp_server: AiohttpServer
) -> None:
    """More than a pool of connections has by itself; the rest go out as soon as there is room."""
    desk, bench, running = Desk(), Bench(MemoryBroker()), list[str]()

    async def take(_request: web.Request) -> web.Response:
        await desk.serve()
        return web.Response(status=202)

    sendgrid = web.Application()
    sendgrid.router.add_post("/v3/mail/send", take)
    server = await aiohttp_server(sendgrid)
    async with serving(
        bench,
        running,
        email="sendgrid",
        sendgrid={"api_key": "SG.k", "base_url": str(server.make_url(""))},
        sends_at_once=150,
        templates_dir=templates,
    ):
        await bench.emit(*(raw(f"u{number}") for number in range(200)))
        await until(lambda: len(running) == 200 and desk.under_way >= 150, within=20)
        desk.go_on.set()
        await until(lambda: desk.ended == 200, within=20)

    assert desk.most == 150


async def test_mails_by_smtp_are_as_many_as_the_server_takes_of_one_client(templates: Path) -> None:
    """`USHER_SMTP__CONNECTIONS` is the lower number there; the other messages' timeouts wait with them."""
    desk, bench, running = Desk(), Bench(MemoryBroker()), list[str]()
    async with serving(
        bench,
        running,
        Provider(desk),
        email="smtp",
        smtp={"url": "smtp://127.0.0.1:1", "connections": 3},
        sends_at_once=150,
        templates_dir=templates,
    ):
        await bench.emit(*(raw(f"u{number}") for number in range(20)))
        await until(lambda: len(running) == 20 and desk.under_way >= 3)
        desk.go_on.set()
        await until(lambda: desk.ended == 20)

    assert desk.most == 3


async def test_a_stop_waits_for_what_is_under_way_and_leaves_the_rest_to_the_next_worker(templates: Path) -> None:
    """A message that waits for its turn is not running any more: it would be cut off half-way, and go out again."""
    bench, running, first, second = Bench(MemoryBroker()), list[str](), Desk(), Desk()
    async with serving(bench, running, Provider(first), sends_at_once=1, templates_dir=templates) as app:
        await bench.emit(*(raw(f"u{number}") for number in range(3)))
        await until(lambda: len(running) == 3 and first.under_way == 1)
        app.stop()
        await until(lambda: len(running) == 1)
        first.go_on.set()
    second.go_on.set()
    async with serving(bench, running, Provider(second), sends_at_once=1, templates_dir=templates):
        await until(lambda: second.ended == 2)

    assert (first.ended, second.ended) == (1, 2)


def test_more_sends_than_a_worker_holds_deliveries_are_refused() -> None:
    """The number would never be reached; a default that is too high is no mistake."""
    with pytest.raises(SettingsError, match=r"USHER_SENDS_AT_ONCE=50: .*USHER_MAX_IN_FLIGHT=40"):
        Settings.load({"USHER_SENDS_AT_ONCE": "50", "USHER_MAX_IN_FLIGHT": "40"}, env_file=None)

    assert Settings.load({"USHER_MAX_IN_FLIGHT": "40"}, env_file=None).max_in_flight == 40
