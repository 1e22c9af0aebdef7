"""The reader of users as Keycloak writes them: their ids in paths, and themselves, for the admin API and for SCIM."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from usher.event import Undecodable
from usher.phones import phone_number
from usher.systems.canonical import text
from usher.systems.document import parse

PHONE_ATTRIBUTES = ("phoneNumber", "phone_number", "mobile")
LOCALE_ATTRIBUTE = "locale"
_NO_IDS = frozenset(("profile", "count"))
"""What stands in the place of an id in paths that are about no single user."""
_PASSWORD = "password"  # noqa: S105 - the name of a kind of credential


def subject_of(path: str) -> tuple[str | None, Sequence[str]]:
    """Read the id of the user that a path is about, and what of that user: nothing for the user itself.

    The parts count, and not the slashes: clients of the admin API write some twice, or one at the end. SCIM has paths of its own.
    """
    parts = [part for part in path.split("/") if part]
    if len(parts) > 2 and parts[0] == "scim" and parts[2] == "Users":
        parts = ["users", *parts[3:]]
    if len(parts) < 2 or parts[0] != "users" or parts[1] in _NO_IDS:
        return None, ()
    return parts[1], parts[2:]


def representation_in(document: Mapping[str, Any]) -> dict[str, Any]:
    """Read the user in an admin event. It is a JSON text, and only there if the realm keeps representations."""
    given = document.get("representation")
    if isinstance(given, str):
        try:
            given = parse(given.encode())
        except Undecodable:
            return {}
    return dict(_dict(given))


def user_fields(
    user: Mapping[str, Any],
    phone_attributes: Sequence[str] = PHONE_ATTRIBUTES,
    locale_attribute: str = LOCALE_ATTRIBUTE,
) -> dict[str, Any]:
    """Read the fields of `usher.event.User` from a user, without the id.

    Args:
        user: a representation of the admin API, or a SCIM resource.
        phone_attributes: the attributes that may hold a phone number, best first. SCIM has a field for it.
        locale_attribute: the one that holds the language, likewise.
    """
    if _is_scim(user):
        return _scim_fields(user)
    attributes, enabled = _dict(user.get("attributes")), user.get("enabled")
    return {
        "username": text(user.get("username")),
        "email": text(user.get("email")),
        "phone": _phone(value for name in phone_attributes for value in _texts(attributes.get(name))),
        "name": _full_name(user.get("firstName"), user.get("lastName")),
        "locale": next(_texts(attributes.get(locale_attribute)), None),
        "disabled": not enabled if isinstance(enabled, bool) else None,
    }


def enabled(user: Mapping[str, Any]) -> bool | None:
    """Return whether the user is said to be enabled; None: it is not said."""
    given = user.get("active" if _is_scim(user) else "enabled")
    return given if isinstance(given, bool) else None


def sets_password(user: Mapping[str, Any]) -> bool:
    """Return whether the call that wrote *user* set a password, as far as Keycloak says it: it mostly leaves credentials out."""
    if _is_scim(user):
        return text(user.get(_PASSWORD)) is not None
    given = user.get("credentials")
    kinds = [item.get("type") for item in given if isinstance(item, dict)] if isinstance(given, list) else []
    return any(kind in (None, _PASSWORD) for kind in kinds)


def _is_scim(user: Mapping[str, Any]) -> bool:
    schemas = user.get("schemas")
    named = isinstance(schemas, list) and any(str(name).startswith("urn:ietf:params:scim:") for name in schemas)
    return named or ("userName" in user and "username" not in user)


def _scim_fields(user: Mapping[str, Any]) -> dict[str, Any]:
    """Read a user by the core schema of SCIM 2.0 (RFC 7643, 4.1)."""
    name, active = _dict(user.get("name")), user.get("active")
    return {
        "username": text(user.get("userName")),
        "email": next(_scim_values(user.get("emails")), None),
        "phone": _phone(_scim_values(user.get("phoneNumbers"))),
        "name": _full_name(name.get("givenName"), name.get("familyName"))
        or text(name.get("formatted"))
        or text(user.get("displayName")),
        "locale": text(user.get("preferredLanguage")) or text(user.get("locale")),
        "disabled": not active if isinstance(active, bool) else None,
    }


def _scim_values(given: Any) -> Iterator[str]:
    """Go through the values of a multi-valued attribute, the primary ones first."""
    items = [item for item in given if isinstance(item, dict)] if isinstance(given, list) else []
    for item in sorted(items, key=lambda item: item.get("primary") is not True):
        if (value := text(item.get("value"))) is not None:
            yield value.removeprefix("tel:")


def _phone(candidates: Iterator[str]) -> str | None:
    """Choose the first number that an SMS can go to; else the first text, so that its delivery says what is wrong with it."""
    first = None
    for candidate in candidates:
        first = first or candidate
        try:
            phone_number(candidate)
        except ValueError:
            continue
        return candidate
    return first


def _texts(values: Any) -> Iterator[str]:
    """Go through an attribute's values: Keycloak writes a list."""
    for value in values if isinstance(values, list) else [values]:
        if (found := text(value)) is not None:
            yield found


def _full_name(first: Any, last: Any) -> str | None:
    return " ".join(name for name in (text(first), text(last)) if name) or None


def _dict(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}
