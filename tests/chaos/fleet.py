"""The workers: `usher run` as child processes, with the times of their ends and freezes, and their logs in files."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import aiohttp
from prometheus_client.parser import text_string_to_metric_families

READY_WITHIN = 90.0


@dataclass(slots=True, eq=False)
class Mishap:
    """A mishap: it may explain a repeat. *pid* None: it hit all workers. Times are of `time.monotonic`; *in_flight* are requests."""

    kind: Literal["kill", "freeze", "broker-kill"]
    began: float
    ended: float
    pid: int | None = None
    in_flight: int = 0


class Worker:
    """One worker of the fleet: one process at a time. Take *lock* to do something to it.

    *starts* are the seconds that its processes took to be ready, if they lived that long. It may open as many *descriptors*, or
    as the system lets it.
    """

    def __init__(self, number: int, folder: Path, env: Mapping[str, str], descriptors: int | None = None) -> None:
        self.number = number
        self.lock = asyncio.Lock()
        self.log = folder / f"worker-{number}.log"
        self.url = ""
        self.wrong: list[str] = []
        self.starts: list[float] = []
        self._folder = folder
        self._env = env
        self._command = [sys.executable, "-m", "usher", "run"]
        if descriptors:
            self._command = ["sh", "-c", f'ulimit -n {descriptors} && exec "$@"', "sh", *self._command]
        self._process: asyncio.subprocess.Process | None = None
        self._watcher: asyncio.Task[None] | None = None
        self._read_from = 0
        self._expected = False
        self._began = 0.0
        self._said = ""

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    async def start(self) -> None:
        """Start a process; `ready` says when it has come that far."""
        self._read_from = self.log.stat().st_size if self.log.exists() else 0
        self.url, self._said, self._expected, self._began = "", "", False, time.monotonic()
        with self.log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *self._command, cwd=self._folder, env=dict(self._env), stdout=log, stderr=log
            )
        self._watcher = asyncio.create_task(self._watch(self._process))

    async def _watch(self, process: asyncio.subprocess.Process) -> None:
        code = await process.wait()
        if not self._expected:
            self.wrong.append(f"worker {self.number} (pid {process.pid}) ended by itself, exit code {code}")
            await self.start()

    async def ready(self, http: aiohttp.ClientSession, within: float = READY_WITHIN) -> None:
        """Wait until its readiness probe says yes.

        Raises:
            TimeoutError: says what the probe said last.
        """
        try:
            async with asyncio.timeout(within):
                while not await self._is_ready(http):  # noqa: ASYNC110 - it is another process: we can only ask it
                    await asyncio.sleep(0.1)
        except TimeoutError:
            said = f"worker {self.number} (pid {self.pid}) was not ready within {within:g} s: {self._said}"
            raise TimeoutError(said) from None

    async def watch_start(self, http: aiohttp.ClientSession) -> None:
        """Record how long the start took, once it is over. Does nothing at other times."""
        began = self._began
        if began and await self._is_ready(http) and self._began == began:
            self._began = 0.0
            self.starts.append(time.monotonic() - began)

    async def _is_ready(self, http: aiohttp.ClientSession) -> bool:
        if not self.url:
            for line in self.lines():
                if line.get("event") == "listening":
                    self.url = f"http://{line['http']}"
        if not self.url:
            return False
        with contextlib.suppress(aiohttp.ClientError, TimeoutError):
            async with http.get(f"{self.url}/readyz", timeout=aiohttp.ClientTimeout(total=5)) as answer:
                self._said = await answer.text()
                return answer.status == 200
        return False

    def lines(self) -> list[dict[str, object]]:
        """What the process that runs now has logged."""
        with self.log.open("rb") as log:
            log.seek(self._read_from)
            raw = log.read().splitlines()
        found = []
        for line in raw:
            with contextlib.suppress(ValueError):
                found.append(json.loads(line))
        return found

    async def kill(self) -> None:
        """As kill -9."""
        self._expected, self._began = True, 0.0
        self._send(signal.SIGKILL)
        await self._ended(10)

    async def stop(self, within: float = 40.0) -> None:
        """As an orchestrator does: SIGTERM. Anything but exit code 0 in time goes into `wrong`."""
        assert self._process is not None
        self._expected, self._began = True, 0.0
        self._send(signal.SIGTERM)
        try:
            await self._ended(within)
        except TimeoutError:
            self.wrong.append(f"worker {self.number} (pid {self.pid}) did not end within {within:g} s of SIGTERM")
            await self.kill()
            return
        if self._process.returncode and self.lines():  # before its first line it is Python that starts, and not Usher
            self.wrong.append(f"worker {self.number} (pid {self.pid}) ended with {self._process.returncode} on SIGTERM")

    def freeze(self) -> None:
        self._send(signal.SIGSTOP)

    def thaw(self) -> None:
        self._send(signal.SIGCONT)

    async def end(self) -> None:
        """Whatever state it is in."""
        if self._process is not None and self._process.returncode is None:
            self.thaw()
            await self.kill()

    async def metrics(self, http: aiohttp.ClientSession) -> dict[str, float]:
        """Each metric's sum over its labels."""
        sums: dict[str, float] = {}
        async with http.get(f"{self.url}/metrics", timeout=aiohttp.ClientTimeout(total=5)) as answer:
            for family in text_string_to_metric_families(await answer.text()):
                for sample in family.samples:
                    sums[sample.name] = sums.get(sample.name, 0.0) + sample.value
        return sums

    def _send(self, number: signal.Signals) -> None:
        if self._process is not None and self._process.returncode is None:
            self._process.send_signal(number)

    async def _ended(self, within: float) -> None:
        assert self._process is not None
        await asyncio.wait_for(self._process.wait(), within)
        if self._watcher is not None:
            await self._watcher


@dataclass
class Fleet:
    """All workers. An async context manager that leaves no process behind."""

    workers: list[Worker]
    mishaps: list[Mishap] = field(default_factory=list)
    _http: aiohttp.ClientSession | None = None
    _watching: asyncio.Task[None] | None = None

    @property
    def http(self) -> aiohttp.ClientSession:
        assert self._http is not None
        return self._http

    @property
    def wrong(self) -> list[str]:
        return [each for worker in self.workers for each in worker.wrong]

    async def __aenter__(self) -> Fleet:
        self._http = aiohttp.ClientSession()
        self._watching = asyncio.create_task(self._watch())
        return self

    async def __aexit__(self, *exc: object) -> None:
        if self._watching is not None:
            self._watching.cancel()
        await asyncio.gather(*(worker.end() for worker in self.workers))
        await self.http.close()

    async def _watch(self) -> None:
        while True:
            await asyncio.gather(*(worker.watch_start(self.http) for worker in self.workers))
            await asyncio.sleep(0.2)

    async def start(self) -> None:
        """Start all at once; returns when all are ready."""
        await asyncio.gather(*(worker.start() for worker in self.workers))
        await self.ready()

    async def ready(self) -> None:
        await asyncio.gather(*(worker.ready(self.http) for worker in self.workers))

    def record(self, kind: Literal["kill", "freeze", "broker-kill"], pid: int | None, in_flight: int) -> Mishap:
        """Record that a mishap begins. The caller sets its end."""
        mishap = Mishap(kind, time.monotonic(), time.monotonic(), pid, in_flight)
        self.mishaps.append(mishap)
        return mishap

    async def at_rest(self, partitions: int) -> tuple[bool, dict[str, float]]:
        """Return whether all partitions are claimed, everything is read and nothing is parked or in flight; and the sums."""
        sums: dict[str, float] = {}
        for worker in self.workers:
            for name, value in (await worker.metrics(self.http)).items():
                sums[name] = sums.get(name, 0.0) + value
        found = {name: sums.get(f"usher_{name}", -1.0) for name in ("claims", "lag", "parked", "in_flight")}
        return found == {"claims": partitions, "lag": 0, "parked": 0, "in_flight": 0}, found

    async def rest(self, partitions: int, within: float) -> None:
        """Wait until everything is at rest, three looks one after the other.

        Raises:
            TimeoutError: says how things stood.
        """
        give_up = time.monotonic() + within
        calm, found = 0, dict[str, float]()
        while calm < 3:
            with contextlib.suppress(aiohttp.ClientError, TimeoutError):
                at_rest, found = await self.at_rest(partitions)
                calm = calm + 1 if at_rest else 0
            if time.monotonic() > give_up:
                raise TimeoutError(f"no rest within {within:g} s: {found}")
            await asyncio.sleep(0.5)
