"""The tables of the embedded log, and every statement on them: plain functions of a connection.

All topics share one sequence of offsets. It is AUTOINCREMENT: without that, offsets would start again below the committed
one once the last records are deleted. A compacted topic has one record for each key: a unique index removes the older
one in the transaction that writes the newer one.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Sequence

from usher.delivery import Headers, StoredRecord
from usher.eventlog.errors import LogMisconfigured
from usher.eventlog.port import Batch, Claim, Position, Sieve

PAGE_BYTES = 8 * 1024 * 1024
"""About how many bytes of values one page has at most."""
_APPLICATION_ID = 0x75736872  # "ushr"
_VERSION = 1
_PRUNED_AT_ONCE = 1_000
_SCHEMA = (
    """CREATE TABLE records (
        "offset" INTEGER PRIMARY KEY AUTOINCREMENT,
        topic TEXT NOT NULL,
        timestamp INTEGER NOT NULL,
        key BLOB,
        value BLOB,
        headers TEXT,
        compacted INTEGER NOT NULL
    )""",
    'CREATE INDEX records_of_topic ON records (topic, "offset")',
    "CREATE UNIQUE INDEX last_of_key ON records (topic, key) WHERE compacted",
    """CREATE TABLE commits (
        "group" TEXT NOT NULL,
        topic TEXT NOT NULL,
        next INTEGER NOT NULL,
        mark TEXT NOT NULL,
        PRIMARY KEY ("group", topic)
    ) WITHOUT ROWID""",
    f"PRAGMA application_id = {_APPLICATION_ID}",
    f"PRAGMA user_version = {_VERSION}",
)


def is_empty(db: sqlite3.Connection, name: str) -> bool:
    """Return whether the file has no tables yet. Changes nothing.

    Raises:
        LogMisconfigured: the file belongs to another program, or to a newer Usher.
    """
    # In this order: tables that another process creates in between come with its id.
    if db.execute("SELECT count(*) FROM sqlite_schema").fetchone() == (0,):
        return True
    if _pragma(db, "application_id") != _APPLICATION_ID:
        raise LogMisconfigured(f"{name} is a database of another program; name another file in USHER_EVENT_LOG")
    if (version := _pragma(db, "user_version")) != _VERSION:
        raise LogMisconfigured(
            f"{name} has the format {version}, this Usher reads {_VERSION}; run the Usher that wrote it, or name another file"
        )
    return False


def prepare(db: sqlite3.Connection, name: str) -> None:
    """Create the tables in an empty file.

    Raises:
        LogMisconfigured: as `is_empty`.
    """
    db.execute("BEGIN IMMEDIATE")
    try:
        if is_empty(db, name):
            for statement in _SCHEMA:
                db.execute(statement)
    except BaseException:
        db.execute("ROLLBACK")
        raise
    db.execute("COMMIT")


def touch(db: sqlite3.Connection) -> None:
    """Write a value that is there already: only a write shows whether writes work."""
    db.execute(f"PRAGMA user_version = {_VERSION}")


def insert(
    db: sqlite3.Connection,
    topic: str,
    *,
    timestamp: int,
    key: bytes | None,
    value: bytes | None,
    headers: Headers,
    compacted: bool,
) -> int:
    """Append a record and return its offset. In a compacted topic it replaces the older record of its key."""
    cursor = db.execute(
        "INSERT OR REPLACE INTO records (topic, timestamp, key, value, headers, compacted) VALUES (?, ?, ?, ?, ?, ?)",
        (topic, timestamp, key, value, _written(headers), compacted),
    )
    return cursor.lastrowid or 0


def page(
    db: sqlite3.Connection, topic: str, start: int, limit: int, *, end: int | None = None, since: float | None = None
) -> list[StoredRecord]:
    """Return the first *limit* records from offset *start* to before *end*, younger than *since* (Unix milliseconds)."""
    return [StoredRecord(topic, 0, *row) for row in _rows(db, topic, start, limit, end=end, since=since)]


def sifted(db: sqlite3.Connection, claim: Claim, start: int, limit: int, may_be_ours: Sieve) -> Batch:
    """Return of the first *limit* records from offset *start* those that the sieve lets through."""
    records, before, passed, next_ = list[StoredRecord](), list[int](), 0, start
    for offset, timestamp, key, value, headers in _rows(db, claim.topic, start, limit):
        next_ = offset + 1
        if may_be_ours(value, headers):
            records.append(StoredRecord(claim.topic, 0, offset, timestamp, key, value, headers))
            before.append(passed)
        else:
            passed += 1
    return Batch(claim, records, next_, passed, before)


def _rows(
    db: sqlite3.Connection, topic: str, start: int, limit: int, *, end: int | None = None, since: float | None = None
) -> Iterator[tuple[int, int, bytes | None, bytes | None, Headers]]:
    """Yield offset, timestamp, key, value and headers, until a page is full."""
    rows = db.execute(
        'SELECT "offset", timestamp, key, value, headers FROM records WHERE topic = ? AND "offset" >= ?'
        ' AND (? IS NULL OR "offset" < ?) AND (? IS NULL OR timestamp > ?) ORDER BY "offset" LIMIT ?',
        (topic, start, end, end, since, since, limit),
    )
    size = 0
    for offset, timestamp, key, value, headers in rows:
        yield offset, timestamp, key, value, _read(headers)
        size += len(value or b"")
        if size > PAGE_BYTES:
            rows.close()
            break


def last_of(db: sqlite3.Connection, topic: str, key: bytes) -> bytes | None:
    """Return the value of *key* in a compacted topic; None where it has none."""
    row = db.execute("SELECT value FROM records WHERE topic = ? AND key = ? AND compacted", (topic, key)).fetchone()
    return row[0] if row else None


def bounds(db: sqlite3.Connection, topic: str) -> tuple[int, int]:
    """Return the offset of the first record and the one after the last; 0 and 0 where there is none."""
    first = db.execute('SELECT min("offset") FROM records WHERE topic = ?', (topic,)).fetchone()[0]
    last = db.execute('SELECT max("offset") FROM records WHERE topic = ?', (topic,)).fetchone()[0]
    return (0, 0) if last is None else (first, last + 1)


def count(db: sqlite3.Connection, topic: str, first: int, end: int) -> int:
    """Return how many records of *topic* lie between two offsets, the second one left out."""
    query = 'SELECT count(*) FROM records WHERE topic = ? AND "offset" >= ? AND "offset" < ?'
    return int(db.execute(query, (topic, first, end)).fetchone()[0])


def end(db: sqlite3.Connection) -> int:
    """Return the offset that the next record has at least, of whichever topic."""
    row = db.execute("SELECT seq FROM sqlite_sequence WHERE name = 'records'").fetchone()
    return row[0] + 1 if row else 0


def back(db: sqlite3.Connection, topic: str, start: int, count: int) -> int:
    """Return the offset of the record *count* records before *start*; 0 where there are fewer."""
    row = db.execute(
        'SELECT "offset" FROM records WHERE topic = ? AND "offset" < ? ORDER BY "offset" DESC LIMIT 1 OFFSET ?',
        (topic, start, count - 1),
    ).fetchone()
    return int(row[0]) if row else 0


def time_at(db: sqlite3.Connection, topic: str, start: int) -> int | None:
    """Return the timestamp of the first record at *start* or after it."""
    row = db.execute(
        'SELECT timestamp FROM records WHERE topic = ? AND "offset" >= ? ORDER BY "offset" LIMIT 1', (topic, start)
    ).fetchone()
    return row[0] if row else None


def offset_since(db: sqlite3.Connection, topic: str, moment: float) -> int:
    """Return the first offset whose record is stamped at or after *moment* (Unix milliseconds). A binary search."""
    low, high = bounds(db, topic)
    while low < high:
        middle = (low + high) // 2
        stamped = time_at(db, topic, middle)
        if stamped is None or stamped >= moment:
            high = middle
        else:
            low = middle + 1
    return low


def committed(db: sqlite3.Connection, group: str, topic: str) -> Position | None:
    row = db.execute('SELECT next, mark FROM commits WHERE "group" = ? AND topic = ?', (group, topic)).fetchone()
    return Position(*row) if row else None


def commit(db: sqlite3.Connection, group: str, topic: str, position: Position) -> None:
    db.execute("REPLACE INTO commits VALUES (?, ?, ?, ?)", (group, topic, position.next, position.mark))


def prune(
    db: sqlite3.Connection,
    topic: str,
    before: float,
    *,
    source: str | None,
    group: str = "",
    tombstones: bool = False,
) -> bool:
    """Delete some of the oldest records of *topic* that are older than *before* (Unix milliseconds). True: there may be more.

    With a *source* topic it deletes only below the *group*'s commit of that topic: offsets are one sequence, so a tombstone
    there is about a source record that is not read again. With *tombstones* it deletes only records without a value.
    """
    end = None
    if source is not None:
        position = committed(db, group, source)
        end = 0 if position is None else position.next
    # Offsets and timestamps rise together: it is enough to look at the first ones, and the whole topic is never read.
    cursor = db.execute(
        'DELETE FROM records WHERE "offset" IN (SELECT "offset" FROM (SELECT "offset", timestamp FROM records'
        ' WHERE topic = ? AND (? IS NULL OR "offset" < ?) AND (NOT ? OR value IS NULL) ORDER BY "offset" LIMIT ?)'
        " WHERE timestamp < ?)",
        (topic, end, end, tombstones, _PRUNED_AT_ONCE, before),
    )
    return cursor.rowcount == _PRUNED_AT_ONCE


def _pragma(db: sqlite3.Connection, name: str) -> int:
    return int(db.execute(f"PRAGMA {name}").fetchone()[0])


def _written(headers: Headers) -> str | None:
    # Bytes that are no UTF-8 become lone surrogates, which JSON escapes: a person can read it, and nothing is lost.
    return json.dumps([(name, text.decode("utf-8", "surrogateescape")) for name, text in headers]) if headers else None


def _read(headers: str | None) -> Sequence[tuple[str, bytes]]:
    return [(name, text.encode("utf-8", "surrogateescape")) for name, text in json.loads(headers)] if headers else ()
