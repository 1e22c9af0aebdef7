"""The file of the embedded log. Hides who may open it, which thread writes, when data is on the disk, and what errors mean.

One thread writes. The jobs that come while it syncs a transaction all go into the next one, so they share one sync.
Reads have a connection and a thread of their own, and wait for no write.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import queue
import sqlite3
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from usher.eventlog.errors import LogError, LogMisconfigured, LogMissing, LogUnavailable
from usher.eventlog.sqlite import tables
from usher.eventlog.sqlite.access import Identity, for_the_owner_alone, identity

T = TypeVar("T")
Job = Callable[[sqlite3.Connection], T]

_AT_ONCE = 1_000
_BUSY_SECONDS = 5.0
_AGAIN_SECONDS = 0.01
_WRONG_FILE = {
    sqlite3.SQLITE_NOTADB: "is not an SQLite database",
    sqlite3.SQLITE_CORRUPT: "is damaged",
    sqlite3.SQLITE_READONLY: "can't be written",
    sqlite3.SQLITE_CANTOPEN: "can't be opened",
    sqlite3.SQLITE_PERM: "can't be written",
}
_GONE = (
    "it was removed, or another file took its place, while it was open; put it back, or restart the worker: what was written "
    "since is in no file that it would find"
)
_logger = logging.getLogger(__name__)


class DatabaseFile:
    """An open file: `write` returns when its transaction is on the disk, `read` sees all that was written before."""

    def __init__(self, path: Path, *, create: bool = True) -> None:
        self.path = path
        self._create = create
        self._identities: dict[Path, Identity] = {}
        """Which files were opened: of each its device and its number there."""
        self.failing = False
        """Whether the last write, or the last read, failed."""
        self._queue: queue.SimpleQueue[tuple[Job[Any], asyncio.Future[Any]] | None] = queue.SimpleQueue()
        self._readers: ThreadPoolExecutor | None = None
        self._thread: threading.Thread | None = None
        self._reader: sqlite3.Connection | None = None
        self._open = False

    async def open(self) -> None:
        """Open the file. Create it where there is none, if that is wanted.

        Raises:
            LogMissing: there is none, and none is to be created.
            LogMisconfigured: it is of another program, it is damaged, or it may not be written.
            LogUnavailable: it is locked, or the disk fails.
        """
        self._loop = asyncio.get_running_loop()
        writer, self._reader = await asyncio.to_thread(self._connect)
        self._readers = ThreadPoolExecutor(1, thread_name_prefix="usher-log-read")
        self._thread = threading.Thread(target=self._write_all, args=(writer,), name="usher-log-write", daemon=True)
        self._thread.start()
        self._open = True

    async def close(self) -> None:
        """Do the jobs that are waiting, and close. Safe to call twice."""
        if not self._open:
            return
        self._open = False
        self._queue.put(None)
        await asyncio.to_thread(self._finish)

    @property
    def gone(self) -> bool:
        """Whether an open file is not the one at its path any more: it was removed, or another one took its place.

        The log's newest part is in its companion ``-wal``, and ``.lock`` keeps a second worker out.
        """
        return not self._identities or self._identities != {path: identity(path) for path in self._identities}

    async def write(self, job: Job[T]) -> T:
        """Run *job* in the next transaction. Returns its result once the transaction is on the disk.

        Raises:
            LogUnavailable: the transaction failed.
        """
        if not self._open:
            raise LogUnavailable(f"{self.path} is closed")
        future: asyncio.Future[T] = self._loop.create_future()
        self._queue.put((job, future))
        return await future

    async def read(self, query: Job[T]) -> T:
        """Run *query* on the reading connection.

        Raises:
            LogUnavailable
        """
        reader = self._reader
        if not self._open or reader is None:
            raise LogUnavailable(f"{self.path} is closed")
        try:
            result = await self._loop.run_in_executor(self._readers, query, reader)
        except sqlite3.Error as error:
            if not _is_outage(error):
                raise
            self._log_change(error)
            raise self._unavailable(error) from error
        return result

    def _connect(self) -> tuple[sqlite3.Connection, sqlite3.Connection]:
        # SQLite does not wait for its locks while it changes the journal mode: two processes that create one file at once collide.
        deadline = time.monotonic() + _BUSY_SECONDS
        while True:
            try:
                return self._connect_once()
            except LogUnavailable as error:
                if isinstance(error, LogMissing) or time.monotonic() > deadline:
                    raise
                time.sleep(_AGAIN_SECONDS)

    def _connect_once(self) -> tuple[sqlite3.Connection, sqlite3.Connection]:
        self._prepare()
        opened = []
        try:
            for _ in range(2):
                opened.append(
                    sqlite3.connect(self.path, timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False)
                )
                self._set_up(opened[-1])
            tables.prepare(opened[0], str(self.path))
            whole = self.path.resolve()  # SQLite puts the companions there, too
            paths = (self.path, *(whole.with_name(whole.name + suffix) for suffix in ("-wal", "-shm", ".lock")))
            self._identities = {path: found for path in paths if (found := identity(path)) is not None}
            opened[1].execute("PRAGMA query_only = 1")
        except (sqlite3.Error, LogError) as error:
            for connection in opened:
                connection.close()
            if not isinstance(error, sqlite3.Error):
                raise
            if (what := _WRONG_FILE.get(_code(error))) is None:
                raise self._unavailable(error) from error
            raise LogMisconfigured(
                f"{self.path} {what} ({error}); mend it, or name another file in USHER_EVENT_LOG"
            ) from error
        return opened[0], opened[1]

    def _prepare(self) -> None:
        """See that the file is there, and that only its owner may read it: events are personal data."""
        if not self._create and not (self.path.exists() and self._holds_anything()):
            raise LogMissing(
                f"there is no event log at {self.path.absolute()}: is this the right folder, and the right USHER_EVENT_LOG? "
                "`usher run` and `usher emit` create it"
            )
        try:
            # A file that exists must not be opened here: to close it would release the locks that SQLite has on it in this
            # process. The -wal and -shm files take the mode that this one has when they are made.
            with contextlib.suppress(FileExistsError):
                os.close(os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        except OSError as error:
            raise LogMisconfigured(f"{self.path} can't be created: {error.strerror}") from error
        for suffix in ("", "-wal", "-shm"):
            for_the_owner_alone(Path(f"{self.path}{suffix}"))

    def _holds_anything(self) -> bool:
        """Return whether the file is not empty, or a worker is beginning it: then its first part is in the ``-wal``."""
        files = (self.path, self.path.with_name(f"{self.path.name}-wal"))
        return any(file.stat().st_size > 0 for file in files if file.exists())

    def _set_up(self, db: sqlite3.Connection) -> None:
        tables.is_empty(db, str(self.path))  # before anything is changed: the file may be of another program
        mode = db.execute("PRAGMA journal_mode = WAL").fetchone()[0]
        if mode != "wal":
            raise LogMisconfigured(
                f"{self.path} is on a file system where the WAL of SQLite does not work; use a local disk"
            )
        db.execute("PRAGMA synchronous = FULL")

    def _finish(self) -> None:
        if self._thread is not None:
            self._thread.join()
        if self._readers is not None:
            self._readers.shutdown()
        if self._reader is not None:
            self._reader.close()

    def _write_all(self, db: sqlite3.Connection) -> None:
        """Write one transaction after the other, until None comes: the main function of the writing thread."""
        going = True
        while going:
            asked = [self._queue.get()]
            with contextlib.suppress(queue.Empty):
                while len(asked) < _AT_ONCE:
                    asked.append(self._queue.get_nowait())
            going = None not in asked
            if batch := [item for item in asked if item is not None]:
                self._write_batch(db, batch)
        db.close()

    def _write_batch(self, db: sqlite3.Connection, batch: list[tuple[Job[Any], asyncio.Future[Any]]]) -> None:
        error: Exception | None = None
        results: list[Any] = []
        try:
            db.execute("BEGIN IMMEDIATE")
            results = [job(db) for job, _ in batch]
            db.execute("COMMIT")
            if self.gone:  # it is on a disk, and in no file that a restart would find
                raise sqlite3.OperationalError(_GONE)
        except Exception as caught:  # noqa: BLE001 - any error goes to the callers that wait
            error = caught
            with contextlib.suppress(sqlite3.Error):
                if db.in_transaction:
                    db.execute("ROLLBACK")
        if error is not None and not _is_outage(error) and len(batch) > 1:
            for item in batch:  # one of them is at fault: run each alone, so that the others succeed
                self._write_batch(db, [item])
            return
        with contextlib.suppress(RuntimeError):  # the loop is closed: no caller waits any more
            self._loop.call_soon_threadsafe(self._resolve, [future for _, future in batch], results, error)

    def _resolve(self, futures: list[asyncio.Future[Any]], results: list[Any], error: Exception | None) -> None:
        outage = error if error is not None and _is_outage(error) else None
        self._log_change(outage)
        for n, future in enumerate(futures):
            if future.done():  # the caller was cancelled
                continue
            if error is None:
                future.set_result(results[n])
            else:
                future.set_exception(error if outage is None else self._unavailable(error))

    def _log_change(self, error: Exception | None) -> None:
        if error is not None and not self.failing:
            _logger.warning(
                "the event log %s fails: %s; nothing is lost, Usher waits until it works again", self.path, error
            )
        elif error is None and self.failing:
            _logger.info("the event log %s works again", self.path)
        self.failing = error is not None

    def _unavailable(self, error: Exception) -> LogUnavailable:
        return LogUnavailable(f"the event log {self.path} fails: {error}")


def _is_outage(error: Exception) -> bool:
    """Return whether the file or the disk is at fault, and not the statement."""
    return isinstance(error, sqlite3.OperationalError) or type(error) is sqlite3.DatabaseError


def _code(error: sqlite3.Error) -> int:
    """Return the primary error code: the low byte of the extended one."""
    return int(getattr(error, "sqlite_errorcode", 0)) & 0xFF
