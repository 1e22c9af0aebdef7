"""What a run was made on: the machine, the versions, the commit."""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
import platform
import shutil
import subprocess
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

from tests.kafka import jars

_ROOT = Path(__file__).parents[1]
_PACKAGES = ("usher-hooks", "aiokafka", "uvloop", "pydantic", "faststream")


def about() -> Mapping[str, str]:
    """Names and values, in the order in which they are shown."""
    versions = {name: version for name in _PACKAGES if (version := _version(name))}
    return {
        "cores": f"{os.cpu_count()} of {_model()}",
        "memory": f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.0f} GB",
        "system": f"{platform.system()} {platform.release()}, Python {platform.python_version()}, Java {_java()}",
        "broker": jars().name.replace("-", " "),
        "packages": ", ".join(f"{name} {version}" for name, version in versions.items()),
        "commit": _commit(),
        "date": datetime.now(UTC).date().isoformat(),
    }


def _model() -> str:
    described = Path("/proc/cpuinfo")
    lines = described.read_text().splitlines() if described.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return ""


def _java() -> str:
    if shutil.which("java") is None:
        return "none"
    lines = subprocess.run(["java", "-version"], capture_output=True, text=True, check=False).stderr.splitlines()
    return lines[0].split('"')[1] if lines and '"' in lines[0] else "unknown"


def state(*paths: str) -> str:
    """A word for what these paths of the project hold now, as git sees it, changes that are not committed included."""
    held = _git("ls-files", "--stage", "--", *paths) + _git("diff", "--", *paths)
    return hashlib.sha256(held.encode()).hexdigest()[:16]


def _commit() -> str:
    commit = _git("rev-parse", "--short", "HEAD")
    changed = _git("status", "--porcelain", "--", "service", "handlers", "tests/bench")
    return f"{commit or 'unknown'}{' and changes' if changed else ''}"


def _git(*arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=_ROOT, capture_output=True, text=True, check=False)
    return done.stdout.strip()
