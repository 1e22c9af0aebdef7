"""Dead letters, what became of them, and the requests of operators. Hides how they are written, and read back.

The dead-letter topic is a journal. A record with the header ``usher-reason`` is a dead letter: the original bytes, key and
headers, and why it was given up. A record with ``usher-state`` (and no value) says what became of the dead letter that
``usher-dead-letter`` names (``partition@offset`` in that topic). A dead letter of a failed replay names in the same header
the one that it replaces. A request to replay is a record in the retry topic under ``replay/<id>``. It stays there until the
worker has answered it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Literal, get_args

from usher.delivery import Delivery, Origin, Record, Replay
from usher.delivery.headers import (
    DEAD_LETTER,
    EXPIRES_AT,
    NOTE,
    ORIGINAL_GROUP,
    REASON,
    REPLAY,
    REPLAYS,
    STATE,
    Head,
    OddHeader,
    delivery_headers,
    owner_headers,
    read_delivery,
)
from usher.event import EventUid
from usher.redact import scrub

UNDECODABLE = "undecodable"
EXPIRED = "expired"
HANDLER_GONE = "handler-gone"
TOO_LARGE = "too-large"
CRASHED = "crashed-the-worker"
REQUEST_PREFIX = "replay/"
MAX_REPLAYS = 5
"""How often one delivery may be replayed. After that its cause must be mended first, or the dead letter dropped."""

State = Literal["open", "requested", "replayed", "replaced", "dropped", "refused", "foreign"]
"""``open``: nothing happened yet. ``requested``: a replay is under way. ``replayed``: it worked. ``replaced``: it failed,
and a newer dead letter says how. ``dropped``: by an operator. ``refused``: the worker refused to replay it (still open).
``foreign``: Usher did not write it like this, so it can't be replayed."""
OPEN_STATES: frozenset[State] = frozenset({"open", "refused"})
LISTED_STATES: frozenset[State] = OPEN_STATES | {"foreign"}
"""What an operator has to look at."""


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """One dead letter as an operator sees it. Times are in Unix milliseconds; *note* explains *state*."""

    id: str
    partition: int
    offset: int
    at: int
    reason: str
    delivery: Delivery
    expires_at: int | None
    group: str
    state: State = "open"
    note: str = ""

    @property
    def handler(self) -> str:
        """The handler that failed; empty for bytes that no handler has seen."""
        return self.delivery.handler

    def expired(self, now: int) -> bool:
        """Return whether at *now* (Unix milliseconds) it is too late to send it."""
        return self.expires_at is not None and self.expires_at < now


def dead_letter_id(partition: int, offset: int) -> str:
    return f"{partition}@{offset}"


def undecodable(record: Record, reason: str, topic_id: str = "") -> Delivery:
    """Return the delivery that stands for bytes that are no event: it has no handler and no user."""
    origin, value = Origin.of(record, topic_id=topic_id), b"" if record.value is None else record.value
    return not_an_event(Delivery("", EventUid("", "", ""), "", origin, value), reason)


def not_an_event(delivery: Delivery, reason: str) -> Delivery:
    """Return *delivery* with the error that its bytes are no event."""
    return replace(delivery, error=scrub(reason), error_type="usher.event.Undecodable")


def dead_letter_headers(
    delivery: Delivery, *, reason: str, group: str, expires_at: int | None
) -> list[tuple[str, bytes]]:
    """Return the headers of the dead letter of *delivery*."""
    extra: list[tuple[str, str]] = [(REASON, reason), (ORIGINAL_GROUP, group)]
    if expires_at is not None:
        extra.append((EXPIRES_AT, str(expires_at)))
    return [*delivery_headers(delivery), *((name, value.encode()) for name, value in extra)]


def state_headers(
    dead_letter: str, state: State, *, group: str, topic: str, note: str = "", replay: str = ""
) -> list[tuple[str, bytes]]:
    """Return the headers of the record that says what became of *dead_letter*, of *group* and about the source *topic*."""
    pairs = [(DEAD_LETTER, dead_letter), (STATE, state), (NOTE, note), (REPLAY, replay)]
    return [*owner_headers(group, topic), *((name, value.encode()) for name, value in pairs if value)]


def request(
    dead_letter: DeadLetter, *, request_id: str, even_expired: bool = False
) -> tuple[str, bytes, list[tuple[str, bytes]]]:
    """Return key, value and headers of the record in the retry topic that asks the worker to replay *dead_letter*."""
    count = dead_letter.delivery.replays + 1
    delivery = replace(
        dead_letter.delivery,
        due=None,
        attempt=0,
        replays=count,
        replay=Replay(id=request_id, dead_letter=dead_letter.id, count=count, even_expired=even_expired),
    )
    headers = [*delivery_headers(delivery), (ORIGINAL_GROUP, dead_letter.group.encode())]
    return request_key(request_id), delivery.value, headers


def request_key(request_id: str) -> str:
    return REQUEST_PREFIX + request_id


def fold(records: Iterable[Record], into: dict[str, DeadLetter]) -> None:
    """Apply the records of one dead-letter topic, in offset order per partition, to the dead letters known so far, by id.

    Records that Usher did not write are passed over.
    """
    for record in records:
        head = Head(record.headers)
        about = head.text(DEAD_LETTER, "")
        if (state := head.text(STATE, "")) and (known := into.get(about)):
            into[about] = replace(known, state=_state(state), note=head.text(NOTE, ""))
        elif head.get(REASON) is not None:
            if (old := into.get(about)) is not None:
                into[about] = replace(
                    old, state="replaced", note=f"by {dead_letter_id(record.partition, record.offset)}"
                )
            _add(record, head, into)


def mark_requested(requests: Iterable[Delivery], dead_letters: dict[str, DeadLetter]) -> None:
    """Set the state of the dead letters whose replay was requested and is not answered yet."""
    for delivery in requests:
        if delivery.replay is not None and (dead_letter := dead_letters.get(delivery.replay.dead_letter)) is not None:
            dead_letters[dead_letter.id] = replace(dead_letter, state="requested", note=f"replay {delivery.replay.id}")


def pending_requests(records: Iterable[Record]) -> Mapping[str, Delivery]:
    """Return the unanswered requests in the records of a retry partition, by request id."""
    pending: dict[str, Delivery] = {}
    for record in records:
        key = (record.key or b"").decode("utf-8", "replace")
        if not key.startswith(REQUEST_PREFIX):
            continue
        if record.value is None:
            pending.pop(key.removeprefix(REQUEST_PREFIX), None)
        else:
            with contextlib.suppress(ValueError):  # a foreign record: no worker carries it out either
                pending[key.removeprefix(REQUEST_PREFIX)] = read_delivery(record)
    return pending


def _add(record: Record, head: Head, into: dict[str, DeadLetter]) -> None:
    try:
        delivery, replays, expires_at = read_delivery(record), head.integer(REPLAYS, 0), head.time(EXPIRES_AT)
        state: State = "open"
        note = ""
    except OddHeader as error:
        delivery, replays, expires_at, state = undecodable(record, str(error)), 0, None, "foreign"
        note = str(error)  # as it is: it is the number that an operator has to see
    except ValueError:
        return
    id_ = dead_letter_id(record.partition, record.offset)
    into[id_] = DeadLetter(
        id=id_,
        partition=record.partition,
        offset=record.offset,
        at=record.timestamp,
        reason=head.text(REASON),
        delivery=replace(delivery, replay=None, replays=replays),
        expires_at=expires_at,
        group=head.text(ORIGINAL_GROUP, ""),
        state=state,
        note=note,
    )


def _state(text: str) -> State:
    known: tuple[State, ...] = get_args(State)
    return next((state for state in known if state == text), "open")
