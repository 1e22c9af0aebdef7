"""A child process that does a job; hides how it says that it is ready, and how its answer is read."""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.bench.job import READY, Job, Run

_LEAVING = 90.0


class Child:
    """*command* at work on *job*, in a folder of its own, which is deleted. A context manager: it does not outlive the block."""

    def __init__(self, command: Sequence[str], job: Job) -> None:
        self._name = command[-1]
        self._within = job.limit + _LEAVING
        self._folder = tempfile.TemporaryDirectory(prefix="bench-")
        self._said = Path(self._folder.name) / "stderr"
        arguments = [*command, replace(job, folder=self._folder.name).dumps()]
        with self._said.open("w") as said:
            self._process = subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=said, text=True)

    def ready(self) -> dict[str, float]:
        """Wait until it says that it is ready; what it adds to that.

        Raises:
            RuntimeError: it failed before.
        """
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith(READY):
                words = line.removeprefix(READY).split()
                return {name: float(value) for name, _, value in (word.partition("=") for word in words)}
        raise self._failed()

    def result(self) -> Run:
        """Wait for its end; what came of the job.

        Raises:
            RuntimeError: it failed; with the end of what it said.
        """
        out, _ = self._process.communicate(timeout=self._within)
        lines = out.splitlines()
        if self._process.returncode or not lines:
            raise self._failed()
        return Run.loads(lines[-1])

    @property
    def stderr(self) -> str:
        """What it has said there so far."""
        return self._said.read_text()

    def _failed(self) -> RuntimeError:
        return RuntimeError(f"{self._name} failed (exit code {self._process.poll()}):\n{self.stderr[-3000:]}")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()
        self._folder.cleanup()
