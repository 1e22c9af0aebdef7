"""The parking table of one claim: an index of the retry partition, on disk, so that memory does not grow with it.

Hides a private temporary SQLite database, which is gone with the process: the retry partition is the truth. It finds the
first delivery of a lane, the deliveries that are due, and whether a delivery is parked.
"""

from __future__ import annotations

import marshal
import re
import sqlite3
import weakref
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

from usher.delivery import BEFORE_ALL, Delivery, Headers, Record, StoredRecord
from usher.headers import (
    ATTEMPT,
    DUE,
    EVENT_ID,
    FAILED_AT,
    FIRST_FAILED_AT,
    HANDLER,
    LANE,
    MOST_ATTEMPTS,
    ORIGINAL_OFFSET,
    ORIGINAL_PARTITION,
    ORIGINAL_TIMESTAMP,
    ORIGINAL_TOPIC,
    REPLAY,
    REPLAYS,
    Head,
    delivery_headers,
    read_delivery,
)

# The values are stored in the order in which they came, apart from the keys: to insert them in the order of keys takes twice as long.
_SCHEMA = """
CREATE TABLE parked (key TEXT NOT NULL, lane TEXT, offset INTEGER, attempt INTEGER, due INTEGER, since INTEGER,
                     taken INTEGER, value BLOB, headers BLOB);
CREATE UNIQUE INDEX by_key ON parked (key);
CREATE INDEX in_lane ON parked (lane, offset);
CREATE INDEX by_due ON parked (due) WHERE due IS NOT NULL AND NOT taken;
CREATE INDEX behind ON parked (lane) WHERE due IS NULL;
"""
_INSERT = "INSERT OR IGNORE INTO parked VALUES (?, ?, ?, ?, ?, ?, 0, ?, ?)"
_MERGE = """
INSERT INTO parked VALUES (?, ?, ?, ?, ?, ?, 0, ?, ?) ON CONFLICT (key) DO UPDATE SET lane = excluded.lane, offset = excluded.offset,
    attempt = excluded.attempt, due = excluded.due, since = excluded.since, taken = 0, value = excluded.value, headers = excluded.headers
"""
_BETTER = " WHERE (excluded.attempt, ifnull(excluded.due, 0)) >= (parked.attempt, ifnull(parked.due, 0))"
_REMOVE = "DELETE FROM parked WHERE key = ? AND offset < ?"
_NEXT_LANES = "SELECT DISTINCT lane FROM parked WHERE due IS NULL AND lane > ? ORDER BY lane LIMIT ?"
_DISTRUST = "UPDATE parked SET due = ? + max(due - since, 0), since = ? WHERE since > ? AND due IS NOT NULL"
_STEP = 500
_SLACK = 1_000
"""Milliseconds that the clocks of two workers may differ, and that a wait may be longer for it."""


_SLOTS = 1 << 21
_PLAIN = re.compile(r"[A-Za-z0-9_.~/-]*").fullmatch


class _MaybeLanes:
    """The lanes that may have something parked: a bit a lane, so that most fresh deliveries need no query. A no is certain."""

    def __init__(self) -> None:
        self._bits = bytearray(_SLOTS // 8)

    def add(self, lane: str) -> None:
        slot = hash(lane) % _SLOTS
        self._bits[slot >> 3] |= 1 << (slot & 7)

    def __contains__(self, lane: str) -> bool:
        slot = hash(lane) % _SLOTS
        return bool(self._bits[slot >> 3] & 1 << (slot & 7))


class Entry(NamedTuple):
    """The first delivery of a lane. *due* is in Unix milliseconds; None: as soon as it is the first."""

    key: str
    offset: int
    due: int | None


class ParkedRow(NamedTuple):
    """A row of the parking table. Times are in Unix milliseconds. *since* is when the wait for *due* began."""

    key: str
    lane_key: str
    offset: int
    attempt: int
    due: int | None
    since: int | None
    value: bytes
    headers: Headers

    @classmethod
    def of(cls, delivery: Delivery) -> ParkedRow:
        """Make the row of a delivery."""
        return cls(
            key=delivery.key,
            lane_key=delivery.lane_key,
            offset=delivery.offset,
            attempt=delivery.attempt,
            due=delivery.due,
            since=delivery.failed_at,
            value=delivery.value,
            headers=delivery_headers(delivery),
        )

    @classmethod
    def from_record(cls, record: Record, key: str, head: Head, *, earlier: bool = False) -> ParkedRow:
        """Make the row of a parked record with this key. `read_delivery` can read it later, and would take five times as long.

        *head* are its headers. *earlier*: it is of an earlier topic of the same name.

        Raises:
            ValueError: Usher did not write the record, or not under the key of the delivery in it.
        """
        handler, offset = head.text(HANDLER), head.integer(ORIGINAL_OFFSET)
        named = head.text(EVENT_ID)
        if key != f"{handler}/{named}@{head.integer(ORIGINAL_PARTITION)}-{offset}" or named.count("/") != 2:
            raise ValueError(f"its key is not the key of the delivery in it ({handler}, offset {offset})")
        odd = not _PLAIN(named) or head.get(REPLAY) is not None
        if odd and read_delivery(record).key != key:
            raise ValueError("its key is not written as Usher writes keys")
        head.text(ORIGINAL_TOPIC)
        head.integer(ORIGINAL_TIMESTAMP)
        head.integer(REPLAYS, 0)
        head.time(FIRST_FAILED_AT)
        since = head.time(FAILED_AT)
        return cls(
            key=key,
            lane_key=f"{handler}/{head.text(LANE)}",
            offset=offset - BEFORE_ALL if earlier else offset,
            attempt=head.integer(ATTEMPT, 0, most=MOST_ATTEMPTS),
            due=head.time(DUE),
            since=since if since is not None or record.timestamp <= 0 else record.timestamp,
            value=record.value or b"",
            headers=record.headers,
        )


DONE_EARLIER = ParkedRow("", "", -1, 0, None, None, b"", ())
"""In a change of the table: what has this key *and is of an earlier topic* is done."""


class ParkingTable:
    """Parked deliveries by key and by lane. Times are in Unix milliseconds; a lane is `Delivery.lane_key`."""

    def __init__(self) -> None:
        self._db = sqlite3.connect("", isolation_level=None)  # "": on disk, unnamed, deleted by the system
        self._db.executescript("PRAGMA journal_mode=OFF; PRAGMA synchronous=OFF; PRAGMA cache_size=-4096;" + _SCHEMA)
        self._count = 0
        self._lanes = _MaybeLanes()
        self.highest = -1
        """The highest source offset of all deliveries that were ever put, those of an earlier topic too."""
        self.soonest = 0.0
        """Nothing is due before this moment (Unix milliseconds). The driver moves it when it has looked at everything that is due."""
        self._latest = 0
        """No wait has begun after this moment."""
        self.close = weakref.finalize(self, self._db.close)
        """Give the disk space back. Also happens to a table without references. Safe to call twice."""

    def __len__(self) -> int:
        return self._count

    def __contains__(self, key: str) -> bool:
        return self._count > 0 and self._one("SELECT 1 FROM parked WHERE key = ?", key) is not None

    @contextmanager
    def bulk(self) -> Iterator[None]:
        """Make many changes in one transaction: that is faster."""
        self._db.execute("BEGIN")
        try:
            yield
        finally:
            self._db.execute("COMMIT")

    def put(self, delivery: Delivery) -> None:
        """Insert or replace."""
        self._write(_MERGE, [_stored(ParkedRow.of(delivery))])

    def merge(self, delivery: Delivery) -> None:
        """Put it, unless the table knows better. Of two writes about one delivery more attempts count, of equals the later due time."""
        self._write(_MERGE + _BETTER, [_stored(ParkedRow.of(delivery))])

    def fold(self, changes: Iterable[tuple[str, ParkedRow | None]]) -> None:
        """Apply many changes by key, in order: each row is merged, each None removes the key. One transaction.

        `DONE_EARLIER` removes what is of an earlier topic only.
        """
        removed: dict[str, int] = {}
        rows: dict[str, ParkedRow] = {}
        for key, row in changes:
            if row is None:
                rows.pop(key, None)
                removed[key] = BEFORE_ALL
            elif row is DONE_EARLIER:
                if (known := rows.get(key)) is None or known.offset < 0:
                    rows.pop(key, None)
                    removed.setdefault(key, 0)
            elif (known := rows.get(key)) is None or (row.attempt, row.due or 0) >= (known.attempt, known.due or 0):
                rows[key] = row
        with self.bulk():
            if removed and self._count:
                gone = self._db.executemany(_REMOVE, removed.items())
                self._count -= gone.rowcount
            if rows:
                self._write(_MERGE + _BETTER, [_stored(row) for row in rows.values()])

    def _write(self, replace: str, rows: Sequence[tuple[Any, ...]]) -> None:
        """Insert the rows that are new. Run *replace* where some are not."""
        for row in rows:
            self._lanes.add(row[1])
        self.highest = max([self.highest, *(row[2] if row[2] >= 0 else row[2] + BEFORE_ALL for row in rows)])
        self.soonest = min([self.soonest, *(row[4] for row in rows if row[4] is not None)])
        self._latest = max([self._latest, *(row[5] for row in rows if row[5] is not None)])
        new = self._db.executemany(_INSERT, rows).rowcount
        self._count += new
        if new < len(rows):
            self._db.executemany(replace, rows)

    def remove(self, key: str, *, earlier: bool = False) -> None:
        """Remove *key*. Does nothing where it is not known, or *earlier* and of the present topic."""
        if self._count:
            self._count -= self._db.execute(_REMOVE, (key, 0 if earlier else BEFORE_ALL)).rowcount
            if not self._count:
                self._lanes = _MaybeLanes()

    def holds_lane(self, lane: str) -> bool:
        """Return whether anything of this lane is parked."""
        return (
            self._count > 0
            and lane in self._lanes
            and self._one("SELECT 1 FROM parked WHERE lane = ? LIMIT 1", lane) is not None
        )

    def first(self, lane: str) -> Entry | None:
        """Return the parked delivery of the lane with the lowest source offset."""
        if not self._count or lane not in self._lanes:
            return None
        row = self._one("SELECT key, offset, due FROM parked WHERE lane = ? ORDER BY offset LIMIT 1", lane)
        return None if row is None else Entry(*row)

    def take(self, key: str) -> Delivery:
        """Return the delivery for an attempt. Until it is put again or removed, it does not count as due."""
        self._db.execute("UPDATE parked SET taken = 1 WHERE key = ?", (key,))
        return self._load(key)

    def postpone(self, key: str, due: int | None, now: int) -> None:
        """Change the due time here only: nothing is written to the event log."""
        self._db.execute("UPDATE parked SET due = ?, since = ?, taken = 0 WHERE key = ?", (due, now, key))
        self.soonest = self.soonest if due is None else min(self.soonest, due)
        self._latest = max(self._latest, now)

    def distrust(self, now: int) -> None:
        """Let no wait be longer from *now* on than it was when it began.

        One that began after now shows that a clock was wrong: then, or now. Waits that are cut this way may be early where the
        clock is wrong now; others would be late by as much as a clock can be wrong.
        """
        if self.soonest > now + _SLACK:  # nobody looks further ahead than that: the clock was set back
            self.soonest = 0.0
        if self._latest > now + _SLACK:
            self._db.execute(_DISTRUST, (now, now, now))
            self._latest, self.soonest = now, 0.0

    def due(self, now: int, before: int, limit: int) -> list[tuple[str, str, int]]:
        """Return (key, lane, bytes) of what is due at *now* and lies before source offset *before*, the most overdue first."""
        return self._db.execute(
            "SELECT key, lane, length(value) FROM parked WHERE due <= ? AND NOT taken AND offset < ? ORDER BY due LIMIT ?",
            (now, before, limit),
        ).fetchall()

    def next_due(self, after: int, before: int) -> int | None:
        """Return the earliest due time later than *after*, of what lies before source offset *before*."""
        return self._earliest("due > ? AND offset < ?", after, before)

    def oldest_due(self, before: int) -> int | None:
        """Return the earliest due time of what lies before source offset *before*."""
        return self._earliest("due IS NOT NULL AND offset < ?", before)

    def latest_due(self) -> int | None:
        """Return the latest due time."""
        row = self._one("SELECT due FROM parked WHERE NOT taken AND due IS NOT NULL ORDER BY due DESC LIMIT 1")
        return None if row is None else row[0]

    def lane_of(self, key: str) -> str | None:
        """Return the lane of a parked delivery."""
        row = self._one("SELECT lane FROM parked WHERE key = ?", key)
        return None if row is None else row[0]

    def free_heads(self, now: int) -> Iterator[None]:
        """Give the first of each lane a due time where it has none: what it waited behind is gone (rule 5). Some lanes a step."""
        lane = ""
        while lanes := self._db.execute(_NEXT_LANES, (lane, _STEP)).fetchall():
            with self.bulk():
                for (lane,) in lanes:
                    first = self.first(lane)
                    if first is not None and first.due is None:
                        self.postpone(first.key, now, now)
            yield

    def _earliest(self, condition: str, *values: int) -> int | None:
        if not self._count:
            return None
        query = f"SELECT due FROM parked WHERE NOT taken AND {condition} ORDER BY due LIMIT 1"  # noqa: S608 - the two above
        row = self._one(query, *values)
        return None if row is None else row[0]

    def _load(self, key: str) -> Delivery:
        query = "SELECT value, headers, offset FROM parked WHERE key = ?"
        value, headers, offset = self._db.execute(query, (key,)).fetchone()
        record = StoredRecord("", 0, 0, 0, None, value, marshal.loads(headers))  # noqa: S302 - our own
        return read_delivery(record, earlier=offset < 0)

    def _one(self, query: str, *values: object) -> tuple[Any, ...] | None:
        row: tuple[Any, ...] | None = self._db.execute(query, values).fetchone()
        return row


def _stored(row: ParkedRow) -> tuple[Any, ...]:
    return (*row[:-1], marshal.dumps(list(row.headers)))
