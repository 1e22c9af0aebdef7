"""What an update of a user has changed, where its event does not say it: by what was written before, and by the password's own date.

An admin event has the fields that were written. The admin console writes all of them with each change, and a password that was
written among them is left out. It is pure: `usher.systems.keycloak.api` makes the look-ups.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from usher.event import Event
from usher.systems.keycloak.users import enabled, representation_in, subject_of

UNCHANGED = "admin.USER-UPDATE"
"""The type of an update that changes nothing of what has a canonical type."""
_AT_ONCE = 1.0
"""Seconds before an event in which a password that was set may belong to it: both are of one transaction."""
_PASSWORD_EVENTS = frozenset(("REGISTER", "UPDATE_PASSWORD", "UPDATE_CREDENTIAL"))
"""The user events of a user who has set a password."""
_CLOCK = 0.05
"""Seconds by which two times of one transaction may be in the wrong order."""


def is_in_doubt(event: Event) -> bool:
    """Return whether an event is an update of a user that may have changed something else than it seems."""
    user_id, action = subject_of(str(event.payload.get("resourcePath")))
    if user_id is None or action or event.context.already_notified_by or event.time is None:
        return False
    return event.type == UNCHANGED or (event.type == "user.disabled" and _written(event).keys() != {"enabled"})


def without_state(event: Event) -> Mapping[str, Any]:
    """Return what the update has written, but for whether the account is enabled."""
    return {name: value for name, value in _written(event).items() if name not in ("enabled", "active")}


def changed_type(
    event: Event, admin_events: Sequence[Mapping[str, Any]], password_time: float, otherwise: str | None
) -> str:
    """Return the type of an event that is in doubt.

    Args:
        event: the update.
        admin_events: what the realm still knows of the user, in any order, with the update itself or without it.
        password_time: when the user's password was set, in Unix seconds.
        otherwise: the canonical type that the rest of the update has, if it has one.
    """
    at = event.context.timestamp or 0.0
    earlier = sorted((item for item in admin_events if _is_before(item, event, at)), key=_order, reverse=True)
    before = next((known for item in earlier if (known := _enabled_by(item)) is not None), None)
    now = enabled(_written(event))
    if now is False and before is not False:
        return "user.disabled"
    if now is True and before is False:
        return "user.reenabled"
    if otherwise is not None:
        return otherwise
    ours = belongs_to(event, password_time)
    others = any(_moment(item) >= password_time - _CLOCK for item in earlier if _may_set_password(item))
    return "password.reset" if ours and not others else UNCHANGED


def belongs_to(event: Event, password_time: float) -> bool:
    """Return whether a password that was set at *password_time* (Unix seconds) may have been set by *event*."""
    at = event.context.timestamp or 0.0
    return at - _AT_ONCE < password_time <= at + _CLOCK


def is_users_own(
    password_time: float,
    created: Any,
    admin_events: Sequence[Mapping[str, Any]],
    user_events: Sequence[Mapping[str, Any]],
) -> bool:
    """Return whether the user set the password: when registering, or later. Programs update users right after that.

    Args:
        password_time: when it was set, in Unix seconds.
        created: the user's ``createdTimestamp``, in milliseconds.
        admin_events: as for `changed_type`: whom an administrator made did not register.
        user_events: the user's own events, where the realm keeps them.
    """
    made_by_admin = any(item.get("operationType") == "CREATE" for item in admin_events)
    if isinstance(created, int) and not made_by_admin and abs(password_time - created / 1000) < _AT_ONCE:
        return True
    times = [_moment(item) for item in user_events if item.get("type") in _PASSWORD_EVENTS]
    return any(-_CLOCK <= time - password_time < _AT_ONCE for time in times)


def _written(event: Event) -> Mapping[str, Any]:
    written = event.payload.get("representation")
    return written if isinstance(written, dict) else {}


def _is_before(item: Mapping[str, Any], event: Event, at: float) -> bool:
    path = None if item.get("error") else item.get("resourcePath")
    user_id, _ = subject_of(path) if isinstance(path, str) else (None, ())
    return item.get("id") != event.id and user_id == event.user.id and _moment(item) <= at


def _order(item: Mapping[str, Any]) -> tuple[float, bool]:
    """Order admin events by time; of one moment the creation is the first."""
    return _moment(item), item.get("operationType") != "CREATE"


def _enabled_by(item: Mapping[str, Any]) -> bool | None:
    """Return whether the user is enabled after an admin event; None: it is not said. Who is made without a word on it is disabled."""
    written = representation_in(item)
    said = enabled(written)
    return False if said is None and item.get("operationType") == "CREATE" and "username" in written else said


def _may_set_password(item: Mapping[str, Any]) -> bool:
    _, action = subject_of(str(item.get("resourcePath")))
    return item.get("operationType") == "CREATE" or list(action) == ["reset-password"]


def _moment(item: Mapping[str, Any]) -> float:
    """Read the time of an admin event, in Unix seconds."""
    moment = item.get("time")
    return moment / 1000 if isinstance(moment, int) else 0.0
