"""The Event: one thing that happened to one user, in one frozen shape for all systems.

Field names are Authgear's (``id``, ``seq``, ``type``, ``payload``, ``context``), because only Authgear says natively who
triggered an event. Other sources derive it, and say in ``context.triggered_by_basis`` from what.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import islice
from typing import TYPE_CHECKING, Any, NamedTuple

UNKNOWN = "unknown"
"""The value of ``triggered_by`` where it is not known. It passes no filter unless a handler names it."""


LONGEST_TAG = 35
"""Characters of a language tag."""
_MOST_SUBTAGS, _MOST_LANGUAGES = 8, 20
"""Subtags of a tag, and how many tags are looked at: users write them, and each is shortened part by part."""


class EventUid(NamedTuple):
    """The key of an event: two events with the same one are the same event. An id alone counts in one deployment only."""

    source: str
    tenant: str
    id: str


def idempotency_key(handler: str, uid: EventUid) -> str:
    """Return a short, stable name for the one message that *handler* sends about the event. Fits a file name or a header."""
    return f"{handler}-{hashlib.sha256(chr(31).join(uid).encode()).hexdigest()[:32]}"


class Unread:
    """The bytes of an event of which only a little was read. Who asks for more has *read* make the whole event of them, once."""

    __slots__ = ("_read", "_value", "_whole")

    def __init__(self, value: bytes, read: Callable[[bytes], Event]) -> None:
        self._value = value
        self._read = read
        self._whole: Event | None = None

    @property
    def is_read(self) -> bool:
        return self._whole is not None

    @property
    def whole(self) -> Event:
        if self._whole is None:
            self._whole = self._read(self._value)
        return self._whole


class _Part:
    """An event, or a part of one. A field that was not read yet is read when it is asked for, and is a plain attribute from then on."""

    __slots__ = ("_unread",)

    if not TYPE_CHECKING:  # it would hide misspelt names from mypy

        def __getattr__(self, name: str) -> Any:
            fields = self.__dataclass_fields__
            if name in fields:
                found = getattr(self._in(self._unread.whole), name)
                _set(self, name, found)
                return found
            if name[0] != "_" and "model_extra" in fields and name in self.model_extra:
                return self.model_extra[name]
            raise AttributeError(f"{type(self).__name__!r} has no field {name!r}")


_new, _set = object.__new__, object.__setattr__


@dataclass(frozen=True, slots=True, kw_only=True)
class User(_Part):
    """The user that the event is about, as far as the event says. Addresses are as the source wrote them, not yet checked.

    ``username`` is what the user logs in with, where the identity system has user names; it may be an address. ``disabled``:
    whether the account is disabled, so that the user can't log in; None where neither the event nor a look-up says it.
    """

    id: str | None = None
    username: str | None = None
    email: str | None = None
    phone: str | None = None
    name: str | None = None
    locale: str | None = None
    disabled: bool | None = None

    @staticmethod
    def _in(event: Event) -> User:
        return event.user


@dataclass(frozen=True, slots=True, kw_only=True)
class EventContext(_Part):
    """The circumstances of an event: who triggered it, when, in which language. ``model_extra`` has the fields that are not known.

    ``already_notified_by`` says how the user gets to know of it without a message from Usher, where the source knows
    that. The bundled handlers then send none.
    """

    timestamp: float | None = None
    user_id: str | None = None
    triggered_by: str = UNKNOWN
    triggered_by_basis: str | None = None
    already_notified_by: str | None = None
    language: str | None = None
    preferred_languages: tuple[str, ...] = ()
    app_id: str | None = None
    model_extra: dict[str, Any] = field(default_factory=dict, hash=False)

    @staticmethod
    def _in(event: Event) -> EventContext:
        return event.context


@dataclass(frozen=True, slots=True, kw_only=True)
class Event(_Part):
    """One thing that happened to one user.

    ``type`` is one of `usher.event_types.CANONICAL_TYPES` where one fits, else the type of the source; ``raw_type`` is always
    that of the source. ``payload`` is the document of the source as it came, without credentials. ``model_extra`` has the fields at
    the top that are not known.
    """

    id: str
    type: str
    raw_type: str
    source: str
    tenant: str = ""
    seq: int | None = None
    user: User = field(default_factory=User)
    context: EventContext = field(default_factory=EventContext)
    payload: dict[str, Any] = field(default_factory=dict, hash=False)
    model_extra: dict[str, Any] = field(default_factory=dict, hash=False)

    @staticmethod
    def _in(event: Event) -> Event:
        return event

    @property
    def uid(self) -> EventUid:
        """(source, tenant, id): dedupe compares it."""
        return EventUid(self.source, self.tenant, self.id)

    @property
    def time(self) -> datetime | None:
        """When it happened, by the clock of the source; None where the source does not say, or where it is out of the range of dates."""
        stamp = self.context.timestamp
        try:
            return None if stamp is None else datetime.fromtimestamp(stamp, UTC)
        except (OverflowError, ValueError, OSError):  # milliseconds, or what is no time at all
            return None

    @property
    def languages(self) -> tuple[str, ...]:
        """The languages for a message to the user, as BCP 47 tags: the best first, no repeats, may be empty."""
        wanted: Iterable[str | None] = (self.context.language, *self.context.preferred_languages, self.user.locale)
        tags = dict.fromkeys(tag for tag in wanted if tag and _is_tag(tag))
        return tuple(islice(tags, _MOST_LANGUAGES))


def _is_tag(text: str) -> bool:
    """Whether *text* is no longer than a language tag can be."""
    return len(text) <= LONGEST_TAG and text.count("-") + text.count("_") < _MOST_SUBTAGS


def is_read(event: Event) -> bool:
    """Return whether the whole event was read: somebody has asked for more than the engine asks of each."""
    rest: Unread | None = getattr(event, "_unread", None)
    return rest is None or rest.is_read


def unread(
    uid: EventUid,
    *,
    type: str,  # noqa: A002
    raw_type: str,
    triggered_by: str,
    user_id: str | None,
    context_user_id: str | None,
    timestamp: float | None,
    rest: Unread,
) -> Event:
    """Make an Event of what the engine asks of each; the *rest* is read when somebody asks for more, and has to agree."""
    event, user, context = _new(Event), _new(User), _new(EventContext)
    _set(user, "id", user_id)
    _set(user, "_unread", rest)
    _set(context, "user_id", context_user_id)
    _set(context, "triggered_by", triggered_by)
    _set(context, "timestamp", timestamp)
    _set(context, "_unread", rest)
    _set(event, "source", uid.source)
    _set(event, "tenant", uid.tenant)
    _set(event, "id", uid.id)
    _set(event, "type", type)
    _set(event, "raw_type", raw_type)
    _set(event, "user", user)
    _set(event, "context", context)
    _set(event, "_unread", rest)
    return event


class Undecodable(ValueError):
    """These bytes are no event. Sources raise it. The record becomes a dead letter at once, as it came."""
