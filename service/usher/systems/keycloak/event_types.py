"""The event types of Keycloak that are about users: those of admin events, and of what users do."""

from __future__ import annotations

from collections.abc import Mapping

RENAMED_TYPES: Mapping[str, str] = {
    "admin.USER-CREATE": "user.created",
    "access.REGISTER": "user.created",
    "access.UPDATE_PASSWORD": "password.changed",
    "admin.USER-DELETE": "user.deleted",
    "access.DELETE_ACCOUNT": "user.deleted",
    "access.USER_DISABLED_BY_PERMANENT_LOCKOUT": "user.disabled",
}
SENT_AS: Mapping[str, str] = {
    "password.reset": "admin.USER-ACTION of reset-password, admin.USER-UPDATE with credentials",
    "password.expired": "admin.USER-UPDATE with the required action UPDATE_PASSWORD",
    "password.reset_requested": "admin.USER-ACTION of execute-actions-email",
    "user.disabled": "admin.USER-UPDATE with enabled: false, access.USER_DISABLED_BY_PERMANENT_LOCKOUT",
    "user.reenabled": "admin.USER-UPDATE with enabled: true alone",
}
"""What `usher handlers --types` says of the types that are more than another name."""
EVENT_TYPES = frozenset(
    (
        "user.created", "password.reset", "password.expired", "password.reset_requested", "password.changed",
        "user.disabled", "user.reenabled", "user.deleted", "admin.USER-UPDATE", "admin.USER-ACTION",
        *(
            f"access.{name}"
            for name in (
                "LOGIN", "LOGIN_ERROR", "LOGOUT", "UPDATE_PROFILE", "UPDATE_EMAIL", "VERIFY_EMAIL", "SEND_VERIFY_EMAIL",
                "SEND_RESET_PASSWORD", "RESET_PASSWORD", "UPDATE_CREDENTIAL", "REMOVE_CREDENTIAL",
                "IMPERSONATE", "REGISTER_ERROR", "UPDATE_PASSWORD_ERROR", "USER_DISABLED_BY_TEMPORARY_LOCKOUT",
            )
        ),
    )
)  # fmt: skip
