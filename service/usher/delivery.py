"""A Delivery is one event for one handler: what is attempted, parked, dead-lettered and replayed.

This module hides how a delivery is written into the retry and dead-letter topics and read back: keys, headers, units.
Header values are UTF-8 text. The originals carry the names that Spring Kafka uses (``kafka_dlt-*``), because the common
tools show those; the rest are ours (``usher-*``).
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import NamedTuple, Protocol
from urllib.parse import quote, unquote

from usher.event import EventUid

Headers = Sequence[tuple[str, bytes]]

HANDLER = "usher-handler"
EVENT_ID = "usher-event-id"
ATTEMPT = "usher-attempt"
DUE = "usher-due"
FIRST_FAILED_AT = "usher-first-failed-at"
LANE = "usher-lane"
SENT = "usher-sent"
WRITER = "usher-writer"
REASON = "usher-reason"
EXPIRES_AT = "usher-expires-at"
REPLAY = "usher-replay"
REPLAYS = "usher-replays"
DEAD_LETTER = "usher-dead-letter"
STATE = "usher-state"
EVEN_EXPIRED = "usher-even-expired"
ORIGINAL_KEY = "usher-original-key"
ORIGINAL_TOPIC = "kafka_dlt-original-topic"
ORIGINAL_PARTITION = "kafka_dlt-original-partition"
ORIGINAL_OFFSET = "kafka_dlt-original-offset"
ORIGINAL_TIMESTAMP = "kafka_dlt-original-timestamp"
ORIGINAL_GROUP = "kafka_dlt-original-consumer-group"
ERROR_TYPE = "kafka_dlt-exception-fqcn"
ERROR = "kafka_dlt-exception-message"

_OURS = ("usher-", "kafka_dlt-")
_MAX_ID = 200
_PLAIN = re.compile(r"[A-Za-z0-9_.~-]*").fullmatch


class Record(Protocol):
    """One record of a log. *timestamp* is in Unix milliseconds; aiokafka's ConsumerRecord is one as it is."""

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


@dataclass(frozen=True, slots=True)
class StoredRecord:
    """A `Record` that our own logs make."""

    topic: str
    partition: int
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: Headers = ()


@dataclass(slots=True)
class Origin:
    """Where the bytes of a delivery first lay: kept through every retry, dead letter and replay. A value, as `Delivery` is."""

    topic: str
    partition: int
    offset: int
    timestamp: int
    key: bytes | None
    headers: Headers = ()

    @classmethod
    def of(cls, record: Record) -> Origin:
        """The origin of a source record; headers in our own namespace are not taken from strangers."""
        kept = record.headers and tuple((name, value) for name, value in record.headers if not name.startswith(_OURS))
        return cls(record.topic, record.partition, record.offset, record.timestamp, record.key, kept)


@dataclass(frozen=True, slots=True)
class Replay:
    """An operator's request to run a dead letter once more.

    *id* names the request, *dead_letter* the dead letter (``partition@offset`` of the dead-letter topic), *count* how often
    this delivery has been replayed, this time included.
    """

    id: str
    dead_letter: str
    count: int
    even_expired: bool = False


@dataclass(slots=True)
class Delivery:
    """One event for one handler, with what is known of its attempts. A value: `replace` it, do not change it.

    *attempt* counts those that were made. *lane* is the (source, tenant, user) part of its lane, as text. Times are Unix
    milliseconds. *value* is the original bytes.
    """

    handler: str
    uid: EventUid
    lane: str
    origin: Origin
    value: bytes
    attempt: int = 0
    due: int | None = None
    first_failed_at: int | None = None
    error: str = ""
    error_type: str = ""
    sent: bool = False
    replay: Replay | None = None
    replays: int = 0
    key: str = field(init=False, compare=False)
    """``handler/source/tenant/event-id@partition-offset``: unique, and the same after every restart."""
    lane_key: str = field(init=False, compare=False)
    """The lane: handler, source, tenant and user."""
    offset: int = field(init=False, compare=False)
    """The source offset: what orders a lane."""

    def __post_init__(self) -> None:
        origin = self.origin
        self.offset = origin.offset
        self.key = delivery_key(self.handler, self.uid, origin.partition, origin.offset)
        self.lane_key = f"{self.handler}/{self.lane}"

    @property
    def size(self) -> int:
        """Bytes it holds in memory, for the limits."""
        return len(self.value) + 512

    @property
    def idempotency_key(self) -> str:
        """The same for every attempt, replay and second arrival of this event at this handler."""
        return idempotency_key(self.handler, self.uid)

    def failed(self, *, attempt: int, due: int | None, now: int, error: str, error_type: str) -> Delivery:
        """The delivery after a failed attempt, as it is to be parked."""
        first = self.first_failed_at if self.first_failed_at is not None else now
        return replace(self, attempt=attempt, due=due, first_failed_at=first, error=error, error_type=error_type)

    def headers(self) -> list[tuple[str, bytes]]:
        """The headers that `from_record` reads: the original ones, the origin, and the state of the attempts."""
        origin = self.origin
        pairs: list[tuple[str, str | int | None]] = [
            (ORIGINAL_TOPIC, origin.topic),
            (ORIGINAL_PARTITION, origin.partition),
            (ORIGINAL_OFFSET, origin.offset),
            (ORIGINAL_TIMESTAMP, origin.timestamp),
            (HANDLER, self.handler),
            (EVENT_ID, "/".join(quote(part, safe="") for part in self.uid)),
            (LANE, self.lane),
            (ATTEMPT, self.attempt),
            (DUE, self.due),
            (FIRST_FAILED_AT, self.first_failed_at),
            (SENT, 1 if self.sent else None),
            (REPLAYS, self.replays or None),
            (ERROR_TYPE, self.error_type or None),
            (ERROR, self.error or None),
        ]
        if self.replay is not None:
            pairs += [
                (REPLAY, self.replay.id),
                (DEAD_LETTER, self.replay.dead_letter),
                (EVEN_EXPIRED, 1 if self.replay.even_expired else None),
            ]
        ours = [(name, str(value).encode()) for name, value in pairs if value is not None]
        if origin.key is not None:
            ours.append((ORIGINAL_KEY, origin.key))
        return [*origin.headers, *ours]

    @classmethod
    def from_record(cls, record: Record) -> Delivery:
        """The delivery that `headers` and the value of a retry or dead-letter record describe.

        Raises:
            ValueError: the record was not written by Usher; the message names what is missing.
        """
        head = Head(record.headers)
        uid = EventUid(*head.parts(EVENT_ID, len(EventUid._fields)))
        origin = Origin(
            topic=head.text(ORIGINAL_TOPIC),
            partition=head.integer(ORIGINAL_PARTITION),
            offset=head.integer(ORIGINAL_OFFSET),
            timestamp=head.integer(ORIGINAL_TIMESTAMP),
            key=head.get(ORIGINAL_KEY),
            headers=tuple((name, value) for name, value in record.headers if not name.startswith(_OURS)),
        )
        replay_id, replays = head.get(REPLAY), head.integer(REPLAYS, 0)
        return cls(
            handler=head.text(HANDLER),
            uid=uid,
            lane=head.text(LANE),
            origin=origin,
            value=record.value or b"",
            attempt=head.integer(ATTEMPT, 0),
            due=head.integer(DUE) if head.get(DUE) else None,
            first_failed_at=head.integer(FIRST_FAILED_AT) if head.get(FIRST_FAILED_AT) else None,
            error=head.text(ERROR, ""),
            error_type=head.text(ERROR_TYPE, ""),
            sent=head.get(SENT) is not None,
            replays=replays,
            replay=None
            if replay_id is None
            else Replay(replay_id.decode(), head.text(DEAD_LETTER), replays, head.get(EVEN_EXPIRED) is not None),
        )


class ParkedRow(NamedTuple):
    """What a table of parked deliveries needs to know of one. *due* is in Unix milliseconds."""

    key: str
    lane_key: str
    offset: int
    attempt: int
    due: int | None
    value: bytes
    headers: Headers

    @classmethod
    def of(cls, delivery: Delivery) -> ParkedRow:
        """The row of a delivery."""
        return cls(
            delivery.key, delivery.lane_key, delivery.offset, delivery.attempt, delivery.due, delivery.value, delivery.headers()
        )  # fmt: skip

    @classmethod
    def from_record(cls, record: Record, key: str) -> ParkedRow:
        """The row of a parked record with this key, from which `Delivery.from_record` could be made: a fifth of the work of making it.

        Raises:
            ValueError: the record was not written by Usher, or not under the key of what is in it.
        """
        head = Head(record.headers)
        handler, offset = head.text(HANDLER), head.integer(ORIGINAL_OFFSET)
        named = head.text(EVENT_ID)
        if key != f"{handler}/{named}@{head.integer(ORIGINAL_PARTITION)}-{offset}" or named.count("/") != 2:
            raise ValueError(f"its key is not that of the delivery in it ({handler}, offset {offset})")
        head.text(ORIGINAL_TOPIC)
        head.integer(ORIGINAL_TIMESTAMP)
        head.integer(REPLAYS, 0)
        return cls(
            key=key,
            lane_key=f"{handler}/{head.text(LANE)}",
            offset=offset,
            attempt=head.integer(ATTEMPT, 0),
            due=head.integer(DUE) if head.get(DUE) else None,
            value=record.value or b"",
            headers=record.headers,
        )


@dataclass(slots=True)
class Head:
    """The headers of a record by name; the last of a name counts."""

    pairs: Iterable[tuple[str, bytes]]
    _found: dict[str, bytes] = field(init=False)

    def __post_init__(self) -> None:
        self._found = dict(self.pairs)

    def get(self, name: str) -> bytes | None:
        return self._found.get(name)

    def text(self, name: str, default: str | None = None) -> str:
        value = self._found.get(name)
        if value is None:
            if default is None:
                raise ValueError(f"the header {name!r} is missing: not written by Usher?")
            return default
        return value.decode("utf-8", "replace")

    def parts(self, name: str, count: int) -> list[str]:
        """The *count* percent-quoted parts of a header, which slashes divide."""
        parts = [unquote(part) for part in self.text(name).split("/")]
        if len(parts) != count:
            raise ValueError(f"the header {name!r} has {len(parts)} parts, and should have {count}")
        return parts

    def integer(self, name: str, default: int | None = None) -> int:
        if default is not None and name not in self._found:
            return default
        text = self.text(name)
        try:
            return int(text)
        except ValueError:
            raise ValueError(f"the header {name!r} is {text!r}, and should be a whole number") from None


def delivery_key(handler: str, uid: EventUid, partition: int, offset: int) -> str:
    """The key of a delivery in the retry topic: ``handler/source/tenant/event-id@partition-offset``.

    Parts are percent-quoted, and an id too long to be one is replaced by its SHA-256, so that a key can be taken apart.
    """
    source, tenant, event_id = uid
    return f"{handler}/{_scope(source, tenant)}/{_part(event_id)}@{partition}-{offset}"


def bounded(text: str) -> str:
    """*text*, or its SHA-256 where it is longer than anything that is meant as an id: it goes into keys and headers."""
    return text if len(text) <= _MAX_ID else _digest(text)


def idempotency_key(handler: str, uid: EventUid) -> str:
    """A short, stable name for the one message that *handler* sends about the event: fit for a file name or a header."""
    return f"{handler}-{_digest(chr(31).join(uid))[:32]}"


def lane_of(source: str, tenant: str, user_id: str | None, otherwise: str) -> str:
    """The (source, tenant, user) part of a lane. An event without a user has a lane of its own, named by *otherwise*."""
    scope = _scope(source, tenant)
    return f"{scope}/{_part(user_id)}" if user_id else f"{scope}//{otherwise}"


def offset_in(key: str) -> int:
    """The source offset in a delivery's key; -1 where it is not one."""
    tail = key.rpartition("@")[2].partition("-")[2]
    return int(tail) if tail.isdecimal() else -1


@lru_cache(maxsize=1024)
def _scope(source: str, tenant: str) -> str:
    return f"{_part(source)}/{_part(tenant)}"


def _part(text: str) -> str:
    return _quoted(bounded(text))


def _quoted(text: str) -> str:
    """*text* percent-quoted. Asking first whether it has to be is four times as fast, and this is done for each delivery."""
    return text if _PLAIN(text) else quote(text, safe="")


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
