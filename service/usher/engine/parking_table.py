"""The parking table of one claim: an index of the retry partition, on disk, so that memory does not grow with it.

It finds the first delivery of a lane, the deliveries that are due, and whether a delivery is parked. What asks it raises
`IndexLost` where the disk refuses: then the claim makes another one from the retry partition, which is the truth.
"""

from __future__ import annotations

import marshal
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, NamedTuple

from usher.delivery import BEFORE_ALL, Delivery, StoredRecord
from usher.delivery.headers import read_delivery
from usher.engine.index_file import IndexFile, IndexLost
from usher.engine.parked_row import DONE_EARLIER, ParkedRow

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


class ParkingTable:
    """Parked deliveries by key and by lane. Times are in Unix milliseconds; a lane is `Delivery.lane_key`."""

    def __init__(self) -> None:
        self.file = IndexFile(_SCHEMA)
        self._count = 0
        self._lanes = _MaybeLanes()
        self.highest = -1
        """The highest source offset of all deliveries that were ever put, those of an earlier topic too."""
        self.soonest = 0.0
        """Nothing is due before this moment (Unix milliseconds). The driver moves it when it has looked at everything that is due."""
        self._latest = 0
        """No wait has begun after this moment."""
        self._gone: dict[str, int] | None = {}
        """What was removed while the table is being loaded, and the offset that it was below: older records of it may still come."""
        self.close = self.file.close

    @property
    def usable(self) -> bool:
        """Whether it is loaded, and not lost: until then, or from then on, nothing may begin."""
        return self._gone is None and not self.file.why_lost

    def loaded(self) -> None:
        """All records of the retry partition are in it."""
        self._gone = None

    def __len__(self) -> int:
        return self._count

    def __contains__(self, key: str) -> bool:
        return self._count > 0 and self._one("SELECT 1 FROM parked WHERE key = ?", key) is not None

    @contextmanager
    def bulk(self) -> Iterator[None]:
        """Make many changes in one transaction: that is faster."""
        self.file.change("BEGIN")
        try:
            yield
        finally:
            if not self.file.why_lost:
                self.file.change("COMMIT")

    def put(self, delivery: Delivery) -> None:
        """Insert or replace. Does nothing where the table is lost: the record is in the retry partition."""
        with suppress(IndexLost):
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
        for key, before in (self._gone or {}).items():
            if (known := rows.get(key)) is not None and known.offset < before:
                del rows[key]
        with self.bulk():
            if removed and self._count:
                self._count -= self.file.change_many(_REMOVE, list(removed.items()))
            if rows:
                self._write(_MERGE + _BETTER, [_stored(row) for row in rows.values()])

    def _write(self, replace: str, rows: Sequence[tuple[Any, ...]]) -> None:
        """Insert the rows that are new. Run *replace* where some are not."""
        for row in rows:
            self._lanes.add(row[1])
        self.highest = max([self.highest, *(row[2] if row[2] >= 0 else row[2] + BEFORE_ALL for row in rows)])
        self.soonest = min([self.soonest, *(row[4] for row in rows if row[4] is not None)])
        self._latest = max([self._latest, *(row[5] for row in rows if row[5] is not None)])
        new = self.file.change_many(_INSERT, rows)
        self._count += new
        if new < len(rows):
            self.file.change_many(replace, rows)

    def remove(self, key: str, *, earlier: bool = False) -> None:
        """Remove *key*. Does nothing where it is not known, or *earlier* and of the present topic.

        Nor where the table is lost: the tombstone is in the retry partition.
        """
        before = 0 if earlier else BEFORE_ALL
        if self._gone is not None:
            self._gone[key] = max(before, self._gone.get(key, 0))
        with suppress(IndexLost):
            if self._count:
                self._count -= self.file.change(_REMOVE, key, before)
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
        self.file.change("UPDATE parked SET taken = 1 WHERE key = ?", key)
        return self._load(key)

    def postpone(self, key: str, due: int | None, now: int) -> None:
        """Change the due time here only: nothing is written to the event log."""
        with suppress(IndexLost):
            self.file.change("UPDATE parked SET due = ?, since = ?, taken = 0 WHERE key = ?", due, now, key)
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
            self.file.change(_DISTRUST, now, now, now)
            self._latest, self.soonest = now, 0.0

    def due(self, now: int, before: int, limit: int) -> list[tuple[str, str, int]]:
        """Return (key, lane, bytes) of what is due at *now* and lies before source offset *before*, the most overdue first."""
        return self.file.rows(
            "SELECT key, lane, length(value) FROM parked WHERE due <= ? AND NOT taken AND offset < ? ORDER BY due LIMIT ?",
            now,
            before,
            limit,
        )

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
        while lanes := self.file.rows(_NEXT_LANES, lane, _STEP):
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
        ((value, headers, offset),) = self.file.rows(query, key)
        record = StoredRecord("", 0, 0, 0, None, value, marshal.loads(headers))  # noqa: S302 - our own
        return read_delivery(record, earlier=offset < 0)

    def _one(self, query: str, *values: object) -> tuple[Any, ...] | None:
        rows = self.file.rows(query, *values)
        return rows[0] if rows else None


def _stored(row: ParkedRow) -> tuple[Any, ...]:
    return (*row[:-1], marshal.dumps(list(row.headers)))
