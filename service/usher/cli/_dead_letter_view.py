"""How a dead letter is shown: its topic partition, its failure and its event. A person's address is masked."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime

from usher.engine.dead_letters import DeadLetter
from usher.operate.dead_letters import DeadLetterEntry, event_in, masked
from usher.redact import without_secrets
from usher.terminal import iso

COLUMNS = ("id", "when", "handler", "reason", "event", "attempts", "replays", "state", "error")


def row(entry: DeadLetterEntry, now: int) -> dict[str, object]:
    """Return the fields of `dlq list --json`; times are ISO 8601 in UTC. *now* is in Unix milliseconds."""
    dead_letter, delivery = entry.dead_letter, entry.dead_letter.delivery
    source, tenant, event_id = delivery.uid
    return {
        "id": entry.name,
        "at": iso(dead_letter.at),
        "handler": dead_letter.handler,
        "reason": dead_letter.reason,
        "error": without_secrets(delivery.error),
        "error_type": delivery.error_type,
        "event_id": event_id,
        "source": source,
        "tenant": tenant,
        "attempts": delivery.attempt,
        "replays": delivery.replays,
        "expired": dead_letter.expired(now),
        "state": dead_letter.state,
        "note": dead_letter.note,
        "topic": entry.topic,
        "partition": delivery.origin.partition,
        "offset": delivery.origin.offset,
    }


def cells(fields: Mapping[str, object]) -> list[object]:
    """Return the cells under `COLUMNS` for the *fields* that `row` gives."""
    state = f"{fields['state']}, expired" if fields["expired"] else fields["state"]
    when = str(fields["at"])[5:16].replace("T", " ")  # without the year: topics keep dead letters for months
    handler, event = fields["handler"] or "(none)", fields["event_id"] or f"at {fields['partition']}@{fields['offset']}"
    return [
        fields["id"],
        when,
        handler,
        fields["reason"],
        event,
        fields["attempts"],
        fields["replays"],
        state,
        fields["error"],
    ]


def details(dead_letter: DeadLetter, *, payload: bool) -> dict[str, object]:
    """Return the fields that `dlq show` adds to `row`; *payload*: also the original bytes, as text."""
    delivery = dead_letter.delivery
    shown: dict[str, object] = {
        "stored_at": iso(delivery.origin.timestamp),
        "first_failed_at": None if delivery.first_failed_at is None else iso(delivery.first_failed_at),
        "expires_at": None if dead_letter.expires_at is None else iso(dead_letter.expires_at),
        "group": dead_letter.group,
        "message_sent": delivery.sent,
        "bytes": len(delivery.value),
    }
    if (event := event_in(dead_letter)) is not None:
        shown |= {
            "type": event.type,
            "triggered_by": event.context.triggered_by,
            "happened_at": None if event.time is None else _whole(event.time),
            "username": masked(event.user.username),
            "email": masked(event.user.email),
            "phone": masked(event.user.phone),
        }
    if payload:
        shown["payload"] = delivery.value.decode("utf-8", "backslashreplace")
    return shown


def _whole(time: datetime) -> str:
    return time.astimezone(UTC).replace(microsecond=0).isoformat()
