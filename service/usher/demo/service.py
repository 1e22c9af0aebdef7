"""The demo's child processes: the worker with its log lines and its HTTP server, and single commands beside it.

Hides how they are started without the user's settings, and that each of them is ended, whatever happens.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
import time
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import aiohttp

from usher.demo.cast import LOGIN_URL, MAIL_FROM, SERVICE_NAME
from usher.demo.judge import Scrape
from usher.demo.systems import CREDENTIALS, SETTINGS, Call

if TYPE_CHECKING:
    from usher.testing.providers import FakeProviders

WITHIN = 60.0
"""Seconds that a step may take before the demo gives up: long, for a machine that is busy."""

_GRACE = 30.0
_SETTLING = 15.0
"""Seconds in which the metrics must reach the expected values; gauges are measured once a second."""
_LOOK_AGAIN = 0.1


class Failed(Exception):
    """Something should have happened and did not."""


def environment(provider: FakeProviders, environ: Mapping[str, str]) -> dict[str, str]:
    """Return *environ* without its ``USHER_`` variables, with the demo's settings: embedded log, *provider*, short delays."""
    inherited = {name: value for name, value in environ.items() if not name.upper().startswith("USHER_")}
    return inherited | {
        "USHER_HTTP": "127.0.0.1:0",
        "USHER_PROXY": "none",
        "USHER_EVENT_LOG": "sqlite:///usher.db",
        "USHER_LOG_FORMAT": "json",
        "USHER_CACHE_DIR": "cache",
        "USHER_RETRY_DELAYS": "1s,2s",
        "USHER_SERVICE_NAME": SERVICE_NAME,
        "USHER_LOGIN_URL": LOGIN_URL,
        "USHER_MAIL_FROM": MAIL_FROM,
        "USHER_EMAIL": "sendgrid",
        "USHER_SENDGRID__API_KEY": provider.sendgrid_api_key,
        "USHER_SENDGRID__BASE_URL": provider.url,
        "USHER_SMS": "twilio",
        "USHER_TWILIO__ACCOUNT_SID": provider.twilio_account_sid,
        "USHER_TWILIO__AUTH_TOKEN": provider.twilio_auth_token,
        "USHER_TWILIO__FROM": provider.twilio_from,
        "USHER_TWILIO__BASE_URL": provider.url,
        **SETTINGS,
    }


@dataclass(slots=True)
class Service:
    """A running ``usher run`` in *folder*. *lines* are its log lines, decoded, from the start on."""

    folder: Path
    env: Mapping[str, str]
    process: asyncio.subprocess.Process
    http: aiohttp.ClientSession
    lines: list[dict[str, Any]] = field(default_factory=list)
    url: str = ""
    _changed: asyncio.Condition = field(default_factory=asyncio.Condition)
    _ended: bool = False

    async def line(self, event: str, **fields: object) -> dict[str, Any]:
        """Wait for a log line of this *event* with these fields, and return the first one.

        Raises:
            Failed: there was none within `WITHIN` seconds, or the service ended.
        """
        wanted = {"event": event, **fields}

        def found() -> dict[str, Any] | None:
            return next((line for line in self.lines if wanted.items() <= line.items()), None)

        try:
            async with asyncio.timeout(WITHIN), self._changed:
                await self._changed.wait_for(lambda: found() or self._ended)
        except TimeoutError:
            raise Failed(f"the service's log should have said {wanted} within {WITHIN:g} s") from None
        if (line := found()) is None:
            raise Failed(f"the service ended (exit code {self.process.returncode}) before its log said {wanted}")
        return line

    async def post(self, call: Call) -> int:
        """Deliver a webhook, and return the status of the answer."""
        try:
            async with self.http.post(self.url + call.path, data=call.body, headers=call.headers) as answer:
                return answer.status
        except (aiohttp.ClientError, TimeoutError) as error:
            raise Failed(f"POST {call.path} got no answer: {error!r}") from None

    async def metrics(self, until: Callable[[Scrape], bool]) -> Scrape:
        """Return the metrics as soon as *until* holds for them, or as they are after `_SETTLING` seconds.

        Raises:
            Failed: there was no answer.
        """
        give_up = time.monotonic() + _SETTLING
        while True:
            try:
                async with self.http.get(f"{self.url}/metrics") as answer:
                    metrics = Scrape(await answer.text())
            except (aiohttp.ClientError, TimeoutError) as error:
                raise Failed(f"GET /metrics got no answer: {error!r}") from None
            if until(metrics) or time.monotonic() > give_up:
                return metrics
            await asyncio.sleep(_LOOK_AGAIN)

    async def usher(self, *arguments: str, code: int = 0) -> str:
        """Run one `usher` command beside the service, with its settings. Return what it prints on stdout.

        Raises:
            Failed: it ended with another exit code than *code*.
        """
        command = f"usher {' '.join(arguments)}"
        process = await _start(self.folder, self.env, *arguments, out=asyncio.subprocess.PIPE)
        try:
            out, err = await asyncio.wait_for(process.communicate(), WITHIN)
        except TimeoutError:
            raise Failed(f"`{command}` took longer than {WITHIN:g} s") from None
        finally:
            await _kill(process)
        if process.returncode != code:
            raise Failed(
                f"`{command}` ended with exit code {process.returncode}: {err.decode(errors='replace').strip()}"
            )
        return out.decode()

    async def ask(self, *arguments: str, code: int = 0) -> list[dict[str, Any]]:
        """Run a command with ``--json``, and return its rows."""
        rows: list[dict[str, Any]] = json.loads(await self.usher(*arguments, "--json", code=code))
        return rows

    async def stop(self) -> int:
        """Send SIGTERM, wait for the end and for the last log line, and return the exit code.

        Raises:
            Failed: it did not end.
        """
        if self.process.returncode is None:
            self.process.terminate()
        try:
            async with asyncio.timeout(_GRACE), self._changed:
                await self._changed.wait_for(lambda: self._ended)
        except TimeoutError:
            raise Failed(f"the service should have ended within {_GRACE:g} s of SIGTERM") from None
        return await self.process.wait()

    def leaks(self) -> list[str]:
        """Return the names of the service's files that hold a credential which a system has sent; its log is one of them."""
        files = [path for path in sorted(self.folder.iterdir()) if path.is_file()]
        return [path.name for path in files if any(secret.encode() in path.read_bytes() for secret in CREDENTIALS)]

    async def read_log(self) -> None:
        """Read the child's log lines into `lines` and ``service.log``, until it ends."""
        assert self.process.stderr is not None  # noqa: S101 - it was started with a pipe
        with (self.folder / "service.log").open("ab", buffering=0) as file:
            async for raw in self.process.stderr:
                file.write(raw)
                await self._add(_decoded(raw))
        await self.process.wait()
        self._ended = True
        await self._add(None)

    async def _add(self, line: dict[str, Any] | None) -> None:
        async with self._changed:
            if line is not None:
                self.lines.append(line)
            self._changed.notify_all()


@contextlib.asynccontextmanager
async def running(folder: Path, env: Mapping[str, str]) -> AsyncIterator[Service]:
    """Start ``usher run`` in *folder*, and end it on the way out, gracefully if possible.

    It is not ready at once: wait for its line "ready".
    """
    process = await _start(folder, env, "run", out=asyncio.subprocess.DEVNULL)
    try:
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=WITHIN)) as http:
            service = Service(folder, env, process, http)
            reading = asyncio.create_task(service.read_log())
            try:
                yield service
            finally:
                with contextlib.suppress(Failed):
                    await service.stop()
                await _kill(process)
                await reading
    finally:
        await _kill(process)


async def _start(folder: Path, env: Mapping[str, str], *arguments: str, out: int) -> asyncio.subprocess.Process:
    # A session of its own: Ctrl-C is for the demo, which then ends its child processes gracefully.
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", "usher", *arguments,
        cwd=folder, env=dict(env), stdin=asyncio.subprocess.DEVNULL, stdout=out, stderr=asyncio.subprocess.PIPE,
        limit=2**20, start_new_session=os.name == "posix",
    )  # fmt: skip


async def _kill(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


def _decoded(raw: bytes) -> dict[str, Any]:
    try:
        line = json.loads(raw)
    except ValueError:
        line = None
    return line if isinstance(line, dict) else {"event": raw.decode(errors="replace").rstrip()}
