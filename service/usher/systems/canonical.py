"""The reader of documents in the canonical shape. All but the type may be missing or wrong.

Fields that are missing, null or of a wrong type are left out; fields that are not known are kept.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from usher.delivery import bounded, opaque
from usher.event import LONGEST_TAG, UNKNOWN, Event, EventContext, User

_T = TypeVar("_T")
_FLAG, _NUMBER = TypeAdapter(bool), TypeAdapter(int)
_LONGEST_LOGIN, _LONGEST_PHONE, _LONGEST_NAME, _ANY = 320, 250, 512, sys.maxsize
"""Characters of a user's fields. Users write some of them themselves: what is longer than any real one is taken for none.
A login may be an address: 64 characters, the @, and a domain of 255."""
_OF_EVENT = frozenset({"id", "type", "raw_type", "source", "tenant", "seq", "user", "context", "payload"})
_OF_CONTEXT = frozenset(EventContext.__dataclass_fields__) - {"model_extra"}
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
    kind = bounded(fields["type"])
    context = fields["context"] if "context" in derived else context_of(document, basis=None)
    payload = fields.get("payload")
    return Event(
        id=opaque(text(fields.get("id")) or hashlib.sha256(value).hexdigest()),
        type=kind,
        raw_type=bounded(text(fields.get("raw_type")) or kind),
        source=bounded(fields["source"]),
        tenant=bounded(text(fields.get("tenant")) or ""),
        seq=_as(_NUMBER, fields.get("seq")),
        user=read_user(fields.get("user")),
        context=_read_context(context),
        payload=payload if isinstance(payload, dict) else {},
        model_extra={name: fields[name] for name in fields if name not in _OF_EVENT},
    )


def canonical_document(event: Event) -> dict[str, Any]:
    """Write *event* in the canonical shape, which `event_of` reads: without the fields of user and context that say nothing."""
    context = {name: getattr(event.context, name) for name in EventContext.__dataclass_fields__ if name in _OF_CONTEXT}
    return {
        "id": event.id,
        "type": event.type,
        "raw_type": event.raw_type,
        "source": event.source,
        "tenant": event.tenant,
        **({} if event.seq is None else {"seq": event.seq}),
        "user": {name: item for name, item in asdict(event.user).items() if item is not None},
        "context": {
            **{name: item for name, item in context.items() if item not in (None, ())},
            **event.context.model_extra,
        },
        "payload": event.payload,
        **event.model_extra,
    }


def read_user(fields: object) -> User:
    """Make the User of what a system says of one; a field of a wrong type or length is left out."""
    if not isinstance(fields, dict):
        return User()
    get = fields.get
    return User(
        id=_text_of(get("id")),
        username=_text_of(get("username"), _LONGEST_LOGIN),
        email=_text_of(get("email"), _LONGEST_LOGIN),
        phone=_text_of(get("phone"), _LONGEST_PHONE),
        name=_text_of(get("name"), _LONGEST_NAME),
        locale=_text_of(get("locale"), LONGEST_TAG),
        disabled=_as(_FLAG, get("disabled")),
    )


def _read_context(fields: Mapping[str, Any]) -> EventContext:
    """Make the EventContext of its fields; one of a wrong type is left out, one that is not known is kept."""
    get = fields.get
    at, languages = get("timestamp"), get("preferred_languages")
    if not isinstance(languages, list | tuple) or not all(isinstance(tag, str) for tag in languages):
        languages = ()
    return EventContext(
        timestamp=float(at) if is_time(at) else None,  # type: ignore[arg-type]
        user_id=_text_of(get("user_id")),
        triggered_by=fields["triggered_by"],
        triggered_by_basis=_text_of(get("triggered_by_basis")),
        already_notified_by=_text_of(get("already_notified_by")),
        language=_text_of(get("language")),
        preferred_languages=tuple(languages),
        app_id=_text_of(get("app_id")),
        model_extra={name: fields[name] for name in fields if name not in _OF_CONTEXT},
    )


def context_of(document: Mapping[str, Any], *, basis: str | None) -> dict[str, Any]:
    """Read the fields of the context; *basis* is how its source knows ``triggered_by``, where the document has no basis itself."""
    given = document.get("context")
    fields = dict(given) if isinstance(given, dict) else {}
    if text(fields.get("triggered_by")) is None:
        fields.update(triggered_by=UNKNOWN, triggered_by_basis="absent")
    elif basis is not None and text(fields.get("triggered_by_basis")) is None:
        fields["triggered_by_basis"] = basis
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


def _text_of(value: object, longest: int = _ANY) -> str | None:
    return value if isinstance(value, str) and len(value) <= longest else None


def _as(kind: TypeAdapter[_T], value: object) -> _T | None:
    """Return *value* as a flag or a number, as pydantic takes it: ``"5"`` is 5. None: it is none."""
    if value is None:
        return None
    try:
        return kind.validate_python(value)
    except ValidationError:
        return None
