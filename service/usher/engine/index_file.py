"""The file of a parking table: a private temporary SQLite database, which is gone with the process.

Hides where it lies, and what becomes of it when the disk refuses: then it is lost as a whole, since half a change may be in it.
Nothing of worth is lost with it: the retry partition is the truth.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
import tempfile
import weakref
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

_FOLDERS = ("/var/tmp", "/usr/tmp", "/tmp")  # noqa: S108 - where SQLite looks, in this order
_PROBE = 1024 * 1024


class IndexLost(Exception):
    """The disk has refused the index. Make another one, from the retry partition."""


class IndexFile:
    """A database with *schema*. Each call raises `IndexLost` where the disk refuses, and from then on."""

    def __init__(self, schema: str) -> None:
        self.why_lost = ""
        """What the disk said, once it has refused."""
        self._lost = asyncio.Event()
        # Unnamed, on disk, deleted by the system. The collector may close it, in whatever thread it runs.
        self._db = sqlite3.connect("", isolation_level=None, check_same_thread=False)
        self.close = weakref.finalize(self, self._db.close)
        """Give the disk space back. Also happens to a file without references. Safe to call twice."""
        try:
            self._db.executescript("PRAGMA journal_mode=OFF; PRAGMA synchronous=OFF; PRAGMA cache_size=-4096;" + schema)
        except sqlite3.Error as error:
            self._refused(error)

    def rows(self, query: str, *values: object) -> list[tuple[Any, ...]]:
        """Return the rows that *query* finds."""
        self._check()
        try:
            return self._db.execute(query, values).fetchall()
        except sqlite3.Error as error:
            raise self._refused(error) from error

    def change(self, statement: str, *values: object) -> int:
        """Carry out *statement*. Returns how many rows it has changed."""
        self._check()
        try:
            return self._db.execute(statement, values).rowcount
        except sqlite3.Error as error:
            raise self._refused(error) from error

    def change_many(self, statement: str, rows: Iterable[Sequence[object]]) -> int:
        """Carry out *statement* for each of *rows*. Returns how many rows they have changed."""
        self._check()
        try:
            return self._db.executemany(statement, rows).rowcount
        except sqlite3.Error as error:
            raise self._refused(error) from error

    def lose(self, why: str) -> None:
        """Use it no more."""
        self.why_lost = self.why_lost or why
        self._lost.set()

    async def lost(self) -> None:
        """Return once it is lost."""
        await self._lost.wait()

    def _check(self) -> None:
        if self.why_lost:
            raise IndexLost(self.why_lost)

    def _refused(self, error: sqlite3.Error) -> IndexLost:
        self.lose(f"{index_folder() or 'no folder'}: {error}")
        return IndexLost(self.why_lost)


def index_folder() -> str | None:
    """Return the folder that SQLite takes for temporary files; None where there is none that can be written."""
    for folder in (os.environ.get("SQLITE_TMPDIR"), os.environ.get("TMPDIR"), *_FOLDERS, "."):
        if folder and Path(folder).is_dir() and os.access(folder, os.W_OK | os.X_OK):
            return folder
    return None


def index_trouble() -> str:
    """Try the folder of temporary files, and say what is wrong with it; empty where nothing is."""
    folder = index_folder()
    if folder is None:
        return "no temporary folder can be written"
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(bytes(_PROBE))
            file.flush()
    except OSError as error:
        return f"{folder}: {error.strerror or error}"
    return ""
