"""The event types of Keycloak that are about users: those of admin events, and of what users do."""

from __future__ import annotations

from collections.abc import Mapping

RENAMED_TYPES: Mapping[str, str] = {
    "admin.USER-CREATE": "user.created",
    "access.REGISTER": "user.created",
    "access.UPDATE_PASSWORD": "password.changed",
}
EVENT_TYPES = frozenset(
    (
        "user.created", "password.reset", "password.expired", "password.reset_requested", "password.changed",
        "admin.USER-UPDATE", "admin.USER-DELETE", "admin.USER-ACTION",
        *(
            f"access.{name}"
            for name in (
                "LOGIN", "LOGIN_ERROR", "LOGOUT", "UPDATE_PROFILE", "UPDATE_EMAIL", "VERIFY_EMAIL", "SEND_VERIFY_EMAIL",
                "SEND_RESET_PASSWORD", "RESET_PASSWORD", "UPDATE_CREDENTIAL", "REMOVE_CREDENTIAL", "DELETE_ACCOUNT",
                "IMPERSONATE", "REGISTER_ERROR", "UPDATE_PASSWORD_ERROR", "USER_DISABLED_BY_TEMPORARY_LOCKOUT",
                "USER_DISABLED_BY_PERMANENT_LOCKOUT",
            )
        ),
    )
)  # fmt: skip
