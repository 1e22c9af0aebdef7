"""A Delivery is one event for one handler: it is attempted, parked, dead-lettered and replayed.

Hides how deliveries, lanes and messages are named. `usher.delivery.headers` writes a delivery into a record and reads it back.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Protocol
from urllib.parse import quote, unquote

from usher.event import EventUid, idempotency_key
from usher.redact import holds_person

Headers = Sequence[tuple[str, bytes]]

OUR_HEADERS = ("usher-", "kafka_dlt-")
"""How the names of our own headers begin."""
BEFORE_ALL = 1 << 62
"""More than any offset: an offset less this is before all offsets, and still in order."""
_MAX_ID = 200
_MOST_DIGITS = 20
_FIRST_TIME, _AHEAD = 100_000_000_000, 366 * 86_400_000
"""Milliseconds: no time in milliseconds is before 1973, and none so far ahead of us."""
_PLAIN = re.compile(rf"[A-Za-z0-9_.~-]{{0,{_MAX_ID}}}").fullmatch


class Record(Protocol):
    """One record of an event log. *timestamp* is in Unix milliseconds. The ConsumerRecord of aiokafka is one as it is."""

    @property
    def topic(self) -> str: ...
    @property
    def partition(self) -> int: ...
    @property
    def offset(self) -> int: ...
    @property
    def timestamp(self) -> int: ...
    @property
    def key(self) -> bytes | None: ...
    @property
    def value(self) -> bytes | None: ...
    @property
    def headers(self) -> Headers: ...


class Unreadable(bytes):
    """The value of a record that is in its place and can't be read: it is empty, and says why."""

    reason: str

    def __new__(cls, reason: str) -> Unreadable:
        value = super().__new__(cls)
        value.reason = reason
        return value


@dataclass(slots=True)
class StoredRecord:
    """A `Record` that our own event logs make. A value, as `Delivery` is: a frozen one takes seven times as long to make."""

    topic: str
    partition: int
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: Headers = ()


@dataclass(slots=True)
class Origin:
    """The source record of a delivery, kept through every retry, dead letter and replay. A value, as `Delivery` is."""

    topic: str
    partition: int
    offset: int
    timestamp: int
    key: bytes | None
    headers: Headers = ()
    topic_id: str = ""
    """The id of the topic, which a topic made anew under the same name does not have; empty where it is not known."""

    @classmethod
    def of(cls, record: Record, now: int | None = None, topic_id: str = "") -> Origin:
        """Return the origin of a source record, without headers whose names are ours: others may not set these.

        A record without a time, or with one out of the range of dates, is of *now* (Unix milliseconds): when it has arrived.
        """
        kept = record.headers and tuple(
            (name, value) for name, value in record.headers if not name.startswith(OUR_HEADERS)
        )
        at = record.timestamp if now is None else stated_time(record.timestamp, now)
        return cls(record.topic, record.partition, record.offset, at, record.key, kept, topic_id)


@dataclass(frozen=True, slots=True)
class Replay:
    """The request of an operator to run a dead letter once more.

    *id* names the request, *dead_letter* the dead letter (``partition@offset`` of the dead-letter topic). *count* says how
    often this delivery has been replayed, this time included.
    """

    id: str
    dead_letter: str
    count: int
    even_expired: bool = False


@dataclass(slots=True)
class Delivery:
    """One event for one handler, with what is known of its attempts. A value: `replace` it, do not change it.

    *attempt* counts the attempts that were made. *lane* is the (source, tenant, user) part of its lane, as text. Times are
    in Unix milliseconds. *value* is the original bytes. *failed_at* is when its last attempt ended, by the clock that *due* is of.
    """

    handler: str
    uid: EventUid
    lane: str
    origin: Origin
    value: bytes
    attempt: int = 0
    due: int | None = None
    first_failed_at: int | None = None
    failed_at: int | None = None
    error: str = ""
    error_type: str = ""
    sent: bool = False
    replay: Replay | None = None
    replays: int = 0
    earlier: bool = False
    """Whether it is of an earlier topic of the same name: then it comes before everything in the present one."""
    _key: str = field(init=False, compare=False, repr=False, default="")
    lane_key: str = field(init=False, compare=False)
    """The lane: handler, source, tenant and user."""
    offset: int = field(init=False, compare=False)
    """It orders a lane: the source offset, or a negative number where the delivery is of an earlier topic."""

    def __post_init__(self) -> None:
        origin = self.origin
        self.offset = origin.offset - BEFORE_ALL if self.earlier else origin.offset
        self.lane_key = f"{self.handler}/{self.lane}"

    @property
    def key(self) -> str:
        """``handler/source/tenant/event-id@partition-offset``: unique, and the same after every restart."""
        if not self._key:  # most deliveries end without it
            self._key = delivery_key(self.handler, self.uid, self.origin.partition, self.origin.offset)
        return self._key

    @property
    def size(self) -> int:
        """About how many bytes it takes in memory, for the limits."""
        return len(self.value) + 512

    @property
    def idempotency_key(self) -> str:
        """The same key for every attempt, replay and second arrival of this event at this handler."""
        return idempotency_key(self.handler, self.uid)

    def failed(self, *, attempt: int, due: int | None, now: int, error: str, error_type: str) -> Delivery:
        """Return the delivery after a failed attempt, as it is to be parked."""
        first = self.first_failed_at if self.first_failed_at is not None else now
        return replace(
            self, attempt=attempt, due=due, first_failed_at=first, failed_at=now, error=error, error_type=error_type
        )


def stated_time(timestamp: int, now: int) -> int:
    """Return the time of a record, in Unix milliseconds; *now* where it has none (-1), or it is in seconds, micro- or nanoseconds."""
    return timestamp if _FIRST_TIME <= timestamp <= now + _AHEAD else now


def delivery_key(handler: str, uid: EventUid, partition: int, offset: int) -> str:
    """Return the key of a delivery in the retry topic: ``handler/source/tenant/event-id@partition-offset``.

    Parts are percent-quoted, so that a key can be taken apart. A very long id is replaced by its SHA-256.
    """
    source, tenant, event_id = uid
    return f"{handler}/{_scope(source, tenant)}/{_part(event_id)}@{partition}-{offset}"


def bounded(text: str) -> str:
    """Return *text*, or its SHA-256 where it is longer than any real id: it goes into keys and headers."""
    return text if len(text) <= _MAX_ID else _digest(text)


def opaque(text: str) -> str:
    """Return *text*, an id from outside, as it may stand in keys, headers and log lines.

    That is its SHA-256 where it is the address or number of a person, or `bounded`.
    """
    return _digest(text) if len(text) > _MAX_ID or holds_person(text) else text


def lane_of(source: str, tenant: str, user_id: str | None, otherwise: str) -> str:
    """Return the (source, tenant, user) part of a lane. An event without a user has its own lane, with the name *otherwise*."""
    scope = _scope(source, tenant)
    if not user_id:
        return f"{scope}//{otherwise}"
    return f"{scope}/{user_id if _PLAIN(user_id) else _part(opaque(user_id))}"  # what is plain is no address


def lane_in(text: str) -> str:
    """Return the lane that a header names. Earlier versions wrote a user's id there as it is."""
    if "%40" not in text and "%2B" not in text:
        return text
    source, tenant, user, *alone = text.split("/")
    return "/".join((source, tenant, _part(opaque(unquote(user))), *alone))


def offset_in(key: str) -> int:
    """Return the source offset in the key of a delivery; -1 where the key is of something else."""
    offset = key.rpartition("@")[2].partition("-")[2]
    return int(offset) if offset.isdecimal() and len(offset) < _MOST_DIGITS else -1


@lru_cache(maxsize=1024)
def _scope(source: str, tenant: str) -> str:
    return f"{_part(source)}/{_part(tenant)}"


def _part(text: str) -> str:
    """Return *text*, `bounded` and percent-quoted. The check before is four times as fast as quoting: this runs for each delivery."""
    return text if _PLAIN(text) else quote(bounded(text), safe="")


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
