"""The orders of a contender's process, its answers, and how it measures itself. Hides how they are passed."""

from __future__ import annotations

import asyncio
import cProfile
import json
import math
import pstats
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path

import uvloop

READY = "ready"
"""The first word of the line on stdout by which a child says so; what it adds follows as name=number."""


@dataclass(frozen=True, slots=True)
class Job:
    """One run of one contender: read *topic* from its beginning until *read* records were read and *handled* handlers ended.

    *work* is what a handler awaits, *limit* ends the run early; both in seconds. *folder* is for files of the run,
    *options* are a workload's own. *profile*: show on stderr where the time went.
    """

    servers: str
    topic: str
    group: str
    folder: str
    read: int = 0
    handled: int = 0
    work: float = 0.0
    limit: float = 60.0
    profile: bool = False
    options: dict[str, float] = field(default_factory=dict)

    def dumps(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def loads(cls, text: str) -> Job:
        return cls(**json.loads(text))


@dataclass(frozen=True, slots=True)
class Run:
    """What came of a job: how much, from the first record to the end, in how many *seconds*. *memory* is the peak, in MB.

    *figures* are a workload's own. *cpu* is the CPU time of the process, in seconds; nan: it does not say.
    """

    read: int
    handled: int
    seconds: float
    memory: float
    figures: dict[str, float] = field(default_factory=dict)
    cpu: float = math.nan

    @classmethod
    def loads(cls, text: str) -> Run:
        return cls(**json.loads(text))


class Stopwatch:
    """Runs from the first record to the end of the job, as seen by the process that does the work."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._began = 0.0
        self._seconds = 0.0
        self._cpu = 0.0
        self.read = 0
        self.handled = 0
        self.ended = 0.0
        """When it was over, in Unix seconds."""
        self.over = asyncio.Event()

    def saw(self, count: int) -> None:
        """So many more records have come."""
        if not self._began:
            self._began, self._cpu = time.perf_counter(), time.process_time()
            asyncio.get_running_loop().call_later(self._job.limit, self._stop)
        self.read += count
        if self.read >= self._job.read and self.handled >= self._job.handled:
            self._stop()

    def did(self) -> None:
        """One more handler has ended."""
        self.handled += 1
        if self.handled >= self._job.handled and self.read >= self._job.read:
            self._stop()

    def _stop(self) -> None:
        if not self._seconds:
            self._seconds, self._cpu = time.perf_counter() - self._began, time.process_time() - self._cpu
            self.ended = time.time()
            self._counts = self.read, self.handled
            self.over.set()

    def run(self, **figures: float) -> Run:
        """The result; once it is over."""
        return Run(*self._counts, self._seconds, peak_memory(), figures, self._cpu)


def say_ready(**figures: float) -> None:
    """Say to the parent process that this child is ready."""
    print(READY, *(f"{name}={value}" for name, value in figures.items()), flush=True)


def peak_memory() -> float:
    """The most memory that this process has had, in MB; 0 where the system does not say (not Linux)."""
    status = Path("/proc/self/status")
    if not status.exists():
        return 0.0
    [line] = [line for line in status.read_text().splitlines() if line.startswith("VmHWM")]
    return int(line.split()[1]) / 1024


def child(work: Callable[[Job], Awaitable[Run]]) -> None:
    """The main of a contender written in Python: the job is the argument, the last line on stdout is the run."""
    job = Job.loads(sys.argv[1])
    profile = cProfile.Profile() if job.profile else None

    async def measured() -> Run:
        if profile is not None:
            profile.enable()
        try:
            return await work(job)
        finally:
            if profile is not None:
                profile.disable()

    run = uvloop.run(measured())
    if profile is not None:
        pstats.Stats(profile, stream=sys.stderr).sort_stats("tottime").print_stats(40)
    print(json.dumps(asdict(run)))
