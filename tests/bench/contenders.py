"""The contenders, each a process of its own; hides what they are started with, and what has to be fetched first."""

from __future__ import annotations

import importlib.util
import io
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.bench.job import Job, Run
from tests.bench.process import Child
from tests.java import CACHE

JAVA = Path(__file__).parent / "java"
_ROOT = Path(__file__).parents[2]
_COMMIT = "470c7ab"
"""What the costs of a message are compared with: Usher before its hot path was reworked."""
THREADS = 1_000
"""Of parallel-consumer: with 1,000 users its best setting for all handlers that wait."""


class Missing(Exception):
    """A contender can't take part here; the text says why."""


Command = Callable[[], Sequence[str]]
"""Gives the process to start, without its job. Raises `Missing`."""


@dataclass(frozen=True, slots=True)
class Contender:
    """*handlers* is its process where handlers wait or do nothing, *mails* that of the real job; None: it takes no part there."""

    name: str
    title: str
    remark: str
    handlers: Command | None = None
    mails: Command | None = None

    def run(self, command: Command, job: Job) -> Run:
        """Do the job with *command*, which is one of this contender's.

        Raises:
            RuntimeError: it failed.
        """
        with Child(command(), job) as child:
            run = child.result()
            if job.profile:
                print(child.stderr, file=sys.stderr)
        return run


def python(module: str) -> Command:
    """The command of a contender in `tests.bench.children`."""
    return lambda: [sys.executable, "-m", f"tests.bench.children.{module}"]


def _faststream(module: str) -> Command:
    def command() -> Sequence[str]:
        if importlib.util.find_spec("faststream") is None:
            raise Missing("the dependency group `bench` is not installed: `make bench` installs it")
        return python(module)()

    return command


def _usher_before() -> Sequence[str]:
    folder = CACHE / f"usher-{_COMMIT}"
    if not folder.exists():
        packed = subprocess.run(
            ["git", "archive", _COMMIT, "service", "handlers"], cwd=_ROOT, capture_output=True, check=False
        )
        if packed.returncode:
            raise Missing("the commit is not in this clone; `git fetch --unshallow` brings it")
        unfinished = folder.with_suffix(".unfinished")
        with tarfile.open(fileobj=io.BytesIO(packed.stdout)) as archive:
            archive.extractall(unfinished, filter="data")
        unfinished.rename(folder)
    return ["env", f"PYTHONPATH={folder / 'service'}:{folder / 'handlers'}", *python("usher_mails_before")()]


def _parallel_consumer() -> Sequence[str]:
    for tool in ("java", "javac", "mvn"):
        if shutil.which(tool) is None:
            raise Missing(f"{tool} is not installed: a JDK (17 or later) and Maven run it")
    folder = CACHE / "parallel-consumer-0.5.3.3"
    source, classes = JAVA / "ParallelConsumer.java", folder / "ParallelConsumer.class"
    if not folder.exists():
        unfinished = folder.with_suffix(".unfinished")
        shutil.rmtree(unfinished, ignore_errors=True)
        _tool(
            "mvn",
            "-q",
            "-B",
            "-f",
            str(JAVA / "pom.xml"),
            "dependency:copy-dependencies",
            f"-DoutputDirectory={unfinished}",
        )
        unfinished.rename(folder)
    if not classes.exists() or classes.stat().st_mtime < source.stat().st_mtime:
        _tool("javac", "-cp", f"{folder}/*", "-d", str(folder), str(source))
    return ["java", "-Xmx2g", "-cp", f"{folder}:{folder}/*", "ParallelConsumer"]


def _tool(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    if done.returncode:
        raise Missing(f"{command[0]} failed: {done.stdout[-500:]}{done.stderr[-500:]}")


USHER = Contender(
    "usher",
    "Usher",
    "commits, Mark, metrics, logs at info; without receipts",
    handlers=python("usher"),
    mails=python("usher_mails"),
)
USHER_RECEIPTS = Contender(
    "usher-receipts",
    "Usher, with receipts",
    "the same, and each delivery that ends leaves its receipt, as by default",
    handlers=python("usher"),
    mails=python("usher_mails"),
)
USHER_READING = Contender(
    "usher-reading",
    "Usher, reading",
    "the same, and its handler reads the event's user, payload and context",
    handlers=python("usher"),
)
BARE = Contender("bare", "bare loop", "aiokafka's getmany, and nothing is done", handlers=python("bare"))
LANES = Contender(
    "lanes", "bare lanes", "prefilter, json.loads, a queue for each key; no bookkeeping", handlers=python("lanes")
)
VALIDATING_LANES = Contender(
    "validating-lanes",
    "validating lanes",
    "the same, and its handler reads an event that was stripped of credentials and validated by Usher's own code",
    handlers=python("lanes"),
)
BARE_SENDER = Contender(
    "bare-sender",
    "bare sender",
    "json.loads, the same templates, aiohttp, a task a message, as many at once as Usher; no bookkeeping",
    mails=python("bare_sender"),
)
USHER_BEFORE = Contender(
    "usher-before",
    f"Usher of {_COMMIT}",
    "how it was before its hot path was reworked, with 100 messages at once, the most that it could",
    mails=_usher_before,
)
PARALLEL = Contender(
    "parallel-consumer",
    "parallel-consumer",
    f"0.5.3.3, KEY mode, {THREADS:,} threads, commits",
    handlers=_parallel_consumer,
)
FASTSTREAM = Contender(
    "faststream",
    "FastStream",
    "one subscriber that takes a dict; commits; mails go out with SendGrid's package, one after the other",
    handlers=_faststream("faststream"),
    mails=_faststream("faststream_mails"),
)
CONTENDERS = (
    USHER,
    USHER_RECEIPTS,
    USHER_READING,
    BARE,
    LANES,
    VALIDATING_LANES,
    BARE_SENDER,
    USHER_BEFORE,
    PARALLEL,
    FASTSTREAM,
)


def present(contenders: Sequence[Contender]) -> tuple[list[Contender], dict[str, str]]:
    """Those that can take part here, and for the others the reason, by title."""
    there: list[Contender] = []
    missing: dict[str, str] = {}
    for contender in contenders:
        try:
            for command in filter(None, (contender.handlers, contender.mails)):
                command()
        except Missing as reason:
            missing[contender.title] = str(reason)
        else:
            there.append(contender)
    return there, missing
