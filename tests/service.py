"""The real service for acceptance tests: `usher run` as a child process, its log lines, its probes, its end."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
from tests import warm

_INHERITED = ("PATH", "HOME", "LANG", "TMPDIR", "XDG_CACHE_HOME", "COVERAGE_PROCESS_START")


def environment(**settings: object) -> dict[str, str]:
    """What a child inherits, and these settings: ``event_log=…`` is ``USHER_EVENT_LOG``, ``authgear__webhook_secret=…`` likewise."""
    inherited = {name: os.environ[name] for name in _INHERITED if name in os.environ}
    defaults = {"USHER_HTTP": "127.0.0.1:0", "USHER_LOGIN_URL": "https://login.example.org"}
    return inherited | defaults | {f"USHER_{name.upper()}": str(value) for name, value in settings.items()}


async def usher(*arguments: str, cwd: Path, env: Mapping[str, str], stdin: bytes = b"") -> tuple[int, str, str]:
    """Run one command to its end: exit code, stdout, stderr."""
    process = await warm.start(*arguments, cwd=cwd, env=env, stdin=stdin)
    out, err = await asyncio.wait_for(process.communicate(), 90)
    return process.returncode or 0, out.decode(), err.decode()


@dataclass
class Service:
    """A running `usher run`. *lines* are its log lines, decoded."""

    process: warm.Process | asyncio.subprocess.Process
    lines: list[dict[str, Any]] = field(default_factory=list)
    changed: asyncio.Condition = field(default_factory=asyncio.Condition)
    url: str = ""

    async def line(self, event: str, within: float = 100.0, **fields: object) -> dict[str, Any]:
        """The first log line of this event with these fields; waits for it."""

        def found() -> dict[str, Any] | None:
            wanted = {"event": event, **fields}
            return next((line for line in self.lines if wanted.items() <= line.items()), None)

        await self.wait(lambda: found() or self.process.returncode is not None, within)
        line = found()
        assert line is not None, f"no line {event!r}; the service said {self.lines[-20:]}"
        return line

    async def wait(self, condition: Callable[[], object], within: float = 100.0) -> None:
        """Wait until *condition* holds; it is asked after each log line."""
        async with asyncio.timeout(within), self.changed:
            await self.changed.wait_for(condition)

    async def get(self, path: str) -> tuple[int, str]:
        async with aiohttp.ClientSession() as session, session.get(self.url + path) as answer:
            return answer.status, await answer.text()

    async def post(self, path: str, body: bytes, headers: Mapping[str, str]) -> int:
        async with (
            aiohttp.ClientSession() as session,
            session.post(self.url + path, data=body, headers=headers) as answer,
        ):
            return answer.status

    async def end(self, how: signal.Signals = signal.SIGTERM, within: float = 30.0) -> int:
        """Send a signal and wait for the end; the exit code."""
        if self.process.returncode is None:
            self.process.send_signal(how)
        return await asyncio.wait_for(self.process.wait(), within)

    async def _read(self) -> None:
        assert self.process.stderr is not None
        async for raw in self.process.stderr:
            try:
                line = json.loads(raw)
            except ValueError:
                line = {"event": raw.decode(errors="replace")}
            async with self.changed:
                self.lines.append(line)
                self.changed.notify_all()
        async with self.changed:
            await self.process.wait()
            self.changed.notify_all()


async def cold_start(*arguments: str, cwd: Path, env: Mapping[str, str], stdout: int) -> asyncio.subprocess.Process:
    """Start a command from nothing, as `warm.start` does not."""
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", "usher", *arguments,
        cwd=cwd, env=dict(env), stdout=stdout, stderr=asyncio.subprocess.PIPE, limit=2**20,
    )  # fmt: skip


@contextlib.asynccontextmanager
async def running(
    cwd: Path, env: Mapping[str, str], *arguments: str, ready: bool = True, cold: bool = False
) -> AsyncIterator[Service]:
    """A service that is ready; ended with SIGTERM (or, if it does not end, SIGKILL). *cold*: it is started from nothing."""
    start = cold_start if cold else warm.start
    process = await start("run", *arguments, cwd=cwd, env=env, stdout=subprocess.DEVNULL)
    service = Service(process)
    reading = asyncio.create_task(service._read())
    try:
        listening = await service.line("listening")
        service.url = f"http://{listening['http']}"
        if ready:
            await service.line("ready")
        yield service
    finally:
        try:
            await service.end()
        except TimeoutError:
            process.kill()
        await reading
