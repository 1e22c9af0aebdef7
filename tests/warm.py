"""Starts `usher` commands quickly: each is a process of its own, forked from a process that has loaded Usher.

Hides that process, and how a test waits for a process that is not its own child. Starts from nothing have tests too: the
README's commands, the demo, `usher --help`, and a first service.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import functools
import gc
import importlib
import json
import os
import pkgutil
import select
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

_LARGEST = 2**17
"""Bytes of a request."""


class Process:
    """A running command, as `asyncio.subprocess.Process` is one."""

    def __init__(self, pid: int, report: tuple[asyncio.StreamReader, asyncio.StreamWriter]) -> None:
        self.pid = pid
        self.returncode: int | None = None
        self.stdout: asyncio.StreamReader | None = None
        self.stderr: asyncio.StreamReader | None = None
        self._waiting = asyncio.create_task(self._wait(*report))

    async def _wait(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> int:
        self.returncode = int(await reader.readline())
        writer.close()
        await writer.wait_closed()
        return self.returncode

    async def wait(self) -> int:
        """The exit code; negative: the signal that ended it."""
        return await asyncio.shield(self._waiting)

    async def communicate(self) -> tuple[bytes, bytes]:
        """What it writes, to its end."""
        out, err = await asyncio.gather(*(_rest(reader) for reader in (self.stdout, self.stderr)))
        await self.wait()
        return out, err

    def send_signal(self, number: signal.Signals) -> None:
        if self.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


async def start(
    *arguments: str, cwd: Path, env: Mapping[str, str], stdin: bytes = b"", stdout: int = subprocess.PIPE
) -> Process:
    """Start a command that reads *stdin*. Its *stdout* is a pipe, as its stderr is, or `subprocess.DEVNULL`."""
    ours, theirs = socket.socketpair()
    out, err = os.pipe() if stdout == subprocess.PIPE else None, os.pipe()
    nothing = os.open(os.devnull, os.O_WRONLY)
    with tempfile.TemporaryFile() as given, theirs:
        given.write(stdin)
        given.seek(0)
        files = [given.fileno(), out[1] if out else nothing, err[1], theirs.fileno()]
        socket.send_fds(_server(), [json.dumps([str(cwd), dict(env), arguments]).encode()], files)
    os.close(nothing)
    reader, writer = await asyncio.open_unix_connection(sock=ours)
    process = Process(int(await reader.readline()), (reader, writer))
    process.stdout, process.stderr = await _reader(out) if out else None, await _reader(err)
    return process


async def _reader(pipe: tuple[int, int]) -> asyncio.StreamReader:
    read, write = pipe
    os.close(write)
    reader = asyncio.StreamReader(limit=2**20)
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(read, "rb"))
    return reader


async def _rest(reader: asyncio.StreamReader | None) -> bytes:
    return await reader.read() if reader else b""


@functools.cache
def _server() -> socket.socket:
    """The socket of the process that has loaded Usher; that process ends when this one ends."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs:
        command = [sys.executable, "-P", __file__]
        os.posix_spawn(sys.executable, command, os.environ, file_actions=[(os.POSIX_SPAWN_DUP2, theirs.fileno(), 0)])
    atexit.register(ours.close)
    return ours


def _load() -> None:
    import usher

    for module in pkgutil.walk_packages(usher.__path__, "usher."):
        if not module.name.startswith(("usher.testing", "usher.__main__")):
            importlib.import_module(module.name)
    gc.collect()
    gc.freeze()


def _serve(control: socket.socket) -> list[str]:
    """Fork a process for each request, for ever. Returns in each new process, with the command's arguments."""
    woken, wakes = os.pipe()
    os.set_blocking(wakes, False)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(wakes)
    running: dict[int, socket.socket] = {}
    while True:
        ready, _, _ = select.select([control.fileno(), woken], [], [])
        if woken in ready:
            os.read(woken, 1024)
            _report(running)
        if control.fileno() in ready:
            request, files, _, _ = socket.recv_fds(control, _LARGEST, 4)
            if not request:
                sys.exit()
            reporter = socket.socket(fileno=files.pop())
            pid = os.fork()
            if not pid:
                signal.set_wakeup_fd(-1)
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                signal.signal(signal.SIGINT, signal.default_int_handler)
                for each in (control, reporter, *running.values()):
                    each.close()
                os.close(woken)
                os.close(wakes)
                return _become(request, files)
            for file in files:
                os.close(file)
            running[pid] = reporter
            reporter.send(f"{pid}\n".encode())


def _report(running: dict[int, socket.socket]) -> None:
    """Report the exit code of each process that has ended."""
    while running:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if not pid:
            return
        with running.pop(pid) as reporter, contextlib.suppress(OSError):
            reporter.send(f"{os.waitstatus_to_exitcode(status)}\n".encode())


def _become(request: bytes, files: Sequence[int]) -> list[str]:
    cwd, env, arguments = json.loads(request)
    for number, file in enumerate(files):
        os.dup2(file, number)
        os.close(file)
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(env)
    sys.path.insert(0, cwd)
    return list(arguments)


if __name__ == "__main__":
    from usher.cli import main

    _load()
    raise SystemExit(main(_serve(socket.socket(fileno=os.dup(0)))))
