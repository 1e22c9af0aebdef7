"""The reader of GenAuth's admin audit log: it finds the entries that are events, and the user of each.

The content of an entry's texts is documented nowhere, so little is assumed: they are searched for the user's id and for a
password that was set. They are not kept, because there may be passwords in them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from typing import Any

from usher.event import Event, Undecodable
from usher.systems.canonical import text
from usher.systems.document import dump, parse
from usher.systems.genauth.source import NAME, created_id, iso_time, user_id_of
from usher.systems.source import derive

_KEPT = ("requestId", "operationType", "resourceType", "adminUserId", "timestamp")
_SETS_PASSWORD = frozenset(("password", "newPassword", "autoGeneratePassword"))


def event_of_entry(entry: Any, tenant: str) -> Event | None:
    """Make the event that one entry of get-admin-audit-logs reports; None: it reports none that matters, or names no user.

    An administrator created a user, or set a user's password. Addresses are not in it.
    """
    if not isinstance(entry, dict) or entry.get("resourceType") != "user" or entry.get("success") is False:
        return None
    given = [_inner(entry.get(name)) for name in ("operationParam", "targetValue", "originValue")]
    user = _storable(next(filter(None, map(_user_in, given)), None))
    operation = entry.get("operationType")
    if user is None or operation not in ("create", "update"):
        return None
    if operation == "update" and not _sets_password(*given):
        return None
    kept = {name: _storable(text(entry.get(name))) for name in _KEPT}
    return derive(
        NAME,
        {name: value for name, value in kept.items() if value is not None},
        id=created_id(user) if operation == "create" else _entry_id(kept, user),
        type="user.created" if operation == "create" else "password.reset",
        raw_type=f"audit:user:{operation}",
        tenant=tenant,
        triggered_by="admin_api",
        basis=f"admin audit log: {operation} by an administrator",
        timestamp=entry_time(entry),
        user={"id": user},
    )


def entry_time(entry: Mapping[str, Any]) -> float | None:
    """Read the time of an entry's operation, in Unix seconds."""
    return iso_time(entry.get("timestamp"))


def _entry_id(kept: Mapping[str, str | None], user: str) -> str:
    """Make the id of the request's own id and the user's: one request may change several users."""
    about = dump([user, kept["requestId"] or kept])
    return f"audit-{hashlib.sha1(about, usedforsecurity=False).hexdigest()}"


def _storable(given: str | None) -> str | None:
    """Replace the halves of characters that an answer's parser lets through."""
    return None if given is None else given.encode("utf-8", "replace").decode()


def _inner(value: object) -> Any:
    """Parse the document in one of an entry's texts; None: there is none."""
    if not isinstance(value, str):
        return value
    try:
        return parse(value.encode())
    except (Undecodable, UnicodeEncodeError):
        return None


def _user_in(document: Any) -> str | None:
    """Find the user that a document names, the outermost first."""
    return next(filter(None, map(user_id_of, _objects(document))), None)


def _sets_password(parameters: Any, target: Any, origin: Any) -> bool:
    """Return whether a password was set: the call has one, or the one after it differs from the one before it.

    A password in the new value alone proves nothing: whole users are written there, with their hashes.
    """
    if any(node.get(name) for node in _objects(parameters) for name in _SETS_PASSWORD):
        return True
    before, after = ([node["password"] for node in _objects(value) if "password" in node] for value in (origin, target))
    return bool(before and after) and before != after


def _objects(document: Any) -> Iterator[Mapping[str, Any]]:
    """Go through the objects in a document, outermost first."""
    nodes = [document]
    for node in nodes:  # grows while it is walked
        if isinstance(node, dict):
            yield node
            nodes += node.values()
        elif isinstance(node, list):
            nodes += node
