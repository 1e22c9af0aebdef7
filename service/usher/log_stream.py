"""A stream of log lines that may be full, slow or gone: writing to it never waits, and never raises.

A worker sends messages; that a line about one can't be written must not decide over it. So what the stream does not take is
kept for a while, in order, and written when it takes something again. What there is no room for is lost, and counted.
"""

from __future__ import annotations

import contextlib
import io
import os
import select
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import TextIO

_ROOM = 1024 * 1024
"""Bytes of lines that are kept while the stream takes none."""
_CHUNK = select.PIPE_BUF
"""Bytes of one write: a pipe that is ready takes so many without making the writer wait."""


class LogStream:
    """Lines on their way to *stream*; safe to use from several threads.

    Args:
        stream: where the lines go; None, as Python has it where standard error is closed: every line is lost.
        notice: makes the line that says how many lines were lost; it is written before the next one that is not.
        room: bytes that are kept while it takes none.
    """

    def __init__(self, stream: TextIO | None, notice: Callable[[int], str], *, room: int = _ROOM) -> None:
        self._stream = stream
        self._descriptor = _descriptor_of(stream)
        self._notice = notice
        self._room = room
        self.when_lost: Callable[[], object] = lambda: None
        """Called for each line that is lost."""
        self._kept: deque[bytes] = deque()
        self._size = 0
        self._lost = 0
        self._lock = threading.Lock()

    def isatty(self) -> bool:
        """Whether a person reads it."""
        with contextlib.suppress(ValueError):  # it is closed
            return self._stream is not None and self._stream.isatty()
        return False

    def write(self, line: str) -> None:
        """Take a line; `flush` writes it."""
        data = line.encode("utf-8", "backslashreplace")
        with self._lock:
            kept = self._size + len(data) <= self._room
            if kept:
                self._keep(data)
            else:
                self._lost += 1
        if not kept:
            self.when_lost()

    def flush(self, within: float = 0.0) -> None:
        """Write what is kept, as far as the stream takes it; wait for it *within* so many seconds."""
        deadline = time.monotonic() + within
        with self._lock:
            while self._kept and self._write_some():
                pass
            while self._kept and (left := deadline - time.monotonic()) > 0:
                time.sleep(min(left, 0.02))
                while self._kept and self._write_some():
                    pass

    def _keep(self, data: bytes) -> None:
        if self._lost:
            data = f"{self._notice(self._lost)}\n".encode() + data
            self._lost = 0
        self._kept.append(data)
        self._size += len(data)

    def _write_some(self) -> bool:
        """Whether anything was written."""
        data = self._kept[0]
        try:
            written = self._write(data)
        except (OSError, ValueError):  # a full disk, no reader, a closed stream
            return False
        if written == len(data):
            self._kept.popleft()
        else:
            self._kept[0] = data[written:]
        self._size -= written
        return written > 0

    def _write(self, data: bytes) -> int:
        if self._stream is None:
            return 0
        if self._descriptor is None:
            self._stream.write(data.decode("utf-8", "replace"))
            self._stream.flush()
            return len(data)
        ready = select.poll()
        ready.register(self._descriptor, select.POLLOUT)
        return os.write(self._descriptor, data[:_CHUNK]) if ready.poll(0) else 0


def _descriptor_of(stream: TextIO | None) -> int | None:
    """The file descriptor behind *stream*; None where there is none, as with a text in memory."""
    try:
        return None if stream is None else stream.fileno()
    except (AttributeError, io.UnsupportedOperation, ValueError):
        return None
