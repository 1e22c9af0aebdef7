"""What the parts of a run have measured: kept on disk until all are there, so that a long run can be made in parts."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from pydantic import TypeAdapter
from tests.bench.outcome import Outcome


@dataclass(frozen=True, slots=True)
class Part:
    """The outcome of one workload, which took *seconds*; *missing* is who could not take part, and why."""

    outcome: Outcome
    seconds: float
    missing: Mapping[str, str]


_KEPT = TypeAdapter(tuple[str, Part])


class Kept:
    """A folder with a file for each workload. *state* is what was measured: parts of other code are not counted."""

    def __init__(self, folder: Path, state: str) -> None:
        self._folder = folder
        self._state = state

    def keep(self, name: str, part: Part) -> None:
        """Keep this in place of what is there for the workload."""
        self._folder.mkdir(parents=True, exist_ok=True)
        self._file(name).write_text(json.dumps([self._state, asdict(part)]))

    def parts(self, names: Iterable[str]) -> dict[str, Part]:
        """Those of the workloads that are there, in the order of *names*."""
        found = {}
        for name in names:
            if self._file(name).exists():
                state, part = _KEPT.validate_python(json.loads(self._file(name).read_text()))
                if state == self._state:
                    found[name] = part
        return found

    def _file(self, name: str) -> Path:
        return self._folder / f"{name}.json"
