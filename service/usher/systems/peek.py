"""The quick reader of stored events: it reads what the engine needs of each, and leaves the rest unread until somebody asks for it.

`usher.systems.decode.decode` alone says what is an event and what is in it. A document is read quickly only where both are
known to agree: it is Authgear's, in the form that it usually has. All else is decoded.
"""

from __future__ import annotations

import re
from functools import lru_cache

from msgspec import UNSET, Raw, Struct, UnsetType
from msgspec.json import Decoder

from usher.delivery import bounded, opaque
from usher.event import Event, EventUid, Unread, unread
from usher.systems.authgear import source as authgear
from usher.systems.canonical import is_time
from usher.systems.decode import decode
from usher.systems.strip import strip

_MOST_BRACKETS = 190
"""`parse` takes 200 levels, msgspec more."""
_MOST_DIGITS = 4000
"""`parse` takes whole numbers of 4,300 digits, msgspec any."""
_MANY_DIGITS = re.compile(rb"[0-9]{%d}" % _MOST_DIGITS)
_LONGEST_TEXT = 200
_PLAIN_ID = re.compile(r"[0-9a-f]{8}-[0-9a-f-]{1,80}|[0-9][0-9a-f]{0,80}").fullmatch
"""Ids as most are: not a person's, not a text in base64, nor another one that may hide something."""


class _Authenticator(Struct, gc=False):
    type: str | None = None
    kind: str | None = None


class _Payload(Struct, gc=False):
    expired: bool | None = None
    authenticator: _Authenticator | None = None


class _Context(Struct, gc=False):
    triggered_by: str
    user_id: str
    timestamp: float
    app_id: str = ""


class _Seen(Struct, gc=False):
    id: str
    type: str
    context: _Context
    payload: _Payload
    tenant: str = ""
    source: str = authgear.NAME
    raw_type: Raw | UnsetType = UNSET
    specversion: Raw | UnsetType = UNSET
    user: Raw | UnsetType = UNSET


_look = Decoder(_Seen).decode


def peek(value: bytes) -> Event:
    """Read the event in these stored bytes, as `decode` does. What it holds beside *value* is little.

    Raises:
        Undecodable: as `decode`.
    """
    if _same_to_both(value):
        try:
            seen = _look(value)
        except ValueError:
            pass  # not the usual form
        else:
            if _is_usual(seen):
                return _event(seen, value)
    return shortened(decode(value), value)


def shortened(event: Event, value: bytes) -> Event:
    """Return the *event* that `decode` makes of *value* as `peek` does: without what nobody may ask for."""
    context = event.context
    return unread(
        event.uid,
        type=event.type,
        raw_type=event.raw_type,
        triggered_by=context.triggered_by,
        user_id=event.user.id,
        context_user_id=context.user_id,
        timestamp=context.timestamp,
        rest=Unread(value, decode),
    )


def _event(seen: _Seen, value: bytes) -> Event:
    context, made = seen.context, seen.payload.authenticator
    payload = {"expired": seen.payload.expired, "authenticator": made and {"type": made.type, "kind": made.kind}}
    return unread(
        EventUid(authgear.NAME, bounded(context.app_id or seen.tenant), seen.id),
        type=bounded(authgear.canonical_type(seen.type, payload)),
        raw_type=bounded(seen.type),
        triggered_by=context.triggered_by,
        user_id=context.user_id,
        context_user_id=context.user_id,
        timestamp=context.timestamp,
        rest=Unread(value, decode),
    )


def _same_to_both(value: bytes) -> bool:
    """Whether msgspec refuses *value* where `parse` does: they differ in UTF-8, nesting and long numbers."""
    if value.count(b"{") + value.count(b"[") > _MOST_BRACKETS:
        return False
    if len(value) > _MOST_DIGITS and _MANY_DIGITS.search(value):
        return False
    return value.isascii() or _is_utf8(value)


def _is_usual(seen: _Seen) -> bool:
    """Whether `decode` finds the same: nothing that it reads in another way, or would take out as a credential."""
    context, made = seen.context, seen.payload.authenticator
    tenant = context.app_id or seen.tenant
    return (
        seen.source == authgear.NAME
        and seen.raw_type is seen.specversion is seen.user is UNSET
        and is_time(context.timestamp)
        and (_PLAIN_ID(seen.id) is not None or (_is_plain(seen.id) and opaque(seen.id) == seen.id))
        and (_PLAIN_ID(context.user_id) is not None or _is_plain(context.user_id))
        and _is_plain(seen.type)
        and _is_plain(context.triggered_by)
        and (not tenant or _is_plain(tenant))
        and (made is None or made.kind is None or _is_plain(made.kind))
    )


@lru_cache(maxsize=4096)
def _is_plain(text: str) -> bool:
    """Whether *text* is a short one that nothing is taken out of. What is in a long one may depend on how deep it stands."""
    return 0 < len(text) <= _LONGEST_TEXT and strip(text) is text


def _is_utf8(value: bytes) -> bool:
    try:
        value.decode()
    except ValueError:
        return False
    return True
