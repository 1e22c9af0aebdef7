"""The reader of documents in the canonical shape. All but the type may be missing or wrong.

Fields that are missing, null or of a wrong type are left out; fields that are not known are kept.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from usher.delivery import bounded, opaque
from usher.event import UNKNOWN, Event, EventContext, User

_Model = TypeVar("_Model", bound=BaseModel)
FIRST_TIME, END_OF_TIME = 100_000_000, 253_402_300_800
"""Times that an event can have, in Unix seconds: before 1973 is what programs write for none (0, the year 1), and what comes after the
year 9999 `Event.time` can't express."""


def event_of(document: Mapping[str, Any], value: bytes, **derived: Any) -> Event:
    """Make the Event of a document that has a type and a source.

    Args:
        document: the parsed document, less credentials.
        value: the bytes it came from; their SHA-256 stands for an id that is missing.
        derived: what the source found out; it takes precedence over the document's own fields.
    """
    fields = {**document, **derived}
    fields["id"] = opaque(text(fields.get("id")) or hashlib.sha256(value).hexdigest())
    fields["tenant"] = bounded(text(fields.get("tenant")) or "")
    fields["type"] = bounded(fields["type"])
    fields["raw_type"] = bounded(text(fields.get("raw_type")) or fields["type"])
    if "context" not in derived:
        fields["context"] = context_of(document, basis=None)
    try:
        return Event.model_validate(fields)  # all at once: most events are as they should be
    except ValidationError:
        fields["user"] = read_user(fields.get("user"))
        fields["context"] = _lenient(EventContext, fields["context"])
        return _lenient(Event, fields)


def read_user(fields: object) -> User:
    """Make the User of what a system says of one; a field of a wrong type or length is left out."""
    return _lenient(User, fields)


def context_of(document: Mapping[str, Any], *, basis: str | None) -> dict[str, Any]:
    """Read the fields of the context; *basis* is how its source knows ``triggered_by``, where the document has no basis itself."""
    given = document.get("context")
    fields = dict(given) if isinstance(given, dict) else {}
    if text(fields.get("triggered_by")) is None:
        fields.update(triggered_by=UNKNOWN, triggered_by_basis="absent")
    elif basis is not None and text(fields.get("triggered_by_basis")) is None:
        fields["triggered_by_basis"] = basis
    if "timestamp" in fields and not is_time(fields["timestamp"]):
        del fields["timestamp"]
    return fields


def text(value: object) -> str | None:
    """Return *value* if it is a text that is not empty, else None."""
    return value if isinstance(value, str) and value else None


def moment(value: object) -> float | None:
    """Read an ISO 8601 time, in Unix seconds; UTC if it names no zone. None for a time that no event can have."""
    try:
        written = datetime.fromisoformat(text(value) or "")
        at = (written if written.tzinfo else written.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        return None
    return at if is_time(at) else None


def of_envelope(envelope: Mapping[str, Any], data: Any) -> dict[str, Any]:
    """Make a document in the canonical shape of a CloudEvent whose *data* has no type. Id, type, time and source are the envelope's.

    *data* is in the canonical shape as far as it goes. Data without ``user`` and ``payload`` is the user itself, whose id may be the
    envelope's ``subject``.
    """
    given = data if isinstance(data, dict) else {}
    context = dict(given["context"]) if isinstance(given.get("context"), dict) else {}
    if (at := moment(envelope.get("time"))) is not None:
        context.setdefault("timestamp", at)
    own = {**{name: envelope.get(name) for name in ("id", "type", "source")}, "context": context}
    if given.keys() & {"user", "payload"}:
        return {**given, **own}
    return {**own, "user": {**given, "id": text(envelope.get("subject")) or given.get("id")}, "payload": given}


def is_time(value: object) -> bool:
    """Return whether *value* is a number that can be the time of an event, in Unix seconds."""
    return type(value) in (int, float) and FIRST_TIME <= value < END_OF_TIME  # type: ignore[operator]


def _lenient(model: type[_Model], fields: object) -> _Model:
    """Make a *model* of the *fields* that are valid; its other fields are as if they had not been given."""
    if not isinstance(fields, dict):
        return model()
    try:
        return model.model_validate(fields)
    except ValidationError as refusal:
        wrong = {
            error["loc"][0] for error in refusal.errors(include_url=False, include_input=False, include_context=False)
        }
        return model.model_validate({name: item for name, item in fields.items() if name not in wrong})
