"""Invented events of invented people, in the shape in which Authgear sends them."""

from __future__ import annotations

import json
import secrets
import time
import uuid
from collections.abc import Mapping, Sequence
from typing import Any

from usher.event import Event
from usher.systems.authgear.event_types import RAW_TYPES
from usher.systems.decode import decode

_PEOPLE = uuid.UUID("3e0a7f4c-6f0e-4b60-9d3c-2f6a4f1f7a11")
_CREATED = "2026-01-05T09:30:00.000000Z"


def an_event(type: str = "user.created", **details: Any) -> Event:  # noqa: A002
    """Make an event as a handler gets it: *type* is canonical or raw, *details* are those of `raw_event`."""
    return decode(raw_event(type, **details))


def raw_event(
    type: str = "user.created",  # noqa: A002
    *,
    id: str | None = None,  # noqa: A002
    username: str | None = None,
    email: str | None = "kim.berg@example.com",
    phone: str | None = None,
    name: str | None = "Kim Berg",
    user_id: str | None = None,
    triggered_by: str | None = "admin_api",
    language: str | None = "en",
    preferred_languages: Sequence[str] = (),
    locale: str | None = None,
    disabled: bool = False,
    tenant: str = "example",
    timestamp: float | None = None,
    **overrides: Any,
) -> bytes:
    """Make the bytes of an event as Authgear writes them.

    Args:
        type: canonical or raw; a canonical one is written under Authgear's name for it.
        id: the event's id; default: a new one each time.
        username: the name that the user logs in with; None: the user has none.
        email: the user's address; None: the user has none.
        phone: the user's number, in E.164; None: the user has none.
        name: the user's name.
        user_id: the user's id; default: the same for the same email and phone.
        triggered_by: who triggered it; None: the event does not say.
        language: the language of the user's interface; None: the event does not say.
        preferred_languages: the languages that the user's browser asks for, best first.
        locale: the locale in the user's profile.
        disabled: whether the account is disabled.
        tenant: Authgear's app id.
        timestamp: when it happened, in Unix seconds; default: now.
        overrides: further top-level fields; a mapping for ``context`` or ``payload`` is merged into the one that is there.
    """
    event_id = id or secrets.token_hex(8)
    stamp = time.time() if timestamp is None else timestamp
    user = user_id or str(uuid.uuid5(_PEOPLE, f"{email}/{phone}"))
    context = {
        "app_id": tenant, "timestamp": stamp, "triggered_by": triggered_by, "user_id": user,
        "language": language, "preferred_languages": list(preferred_languages),
        "ip_address": "192.0.2.10", "user_agent": "Mozilla/5.0 (X11; Linux x86_64)",
    }  # fmt: skip
    known = {"preferred_username": username, "email": email, "phone_number": phone, "name": name, "locale": locale}
    attributes = {**_without_none(known), "updated_at": int(stamp)}
    payload = _payload(user, attributes, {"email": email, "phone": phone}, disabled=disabled)
    if type == "password.expired":
        payload["expired"] = True
    return _json({
        "id": event_id,
        "seq": int(event_id, 16) % 1_000_000 if _is_hex(event_id) else 1,
        "type": RAW_TYPES.get(type, type),
        "payload": {**payload, **overrides.pop("payload", {})},
        "context": {**_without_none(context), **overrides.pop("context", {})},
        **overrides,
    })  # fmt: skip


def _json(document: Mapping[str, Any]) -> bytes:
    return json.dumps(document).encode()


def _payload(
    user: str, attributes: Mapping[str, Any], logins: Mapping[str, str | None], *, disabled: bool
) -> dict[str, Any]:
    identities = [_identity(user, kind, value) for kind, value in logins.items() if value]
    return {"user": {**_user(user, attributes), "is_disabled": disabled}, "identities": identities}


def _user(user_id: str, attributes: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "id": user_id,
        "created_at": _CREATED,
        "updated_at": _CREATED,
        "can_reauthenticate": True,
        "is_verified": False,
        "standard_attributes": attributes,
    }


def _identity(user: str, kind: str, value: str) -> dict[str, Any]:
    claim = "phone_number" if kind == "phone" else kind
    login_id = "https://authgear.com/claims/login_id/"
    return {
        "id": str(uuid.uuid5(_PEOPLE, f"{user}/{kind}")),
        "type": "login_id",
        "created_at": _CREATED,
        "updated_at": _CREATED,
        "claims": {
            claim: value,
            f"{login_id}key": kind,
            f"{login_id}type": kind,
            f"{login_id}original_value": value,
            f"{login_id}value": value,
        },
    }


def _without_none(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value is not None}


def _is_hex(text: str) -> bool:
    try:
        int(text, 16)
    except ValueError:
        return False
    return True
