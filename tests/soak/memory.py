"""The memory of worker processes over time, and how it grows. Linux alone says it (`/proc`)."""

from __future__ import annotations

import asyncio
import contextlib
import statistics
import time
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

MB = 2**20


@dataclass(frozen=True, slots=True)
class Sample:
    """The memory of one process, *at* a time of `time.monotonic`, in bytes. *own*: without what it shares or can read again."""

    at: float
    own: int
    resident: int


@dataclass
class Memory:
    """The samples of each process, by its id."""

    samples: dict[int, list[Sample]] = field(default_factory=dict)

    def take(self, pid: int) -> None:
        """Take a sample of a process; of one that is gone, none."""
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            kilobytes = read(Path(f"/proc/{pid}/smaps_rollup").read_text())
            sample = Sample(time.monotonic(), kilobytes["Anonymous"] * 1024, kilobytes["Rss"] * 1024)
            self.samples.setdefault(pid, []).append(sample)

    @property
    def peak(self) -> float:
        """The most that one of them had in memory, in MB."""
        return max(sample.resident for samples in self.samples.values() for sample in samples) / MB

    @property
    def slope(self) -> float:
        """The growth of the one that grew fastest in the last half, in MB a minute."""
        return max(slope(samples) for samples in self.samples.values())

    def write(self, path: Path) -> None:
        """Write all samples, one a line: process, seconds, own and resident MB."""
        rows = [
            f"{pid},{sample.at:.1f},{sample.own / MB:.2f},{sample.resident / MB:.2f}"
            for pid, samples in self.samples.items()
            for sample in samples
        ]
        path.write_text("\n".join(["pid,seconds,own,resident", *rows, ""]))


def read(rollup: str) -> Mapping[str, int]:
    """The fields of a `smaps_rollup`, in kB."""
    rows = [line.split() for line in rollup.splitlines() if line.endswith("kB")]
    return {name.rstrip(":"): int(value) for name, value, _ in rows}


def slope(samples: Sequence[Sample]) -> float:
    """How fast a process grew in the last half of the time of its samples: MB a minute of its own memory, by least squares."""
    middle = (samples[0].at + samples[-1].at) / 2
    half = [sample for sample in samples if sample.at >= middle]
    line = statistics.linear_regression([sample.at for sample in half], [float(sample.own) for sample in half])
    return line.slope * 60 / MB


@contextlib.asynccontextmanager
async def watched(pids: Collection[int], every: float) -> AsyncIterator[Memory]:
    """Take samples of these processes *every* so many seconds while the block lasts."""
    memory = Memory()

    async def watch() -> None:
        while True:
            for pid in pids:
                memory.take(pid)
            await asyncio.sleep(every)

    watching = asyncio.create_task(watch())
    try:
        yield memory
    finally:
        watching.cancel()
