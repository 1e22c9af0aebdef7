"""Access to the embedded log's file: one worker at a time, its owner's eyes only, and which file it is."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
from pathlib import Path

from usher.eventlog.errors import LogMisconfigured

Identity = tuple[int, int]


def only_worker(path: Path) -> int:
    """Take the lock of *path*, so that no second worker opens it. Returns the descriptor: to close it releases the lock.

    Raises:
        LogMisconfigured: another process has the lock; names its process id.
    """
    whole = _resolved(path)
    lock = whole.with_name(f"{whole.name}.lock")
    for_the_owner_alone(lock)
    try:
        descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise LogMisconfigured(f"{lock} can't be opened for writing: {error.strerror}") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        owner = os.read(descriptor, 32).decode("ascii", "replace").strip() or "unknown"
        os.close(descriptor)
        raise LogMisconfigured(
            f"{path} is in use by another worker (process id {owner}): the embedded log has one worker; "
            "stop that one, or use Kafka to run several"
        ) from error
    except OSError as error:
        os.close(descriptor)
        raise LogMisconfigured(
            f"{lock} can't be locked ({error.strerror}): put the event log on a local disk"
        ) from error
    os.ftruncate(descriptor, 0)
    os.write(descriptor, f"{os.getpid()}\n".encode())
    return descriptor


def _resolved(path: Path) -> Path:
    try:
        path.stat()
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise LogMisconfigured(f"{path} is a link to itself; name the file in USHER_EVENT_LOG") from error
    return path.resolve()


def for_the_owner_alone(path: Path) -> None:
    """Let only the owner of a file read and write it, if there is one and this process may say so."""
    with contextlib.suppress(FileNotFoundError, PermissionError):
        if path.stat().st_mode & 0o077:
            path.chmod(0o600)


def identity(path: Path) -> Identity | None:
    """Return the device and the number of the file at *path*; None where there is none."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino
