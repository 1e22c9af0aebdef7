"""The topics of the embedded log: which are compacted, how long each keeps records, the largest record, a group's start."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Mapping
from functools import partial

from usher.delivery import Headers
from usher.eventlog.errors import TooLarge
from usher.eventlog.port import Claim, LogConfig, Position, checkpoints_topic, dead_letter_topic, retry_topic
from usher.eventlog.sqlite import tables
from usher.eventlog.sqlite.file import Job

MAX_BYTES = 1_048_576
"""The limit of Kafka by default: records that are larger could not be moved there."""
PAGE = 500
"""How many records a stream delivers at once, at most."""


class SqliteTopics:
    """The topics of a config, as jobs for the writing thread."""

    def __init__(self, config: LogConfig, clock: Callable[[], float]) -> None:
        self._group = config.group
        self._sources = config.topics
        self._compacted = {retry_topic(config.group, topic) for topic in config.topics} | {
            checkpoints_topic(config.group)
        }
        self._clock = clock

    def put(self, topic: str, key: bytes | None, value: bytes | None, headers: Headers) -> Job[int]:
        """Return the job that appends a record. The record is stamped when it is written.

        Raises:
            TooLarge
        """
        size = len(key or b"") + len(value or b"") + sum(len(name) + len(text) for name, text in headers)
        if size > MAX_BYTES:
            raise TooLarge(f"a record for {topic} has {size:,} bytes: the limit is {MAX_BYTES:,}")
        compacted = topic in self._compacted

        def job(db: sqlite3.Connection) -> int:
            now = int(self._clock() * 1000)
            return tables.insert(db, topic, timestamp=now, key=key, value=value, headers=headers, compacted=compacted)

        return job

    def start(self, db: sqlite3.Connection) -> dict[str, Position]:
        """Return what the group has committed for each source topic. Where there is nothing, commit the beginning of the topic."""
        positions = {}
        for topic in self._sources:
            position = tables.committed(db, self._group, topic)
            if position is None:
                position = Position(tables.bounds(db, topic)[0])
                tables.commit(db, self._group, topic, position)
            positions[topic] = position
        return positions

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
