"""What Auth0's events, logs and API write alike. Hides how a user, an address and a time look in them."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from usher.sources.canonical import END_OF_TIME, text

_LANGUAGES = ("locale", "lang", "language", "preferred_language")
"""Where in ``user_metadata`` teams keep the language: Auth0 has no field for it."""


def user_of(profile: Mapping[str, Any]) -> Mapping[str, Any]:
    """The fields of `usher.event.User` in a profile as Auth0 writes it, in events, logs and the API's answers alike."""
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
    }


def unmasked(value: object) -> str | None:
    """A user name or an address, unless a log stream has masked it: what is left could be taken for another."""
    found = text(value)
    return None if found is None or "*" in found else found


def dict_in(document: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """The object under *name*; an empty one where there is none."""
    value = document.get(name)
    return value if isinstance(value, dict) else {}


def moment(value: object) -> float | None:
    """A time as Auth0 writes it, in Unix seconds; UTC where it names no zone. None for one that no event can be of."""
    try:
        written = datetime.fromisoformat(text(value) or "")
        at = (written if written.tzinfo else written.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        return None
    return at if 0 <= at < END_OF_TIME else None
