"""What a group notes about itself in its topic of checkpoints: where it began to read, and its key for the HMAC of addresses.

Hides how that is written. Others may write to the topic too: what is not as Usher writes it, or of another group, says nothing.
"""

from __future__ import annotations

import base64
import json
import re
import secrets
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from usher.delivery import Record
from usher.delivery.headers import LATEST, ORIGINAL_GROUP, Head
from usher.eventlog.port import TopicPartition

KEY_BYTES: Final = 32
_KEY: Final = b"key/"
_START: Final = "start/"
_NAME: Final = re.compile(rf"{_START}(.+)/([0-9]{{1,9}})", re.DOTALL)
_MOST: Final = 2**63 - 1

NoteRecord = tuple[bytes, bytes]
"""The key and the value of a record."""


class GroupStart(NamedTuple):
    """Where a group began to read a partition. *at* is when it did, in Unix milliseconds.

    *topic_id* is that of the topic; empty where the event log gives none. What lies before *offset* in it the group never reads.
    """

    topic_id: str
    offset: int
    at: int

    def record(self, of: TopicPartition) -> NoteRecord:
        """Return the key and the value of the record that notes the start *of* a partition."""
        return f"{_START}{of.topic}/{of.partition}".encode(), json.dumps(self._asdict()).encode()

    @classmethod
    def decode(cls, text: bytes) -> GroupStart | None:
        """Read one. None where *text* is something else."""
        try:
            found = json.loads(text)
            start = cls(found["topic_id"], found["offset"], found["at"])
        except (ValueError, TypeError, KeyError, RecursionError):
            return None
        plain = type(start.topic_id) is str and type(start.offset) is int and type(start.at) is int
        return start if plain and 0 <= start.offset <= _MOST and 0 <= start.at <= LATEST else None


def new_key() -> NoteRecord:
    """Make a key, as a record. Each has a name of its own, so that compaction keeps them all and the first one counts."""
    return key_record(secrets.token_bytes(KEY_BYTES))


def key_record(secret: bytes) -> NoteRecord:
    """Return the key and the value of a record that notes *secret*."""
    return _KEY + secrets.token_hex(8).encode(), base64.b64encode(secret)


@dataclass(slots=True)
class Notes:
    """The notes of *group*, as far as its records were taken."""

    group: str
    starts: dict[TopicPartition, GroupStart] = field(default_factory=dict)
    address_key: bytes | None = None
    _key_at: int = _MOST

    def take(self, records: Iterable[Record]) -> None:
        """Take records of the topic of checkpoints. Each partition's last start counts, and the first key."""
        for record in records:
            if record.key and Head(record.headers).text(ORIGINAL_GROUP, self.group) == self.group:
                if record.key.startswith(_KEY):
                    self._take_key(record)
                elif match := _NAME.fullmatch(record.key.decode("utf-8", "replace")):
                    self._take_start(TopicPartition(match[1], int(match[2])), record.value)

    def _take_key(self, record: Record) -> None:
        try:
            secret = base64.b64decode(record.value or b"", validate=True)
        except ValueError:
            return
        if len(secret) == KEY_BYTES and record.offset < self._key_at:
            self.address_key, self._key_at = secret, record.offset

    def _take_start(self, partition: TopicPartition, value: bytes | None) -> None:
        if value is None:
            self.starts.pop(partition, None)
        elif (start := GroupStart.decode(value)) is not None:
            self.starts[partition] = start
