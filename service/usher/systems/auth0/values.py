"""Readers of users and addresses, which Auth0's events, logs and API write alike."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from usher.systems.canonical import text

_LANGUAGES = ("locale", "lang", "language", "preferred_language")
"""Where in ``user_metadata`` teams keep the language: Auth0 has no field for it."""


def user_of(profile: Mapping[str, Any]) -> Mapping[str, Any]:
    """Read the fields of `usher.event.User` from a profile, which events, logs and the API's answers write alike."""
    email, metadata = unmasked(profile.get("email")), dict_in(profile, "user_metadata")
    name = text(profile.get("name"))
    languages = [metadata.get(key) for key in _LANGUAGES] + [profile.get("locale")]
    return {
        "id": text(profile.get("user_id")),
        "username": unmasked(profile.get("username")),
        "email": email if email and "@" in email else None,
        "phone": unmasked(profile.get("phone_number")),
        "name": (None if name == email else name) or text(profile.get("given_name")),
        "locale": next(filter(None, map(text, languages)), None),
        "disabled": disabled_in(profile),
    }


def disabled_in(profile: Mapping[str, Any]) -> bool | None:
    """Return whether a profile is blocked; None: it does not say it. A whole profile says it only of a user that was blocked once."""
    blocked = profile.get("blocked")
    if isinstance(blocked, bool):
        return blocked
    return False if "identities" in profile else None


def unmasked(value: object) -> str | None:
    """Return a user name or an address; None if a log stream has masked it, since the rest could be taken for another."""
    found = text(value)
    return None if found is None or "*" in found else found


def dict_in(document: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """Return the object under *name*, or an empty one."""
    value = document.get(name)
    return value if isinstance(value, dict) else {}
