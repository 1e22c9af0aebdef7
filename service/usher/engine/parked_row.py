"""A row of the parking table: what of a delivery is looked for, and its bytes. Hides how a record of the retry topic is checked."""

from __future__ import annotations

import re
from typing import NamedTuple

from usher.delivery import BEFORE_ALL, Delivery, Headers, Record
from usher.delivery.headers import (
    ATTEMPT,
    DUE,
    EVENT_ID,
    FAILED_AT,
    FIRST_FAILED_AT,
    HANDLER,
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

_PLAIN = re.compile(r"[A-Za-z0-9_.~/-]*").fullmatch


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
            lane_key=f"{handler}/{head.lane()}",
            offset=offset - BEFORE_ALL if earlier else offset,
            attempt=head.integer(ATTEMPT, 0, most=MOST_ATTEMPTS),
            due=head.time(DUE),
            since=since if since is not None or record.timestamp <= 0 else record.timestamp,
            value=record.value or b"",
            headers=record.headers,
        )


DONE_EARLIER = ParkedRow("", "", -1, 0, None, None, b"", ())
"""In a change of the table: what has this key *and is of an earlier topic* is done."""
