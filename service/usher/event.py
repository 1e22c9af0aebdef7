"""The Event: one thing that happened to one user, in one frozen shape for all systems.

Field names are Authgear's (``id``, ``seq``, ``type``, ``payload``, ``context``), because only Authgear says natively who
triggered an event. Other sources derive it, and say in ``context.triggered_by_basis`` from what.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from datetime import UTC, datetime
from itertools import islice
from typing import Annotated, Any, NamedTuple

from pydantic import BaseModel, ConfigDict, Field

UNKNOWN = "unknown"
"""The value of ``triggered_by`` where it is not known. It passes no filter unless a handler names it."""


_LONGEST_TAG, _MOST_SUBTAGS, _MOST_LANGUAGES = 35, 8, 20
"""Characters and subtags of a language tag, and how many are looked at: users write them, and each is shortened part by part."""

_Login = Annotated[str, Field(max_length=320)]
"""A user name or mail address: 64 characters, the @, and a domain of 255."""
_Phone = Annotated[str, Field(max_length=250)]
_Name = Annotated[str, Field(max_length=512)]


class EventUid(NamedTuple):
    """The key of an event: two events with the same one are the same event. An id alone counts in one deployment only."""

    source: str
    tenant: str
    id: str


def idempotency_key(handler: str, uid: EventUid) -> str:
    """Return a short, stable name for the one message that *handler* sends about the event. Fits a file name or a header."""
    return f"{handler}-{hashlib.sha256(chr(31).join(uid).encode()).hexdigest()[:32]}"


class User(BaseModel):
    """The user that the event is about, as far as the event says. Addresses are as the source wrote them, not yet checked.

    Users write some of this themselves. What is longer than any real name, address or number is taken for none.

    ``username`` is what the user logs in with, where the identity system has user names; it may be an address. ``disabled``:
    whether the account is disabled, so that the user can't log in; None where neither the event nor a look-up says it.
    """

    model_config = ConfigDict(frozen=True)

    id: str | None = None
    username: _Login | None = None
    email: _Login | None = None
    phone: _Phone | None = None
    name: _Name | None = None
    locale: Annotated[str, Field(max_length=_LONGEST_TAG)] | None = None
    disabled: bool | None = None


class EventContext(BaseModel):
    """The circumstances of an event: who triggered it, when, in which language. Unknown fields are kept.

    ``already_notified_by`` says how the user gets to know of it without a message from Usher, where the source knows
    that. The bundled handlers then send none.
    """

    model_config = ConfigDict(frozen=True, extra="allow")

    timestamp: float | None = None
    user_id: str | None = None
    triggered_by: str = UNKNOWN
    triggered_by_basis: str | None = None
    already_notified_by: str | None = None
    language: str | None = None
    preferred_languages: tuple[str, ...] = ()
    app_id: str | None = None


class Event(BaseModel):
    """One thing that happened to one user.

    ``type`` is one of `usher.event_types.CANONICAL_TYPES` where one fits, else the type of the source; ``raw_type`` is always
    that of the source. ``payload`` is the document of the source as it came, without credentials. Unknown top-level fields are kept.
    """

    model_config = ConfigDict(frozen=True, extra="allow")

    id: str
    type: str
    raw_type: str
    source: str
    tenant: str = ""
    seq: int | None = None
    user: User = User()
    context: EventContext = EventContext()
    payload: dict[str, Any] = {}

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
    return len(text) <= _LONGEST_TAG and text.count("-") + text.count("_") < _MOST_SUBTAGS


class Undecodable(ValueError):
    """These bytes are no event. Sources raise it. The record becomes a dead letter at once, as it came."""
