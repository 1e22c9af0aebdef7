"""The story of the demo: each step does one thing to the running service, waits for what must follow, and prints it."""

from __future__ import annotations

import asyncio
import textwrap
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from usher.demo import timeline
from usher.demo.cast import AIKO, BY_WEBHOOK, FROM_FILE, JONAS, LEFT_OUT, MARA, NOOR, OF_OTHERS, SCENES, Scene
from usher.demo.judge import Facts, of_metrics
from usher.demo.outbox import DemoOutbox, SentMessage
from usher.demo.service import WITHIN, Failed, Service
from usher.demo.systems import call
from usher.terminal import console, result, table
from usher.testing.providers import FakeProviders, Fault, answer
from usher.testing.wire import Request

_FILE = "events.jsonl"
_WIDTH = 78
"""Columns: it fits a terminal of 80."""
_INDENT = "   "

Fates = list[dict[str, Any]]


def providers(outbox: Path) -> FakeProviders:
    """Make the loopback SendGrid and Twilio: one 503 for Jonas, and Noor's address is refused."""
    due = {JONAS.to}

    def rule(request: Request) -> Fault | None:
        if request.to not in due:
            return None
        due.remove(request.to)
        return answer(503)

    return FakeProviders(outbox=outbox, rule=rule, refused={str(NOOR.to)})


@dataclass(slots=True)
class Story:
    """The steps, and the *facts* that they find. A step raises `Failed` if it can't go on."""

    service: Service
    provider: FakeProviders
    outbox: DemoOutbox
    facts: Facts = field(default_factory=Facts)
    _now: float = field(default_factory=time.time)
    _steps: Iterator[int] = field(default_factory=lambda: iter(range(1, 10)))

    async def play(self) -> None:
        """Play all steps, in order."""
        result("Usher sends users messages about what was done to their accounts.")
        result("Here the users are invented, and nothing leaves this machine.")
        await self._start()
        await self._webhooks()
        await self._others()
        await self._file()
        await self._left_out()
        await self._retry()
        await self._dead_letter()
        await self._timeline()
        self._messages()

    def _step(self, text: str) -> None:
        console().print(f"\n{next(self._steps)}. {text}", style="bold")

    async def _start(self) -> None:
        self._step("`usher run` starts, on the embedded log.")
        listening = await self.service.line("listening")
        self.service.url = f"http://{listening['http']}"
        await self.service.line("ready")
        handlers = [line["handler"] for line in self.service.lines if line["event"] == "handler"]
        result(f"{_INDENT}Ready at {self.service.url}. SendGrid and Twilio are stand-ins.")
        result(f"{_INDENT}Handlers: {', '.join(handlers)}")

    async def _webhooks(self) -> None:
        self._step("Authgear reports what happened, by signed webhooks: POST /ingest/authgear")
        for scene in BY_WEBHOOK:
            if scene not in OF_OTHERS:
                await self._deliver(scene, scene.about)
        await self.service.line("message sent", event_id=MARA.id)
        await self._deliver(MARA, "again: the same event")
        status = await self.service.post(call(MARA.system, MARA.body(self._now), secret="not-the-secret"))  # noqa: S106
        _print("(forger)", "an event signed with another secret", f"{status} refused")
        _expect(status == 401, f"a webhook with a bad signature should get 401; it got {status}")

    async def _others(self) -> None:
        self._step("Auth0, GenAuth and Keycloak report in their own forms: POST /ingest/auth0, …")
        for scene in OF_OTHERS:
            await self._deliver(scene, f"on {scene.system}, {scene.about}")
            await self.service.line("message sent", event_id=scene.id)
        result(f"{_INDENT}The passwords that came with these events are stored nowhere.")

    async def _deliver(self, scene: Scene, about: str) -> None:
        status = await self.service.post(call(scene.system, scene.body(self._now)))
        _print(scene.name, f"{scene.type} {about}", f"{status} stored")
        _expect(status == 200, f"{scene.name}'s webhook should get 200; it got {status}")

    async def _file(self) -> None:
        self._step(f"More events come from a file: usher emit {_FILE}")
        lines = [scene.body(self._now) + b"\n" for scene in FROM_FILE]
        (self.service.folder / _FILE).write_bytes(b"".join(lines))
        said = await self.service.usher("emit", _FILE)
        for scene in FROM_FILE:
            _print(scene.name, f"{scene.type} {scene.about}", "")
        result(f"{_INDENT}{said.strip()}")

    async def _left_out(self) -> None:
        self._step("Messages are sent only for what an administrator did, and only once.")
        result(f"{_INDENT}usher why ID shows why there is no message:")
        scenes = (*LEFT_OUT, MARA)
        for scene, fates in zip(scenes, await self._why_left_out(*scenes), strict=True):
            left_out = _left_out(fates)
            _expect(bool(left_out), f"`usher why` should say why {scene.name} is left out; it says {fates}")
            _print(scene.name, left_out[0]["reason"], "no message" if scene in LEFT_OUT else "nothing more")

    async def _retry(self) -> None:
        self._step("SendGrid fails for a moment. The delivery is parked, and tried again.")
        parked = await self.service.line("parked", event_id=JONAS.id)
        due = timeline.moment(parked["due"])
        _print(JONAS.name, parked["error"], f"attempt {parked['attempt']}")
        _print("", f"parked until {due:%H:%M:%S}", "")
        sent = await self.service.line("message sent", event_id=JONAS.id)
        _print(JONAS.name, f"{sent['template']} accepted by {sent['provider']}", f"attempt {sent['attempt']}")

    async def _dead_letter(self) -> None:
        self._step("SendGrid refuses Noor's address. That is a dead letter: usher dlq list")
        await self.service.line("dead-lettered", event_id=NOOR.id)
        self.facts.dead = await self.service.ask("dlq", "list")
        for dead_letter in self.facts.dead:
            result(f"{_INDENT}{dead_letter['id']}  {dead_letter['handler']}  {dead_letter['reason']}:")
            result(f"{_INDENT}{dead_letter['error']}")
        self.facts.untold = await self.service.ask("untold", code=1)
        for row in self.facts.untold:
            result(f"{_INDENT}usher untold: {row['reason']}: {row['event']['type']} {row['event']['id']}")
        self.provider.refused.clear()
        result(f"{_INDENT}SendGrid accepts the address now: usher dlq replay --all --yes --wait")
        said = await self.service.usher("dlq", "replay", "--all", "--yes", "--wait")
        result(f"{_INDENT}{', '.join(said.split(chr(10))).strip(', ')}")
        await self.service.ask("untold")  # its exit code says that there is nobody
        result(f"{_INDENT}usher untold: nobody any more")

    async def _timeline(self) -> None:
        self._step("The service is stopped. What became of each event (times are in UTC):")
        self.facts.metrics = await self.service.metrics(until=lambda metrics: not any(of_metrics(metrics)))
        self.facts.exit_code = await self.service.stop()
        self.facts.dead_in_the_end = await self.service.ask("dlq", "list")
        self.facts.leaks = self.service.leaks()
        rows: list[Sequence[object]] = []
        for scene, fates in zip(SCENES, await self._why(*SCENES), strict=True):
            rows += timeline.rows(scene, fates, self.service.lines)
        table(timeline.COLUMNS, rows)

    async def _why_left_out(self, *scenes: Scene) -> list[Fates]:
        """As `_why`, once each was left out: what was read a moment ago may not be committed yet, and counts as not read."""
        give_up = time.monotonic() + WITHIN
        while True:
            found = await self._why(*scenes)
            if all(map(_left_out, found)) or time.monotonic() > give_up:
                return found
            await asyncio.sleep(0.2)

    async def _why(self, *scenes: Scene) -> list[Fates]:
        """Return what became of each event at the handler that its scene is about."""
        events = await self.service.ask("why", *(scene.id for scene in scenes))
        return [
            [
                fate | {"stored_at": found["event"]["stored_at"]}
                for found in events
                for fate in found["deliveries"]
                if (found["event"]["id"], fate["handler"]) == (scene.id, scene.handler)
            ]
            for scene in scenes
        ]

    def _messages(self) -> None:
        self.facts.messages = self.outbox.messages()
        self._step("The messages are in the outbox. A mail program opens an .eml file.")
        result(f"{_INDENT}{self.outbox.path}:")
        for message in self.facts.messages:
            result(f"{_INDENT}{message.to:<18} {message.path.name}")
        for message in self.facts.messages:
            if (message.kind, message.to) in {(MARA.handler, MARA.to), ("SMS", AIKO.to)}:
                _quote(message)


def _quote(message: SentMessage) -> None:
    result(f"\n{_INDENT}{'SMS' if message.kind == 'SMS' else 'Mail'} to {message.to}")
    for line in filter(None, message.text.splitlines()):
        for part in textwrap.wrap(line, _WIDTH - 8, break_on_hyphens=False):
            result(f"{_INDENT}| {part}")


def _print(name: str, what: str, outcome: str) -> None:
    width = _WIDTH - 26
    result(f"{_INDENT}{name:<9} {what:<{width}} {outcome}".rstrip())


def _left_out(fates: Fates) -> Fates:
    return [fate for fate in fates if fate["state"] in {"filtered", "duplicate"}]


def _expect(holds: bool, otherwise: str) -> None:
    if not holds:
        raise Failed(otherwise)
