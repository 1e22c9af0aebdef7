"""The real servers of the tests, which run on Java.

Hides how what they are made of is got once, how long a start takes, and how processes share one server.
"""

from __future__ import annotations

import contextlib
import fcntl
import pickle
import random
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Protocol, TypeVar

CACHE = Path(__file__).parent.parent / ".cache"
SMALL = ("-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1")
"""Options of a Java that starts quickly and leaves room for others."""


class ServerMissing(Exception):
    """There is no way to run such a server here; the text says what is missing."""


def cached(name: str, make: Callable[[Path], Path]) -> Path:
    """The folder *name* of the cache, made the first time, one process at a time.

    *make* is given a folder to work in, and returns the one in it, or itself, that is to be kept.

    Raises:
        ServerMissing
    """
    for tool in ("java", "mvn"):
        if shutil.which(tool) is None:
            raise ServerMissing(f"{tool} is not installed: Java 17 or later and Maven run the servers of these tests")
    CACHE.mkdir(exist_ok=True)
    folder, unfinished = CACHE / name, CACHE / f"{name}.unfinished"
    with (CACHE / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.exists():
            shutil.rmtree(unfinished, ignore_errors=True)
            make(unfinished).rename(folder)
            shutil.rmtree(unfinished, ignore_errors=True)
    return folder


def fetch(pom: Path, folder: Path) -> Path:
    """Put the files that *pom* names into *folder*, from Maven. Returns the folder.

    Raises:
        ServerMissing
    """
    run("mvn", "-q", "-B", "-f", str(pom), "dependency:copy-dependencies", f"-DoutputDirectory={folder}")
    return folder


def run(*command: str) -> None:
    """Run a step of the making.

    Raises:
        ServerMissing: it failed; quotes what it said last.
    """
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    if done.returncode:
        raise ServerMissing(f"{' '.join(command[:2])} failed: {done.stdout[-800:]}{done.stderr[-800:]}")


def came_up(process: subprocess.Popen[bytes], answers: Callable[[], bool], seconds: float) -> bool:
    """Wait until it *answers*; False where it has ended, or not answered within *seconds*."""
    give_up = time.monotonic() + seconds
    while not answers():
        if process.poll() is not None or time.monotonic() > give_up:
            return False
        time.sleep(0.05)
    return True


_DRAW = random.SystemRandom()
"""Hypothesis gives all processes the same seed, and they must not draw the same ports."""


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on, all different, below those that clients get: one would take a port whose server is away."""
    ports: list[int] = []
    with contextlib.ExitStack() as stack:
        while len(ports) < count:
            port = _DRAW.randrange(15_000, 30_000)
            with contextlib.suppress(OSError):
                stack.enter_context(socket.socket()).bind(("127.0.0.1", port))
                ports.append(port)
    return ports


class Server(Protocol):
    """What `started` runs."""

    def start(self) -> None: ...
    def kill(self) -> None: ...


_Server = TypeVar("_Server", bound=Server)


@contextlib.contextmanager
def started(server: _Server) -> Iterator[_Server]:
    """Run it for as long as the context lasts. What it holds is thrown away, so it need not end in good order."""
    server.start()
    try:
        yield server
    finally:
        server.kill()


@contextlib.contextmanager
def shared(folder: Path, make: Callable[[Path], _Server]) -> Iterator[_Server]:
    """Run one server for all processes that name the same *folder*.

    The first starts it; at the end it waits until the others have left, and kills it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    address = folder / "server.pickle"
    with (folder / "mutex").open("w") as mutex, (folder / "users").open("w") as users:
        with _locked(mutex):
            first = _nobody_else(users)
            if first:
                server = make(folder / "server")
                address.write_bytes(pickle.dumps(server))
                server.start()
            else:
                server = pickle.loads(address.read_bytes())
            fcntl.flock(users, fcntl.LOCK_SH)
        try:
            yield server
        finally:
            while first:
                with _locked(mutex):
                    if _nobody_else(users):
                        server.kill()
                        first = False
                time.sleep(0.1)


def _nobody_else(users: IO[str]) -> bool:
    """Whether we are alone; if so, we have the lock for us."""
    try:
        fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@contextlib.contextmanager
def _locked(file: IO[str]) -> Iterator[None]:
    fcntl.flock(file, fcntl.LOCK_EX)
    try:
        yield
    finally:
        fcntl.flock(file, fcntl.LOCK_UN)
