"""The file of the index of receipts: a cache that may be deleted or damaged at any time, and is made anew then.

Hides the tables, and how several readers use one file at once: all that they write is the same, whoever writes it. The number of
the *generation* changes when the receipts are read from their beginning again, so nobody adds to what another one has cleared.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

_VERSION: Final = 1_970_405_377
"""Of the tables: a file of another one is made anew."""
_BUSY_SECONDS: Final = 60.0
_SCHEMA: Final = """
CREATE TABLE receipts (
    part INTEGER, off INTEGER, n INTEGER, at INTEGER, failed INTEGER, event INTEGER, user INTEGER, name INTEGER, address INTEGER,
    message INTEGER, value BLOB, PRIMARY KEY (part, off, n)
) WITHOUT ROWID;
CREATE INDEX by_at ON receipts (at);
CREATE INDEX by_failed ON receipts (at) WHERE failed;
CREATE INDEX by_event ON receipts (event);
CREATE INDEX by_user ON receipts (user) WHERE user <> 0;
CREATE INDEX by_name ON receipts (name) WHERE name <> 0;
CREATE INDEX by_address ON receipts (address) WHERE address <> 0;
CREATE INDEX by_message ON receipts (message) WHERE message <> 0;
CREATE TABLE positions (part INTEGER PRIMARY KEY, next INTEGER, last INTEGER, crc INTEGER);
CREATE TABLE generation (number INTEGER);
INSERT INTO generation VALUES (1);
PRAGMA user_version = 1970405377;
"""
_PRAGMAS: Final = ("secure_delete = 1", "cache_size = -131072", "synchronous = NORMAL")
"""With little memory every page of the index would be written again and again."""
_DAMAGED: Final = {sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_ERROR, sqlite3.SQLITE_MISMATCH}
"""SQLITE_ERROR: a table is missing, or another one."""

Row = tuple[int, int, int, int, bool, int, int, int, int, int, bytes]
"""A row of the table of receipts."""


class IndexDamaged(Exception):
    """The file was none of ours, is damaged, or was deleted. It is there no more: open it again."""


class IndexChanged(Exception):
    """Another reader has begun again from the beginning: so must this one."""


class IndexPosition(NamedTuple):
    """How far a partition was taken in: the offset to read *next*, the *last* record's, and the checksum of its value."""

    next: int
    last: int
    crc: int


class ReceiptFile:
    """An open index. Where its file can't be used, it is in memory; *trouble* says why then."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.trouble = ""
        self._inode = 0
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._db = self._opened()
        except (OSError, sqlite3.Error) as error:
            self._begin_in_memory(error)
        try:
            self.generation = int(self.rows("SELECT number FROM generation")[0][0])
        except BaseException:
            self._db.close()
            raise

    def _begin_in_memory(self, error: Exception) -> None:
        self.trouble = f"the index of receipts can't be kept at {self.path}: {error}"
        self._db = sqlite3.connect(":memory:", isolation_level=None)
        self._db.executescript(_SCHEMA)

    def _opened(self) -> sqlite3.Connection:
        with self._alone():
            for _ in range(2):
                if not self.path.exists():
                    self._remove()  # a journal that was left behind belongs to another file
                os.close(os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600))
                self.path.chmod(0o600)
                self._inode = self.path.stat().st_ino
                db = sqlite3.connect(self.path, timeout=_BUSY_SECONDS, isolation_level=None)
                ready = False
                try:
                    ready = _prepared(db)
                    if ready:
                        return db
                except sqlite3.DatabaseError as error:
                    if not _is_damage(error):
                        raise
                finally:
                    if not ready:
                        db.close()
                self._remove()
        raise sqlite3.OperationalError("another file is put in its place again and again")

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """Keep other readers from opening or removing the file."""
        with self.path.with_suffix(".lock").open("a") as lock:
            os.fchmod(lock.fileno(), 0o600)
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _gone(self) -> bool:
        """Return whether the file was deleted, or another one is in its place: SQLite refuses to write to it then."""
        try:
            return self.path.stat().st_ino != self._inode
        except OSError:
            return True

    def _remove(self) -> None:
        for path in (Path(f"{self.path}-journal"), self.path):
            path.unlink(missing_ok=True)

    def leave(self, error: Exception) -> None:
        """Begin again in memory, because of an *error* in the file, which others may use: the disk is full, or they write for too long."""
        self._db.close()
        self._begin_in_memory(error)
        self.generation = 1

    def close(self) -> None:
        self._db.close()

    def rows(self, query: str, values: Sequence[object] = ()) -> list[Any]:
        """Return the rows of a query.

        Raises:
            IndexDamaged
        """
        with self._watched():
            return self._db.execute(query, values).fetchall()

    def stream(self, query: str, values: Sequence[object] = ()) -> Iterator[Any]:
        """Yield the rows of a query one by one.

        Raises:
            IndexDamaged
        """
        with self._watched():
            yield from self._db.execute(query, values)

    def positions(self) -> dict[int, IndexPosition]:
        """Return how far each partition was taken in."""
        return {part: IndexPosition(*rest) for part, *rest in self.rows("SELECT * FROM positions")}

    def add(self, rows: Iterable[Row], positions: dict[int, IndexPosition]) -> None:
        """Add rows, and say with *positions* how far that is. What is there already is there once.

        Raises:
            IndexDamaged, IndexChanged
        """
        with self._watched(), self._transaction() as db:
            if db.execute("SELECT number FROM generation").fetchone() != (self.generation,):
                raise IndexChanged
            db.executemany("INSERT OR REPLACE INTO receipts VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", rows)
            db.executemany(
                "INSERT INTO positions VALUES (?, ?, ?, ?) ON CONFLICT (part) DO UPDATE SET next = excluded.next, "
                "last = excluded.last, crc = excluded.crc WHERE excluded.next > next",
                [(part, *position) for part, position in positions.items()],
            )

    def begin_again(self) -> None:
        """Forget everything: the receipts are others now."""
        with self._watched(), self._transaction() as db:
            for statement in (
                "DELETE FROM receipts",
                "DELETE FROM positions",
                "UPDATE generation SET number = number + 1",
            ):
                db.execute(statement)
            self.generation = db.execute("SELECT number FROM generation").fetchone()[0]

    def forget(self, first: dict[int, int]) -> None:
        """Forget what lies before the *first* offset that is kept of each partition: no longer than the event log is it kept here."""
        with self._watched():
            for part, offset in first.items():
                if self._db.execute(
                    "SELECT 1 FROM receipts WHERE part = ? AND off < ? LIMIT 1", (part, offset)
                ).fetchone():
                    self._db.execute("DELETE FROM receipts WHERE part = ? AND off < ?", (part, offset))

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield self._db
        except BaseException:
            if self._db.in_transaction:  # SQLite may have ended it: where the disk is full
                self._db.execute("ROLLBACK")
            raise
        self._db.execute("COMMIT")

    @contextlib.contextmanager
    def _watched(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.DatabaseError as error:
            if not _is_damage(error) and not self._gone():
                raise
            self._db.close()
            with contextlib.suppress(OSError), self._alone():
                if not self._gone():  # else another reader may have made it anew by now
                    self._remove()
            raise IndexDamaged(str(error)) from error


def _prepared(db: sqlite3.Connection) -> bool:
    """Make the tables in an empty file; return whether they are ours."""
    for pragma in _PRAGMAS:
        db.execute(f"PRAGMA {pragma}")
    version = db.execute("PRAGMA user_version").fetchone()[0]
    if db.execute("SELECT count(*) FROM sqlite_schema").fetchone() == (0,):
        db.executescript(f"BEGIN IMMEDIATE;{_SCHEMA}COMMIT;")
        return True
    return bool(version == _VERSION)


def _is_damage(error: sqlite3.DatabaseError) -> bool:
    return (getattr(error, "sqlite_errorcode", sqlite3.SQLITE_CORRUPT) & 0xFF) in _DAMAGED
