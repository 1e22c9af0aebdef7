"""How a delivery is written into the records of the retry and dead-letter topics, and read back. Hides names, units and encoding.

Header values are UTF-8 text. The headers about the original record have the names that Spring Kafka uses (``kafka_dlt-*``),
because the common tools show those. The others are our own (``usher-*``).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from urllib.parse import quote, unquote

from usher.delivery import OUR_HEADERS, Delivery, Origin, Record, Replay, lane_in
from usher.event import EventUid

TOPIC_ID = "usher-topic-id"
HANDLER = "usher-handler"
EVENT_ID = "usher-event-id"
ATTEMPT = "usher-attempt"
DUE = "usher-due"
FIRST_FAILED_AT = "usher-first-failed-at"
FAILED_AT = "usher-failed-at"
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
NOTE = "usher-note"
STUB = "usher-stub"
ORIGINAL_KEY = "usher-original-key"
ORIGINAL_TOPIC = "kafka_dlt-original-topic"
ORIGINAL_PARTITION = "kafka_dlt-original-partition"
ORIGINAL_OFFSET = "kafka_dlt-original-offset"
ORIGINAL_TIMESTAMP = "kafka_dlt-original-timestamp"
ORIGINAL_GROUP = "kafka_dlt-original-consumer-group"
ERROR_TYPE = "kafka_dlt-exception-fqcn"
ERROR = "kafka_dlt-exception-message"

LATEST = 253_402_300_799_999
"""The last millisecond that a date can name, in the year 9999: a later time is none."""
_MOST = 2**63 - 1
MOST_ATTEMPTS = 2**31 - 1
_WHOLE = re.compile(r"-?[0-9]{1,19}")
_SHOWN = 60


def delivery_headers(delivery: Delivery) -> list[tuple[str, bytes]]:
    """Return the headers that `read_delivery` reads: the original ones, the origin, and the state of the attempts."""
    origin = delivery.origin
    pairs: list[tuple[str, str | int | None]] = [
        (ORIGINAL_TOPIC, origin.topic),
        (ORIGINAL_PARTITION, origin.partition),
        (ORIGINAL_OFFSET, origin.offset),
        (ORIGINAL_TIMESTAMP, origin.timestamp),
        (TOPIC_ID, origin.topic_id or None),
        (HANDLER, delivery.handler),
        (EVENT_ID, "/".join(quote(part, safe="") for part in delivery.uid)),
        (LANE, delivery.lane),
        (ATTEMPT, delivery.attempt),
        (DUE, delivery.due),
        (FIRST_FAILED_AT, delivery.first_failed_at),
        (FAILED_AT, delivery.failed_at),
        (SENT, 1 if delivery.sent else None),
        (REPLAYS, delivery.replays or None),
        (ERROR_TYPE, delivery.error_type or None),
        (ERROR, delivery.error or None),
    ]
    if delivery.replay is not None:
        pairs += [
            (REPLAY, delivery.replay.id),
            (DEAD_LETTER, delivery.replay.dead_letter),
            (EVEN_EXPIRED, 1 if delivery.replay.even_expired else None),
        ]
    ours = [(name, str(value).encode()) for name, value in pairs if value is not None]
    if origin.key is not None:
        ours.append((ORIGINAL_KEY, origin.key))
    return [*origin.headers, *ours]


def owner_headers(group: str, topic: str, topic_id: str = "") -> list[tuple[str, bytes]]:
    """Return the headers that say whose record it is: of which *group*, about which source *topic*."""
    pairs = [(ORIGINAL_GROUP, group), (ORIGINAL_TOPIC, topic), (TOPIC_ID, topic_id)]
    return [(name, text.encode()) for name, text in pairs if text]


def foreign(head: Head, group: str, topic: str) -> str:
    """Name the group and the topic whose record it is, where they are not *group* and *topic*; empty if it is ours.

    Two groups may share topics of ours: those of group ``g`` for topic ``a.b`` have the names of those of ``g.a`` for ``b``.
    A record without a name is ours: earlier versions wrote tombstones without one, and parked records without the group.
    """
    its_group, its_topic = head.text(ORIGINAL_GROUP, group), head.text(ORIGINAL_TOPIC, topic)
    return "" if (its_group, its_topic) == (group, topic) else f"group {its_group}, topic {its_topic}"


def ours(records: Iterable[Record], group: str, topic: str) -> Iterator[Record]:
    """Leave out the records of other groups and topics."""
    return (record for record in records if not foreign(Head(record.headers), group, topic))


def read_delivery(record: Record, *, earlier: bool = False) -> Delivery:
    """Read the delivery in a record of a retry or dead-letter topic. *earlier*: it is of an earlier topic of the same name.

    Raises:
        ValueError: Usher did not write the record. The message names what is missing.
    """
    head = Head(record.headers)
    uid = EventUid(*head.parts(EVENT_ID, len(EventUid._fields)))
    origin = Origin(
        topic=head.text(ORIGINAL_TOPIC),
        partition=head.integer(ORIGINAL_PARTITION),
        offset=head.integer(ORIGINAL_OFFSET),
        timestamp=head.integer(ORIGINAL_TIMESTAMP),
        key=head.get(ORIGINAL_KEY),
        headers=tuple((name, value) for name, value in record.headers if not name.startswith(OUR_HEADERS)),
        topic_id=head.text(TOPIC_ID, ""),
    )
    replay_id, replays = head.get(REPLAY), head.integer(REPLAYS, 0)
    return Delivery(
        handler=head.text(HANDLER),
        uid=uid,
        lane=head.lane(),
        origin=origin,
        value=record.value or b"",
        attempt=head.integer(ATTEMPT, 0, most=MOST_ATTEMPTS),
        due=head.time(DUE),
        first_failed_at=head.time(FIRST_FAILED_AT),
        failed_at=head.time(FAILED_AT),
        error=head.text(ERROR, ""),
        error_type=head.text(ERROR_TYPE, ""),
        sent=head.get(SENT) is not None,
        replays=replays,
        earlier=earlier,
        replay=None
        if replay_id is None
        else Replay(replay_id.decode(), head.text(DEAD_LETTER), replays, head.get(EVEN_EXPIRED) is not None),
    )


class OddHeader(ValueError):
    """A header of ours that holds what Usher does not write: the record is a foreign one."""


@dataclass(slots=True)
class Head:
    """The headers of a record by name. Of several with one name the last counts."""

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

    def lane(self) -> str:
        return lane_in(self.text(LANE))

    def parts(self, name: str, count: int) -> list[str]:
        """Return the *count* percent-quoted parts of a header, which slashes divide."""
        parts = [unquote(part) for part in self.text(name).split("/")]
        if len(parts) != count:
            raise ValueError(f"the header {name!r} has {len(parts)} parts, and should have {count}")
        return parts

    def integer(self, name: str, default: int | None = None, *, most: int = _MOST) -> int:
        """Return a header as a whole number. What is above *most*, or far below zero, nobody meant: it can't be stored either."""
        if default is not None and name not in self._found:
            return default
        text = self.text(name)
        number = int(text) if _WHOLE.fullmatch(text) else most + 1
        if not -_MOST <= number <= most:
            raise OddHeader(f"the header {name!r} is {text[:_SHOWN]!r}, and should be a whole number up to {most}")
        return number

    def time(self, name: str) -> int | None:
        """Return a header as a time in Unix milliseconds; None where it is missing or empty."""
        return self.integer(name, most=LATEST) if self._found.get(name) else None
