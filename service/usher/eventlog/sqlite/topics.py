"""The topics of the embedded log: which are compacted, how long each keeps records, the largest record, a group's start and notes."""

from __future__ import annotations

import secrets
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial

from usher.delivery import Headers
from usher.eventlog.browse import ReceiptsState
from usher.eventlog.errors import TooLarge
from usher.eventlog.names import checkpoints_topic, dead_letter_topic, receipts_topic, retry_topic
from usher.eventlog.notes import GroupStart, Notes, new_key
from usher.eventlog.port import Claim, LogConfig, Position, TopicPartition
from usher.eventlog.sqlite import tables
from usher.eventlog.sqlite.file import Job

MAX_BYTES = 1_048_576
"""The limit of Kafka by default: records that are larger could not be moved there."""
PAGE = 500
"""How many records a stream delivers at once, at most."""
_ID = b"receipts-id"
"""The key of what stands for a topic's id: another file has another one."""
_EVERYTHING = 2**31


class SqliteTopics:
    """The topics of a config, as jobs for the writing thread."""

    def __init__(self, config: LogConfig, clock: Callable[[], float]) -> None:
        self._group = config.group
        self._sources = config.topics
        self._keep = config.keep
        self._compacted = {retry_topic(config.group, topic) for topic in config.topics} | {
            checkpoints_topic(config.group)
        }
        self._notes, self.receipts = checkpoints_topic(config.group), receipts_topic(config.group)
        self._clock = clock

    def put(self, topic: str, key: bytes | None, value: bytes | None, headers: Headers) -> Job[int]:
        """Return the job that appends a record. The record is stamped when it is written.

        Raises:
            TooLarge
        """
        size = len(key or b"") + len(value or b"") + sum(len(name) + len(text) for name, text in headers)
        if size > MAX_BYTES:
            raise TooLarge(f"a record for {topic} has {size:,} bytes: the limit is {MAX_BYTES:,}")
        return partial(self._insert, topic=topic, key=key, value=value, headers=headers)

    def _insert(
        self, db: sqlite3.Connection, topic: str, key: bytes | None, value: bytes | None, headers: Headers = ()
    ) -> int:
        now, compacted = int(self._clock() * 1000), topic in self._compacted
        return tables.insert(db, topic, timestamp=now, key=key, value=value, headers=headers, compacted=compacted)

    def file(self, values: Sequence[bytes]) -> Job[None]:
        """Return the job that appends *values* to the receipts.

        Raises:
            TooLarge
        """
        jobs = [self.put(self.receipts, None, value, ()) for value in values]

        def job(db: sqlite3.Connection) -> None:
            for each in jobs:
                each(db)

        return job

    def start(self, db: sqlite3.Connection) -> dict[str, Position]:
        """Return what the group has committed for each source topic. Where there is nothing, commit the beginning of the topic."""
        if tables.last_of(db, self._notes, _ID) is None:
            self._insert(db, self._notes, _ID, secrets.token_hex(8).encode())
        positions = {}
        for topic in self._sources:
            position = tables.committed(db, self._group, topic)
            if position is None:
                position = Position(tables.bounds(db, topic)[0])
                tables.commit(db, self._group, topic, position)
                start = GroupStart("", position.next, int(self._clock() * 1000))
                self._insert(db, self._notes, *start.record(TopicPartition(topic, 0)))
            positions[topic] = position
        return positions

    def notes(self, db: sqlite3.Connection) -> Notes:
        """Return what the group has noted about itself."""
        notes = Notes(self._group)
        notes.take(tables.page(db, self._notes, 0, _EVERYTHING))
        return notes

    def address_key(self, db: sqlite3.Connection) -> bytes:
        """Return the group's key for the HMAC of addresses. Write one where there is none."""
        while (key := self.notes(db).address_key) is None:
            self._insert(db, self._notes, *new_key())
        return key

    def receipts_state(self, db: sqlite3.Connection) -> ReceiptsState:
        """Return where the receipts lie. The offset after the last one is never less than it was, whatever was deleted."""
        first, end = tables.bounds(db, self.receipts)
        id_ = tables.last_of(db, self._notes, _ID) or b""
        return ReceiptsState(id_.decode(), {0: (first, end) if end else (tables.end(db),) * 2})

    def commit(self, db: sqlite3.Connection, positions: Mapping[Claim, Position]) -> None:
        for claim, position in positions.items():
            tables.commit(db, self._group, claim.topic, position)

    def prunes(self, read: float, dead: float, done: float) -> Iterator[Job[bool]]:
        """Return the jobs that delete old records; each is to be repeated while it returns True.

        *read*, *dead* and *done*: the Unix seconds before which source records, dead letters and tombstones are deleted.
        """
        for topic in self._sources:
            passed = partial(tables.prune, group=self._group, source=topic)
            yield partial(passed, topic=topic, before=read * 1000)
            yield partial(passed, topic=retry_topic(self._group, topic), before=done * 1000, tombstones=True)
            yield partial(tables.prune, topic=dead_letter_topic(self._group, topic), before=dead * 1000, source=None)
        kept = self._clock() - self._keep
        yield partial(tables.prune, topic=self.receipts, before=kept * 1000, source=None)
