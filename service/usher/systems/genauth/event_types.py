"""The event types of GenAuth that are about users."""

from __future__ import annotations

from collections.abc import Mapping

RENAMED_TYPES: Mapping[str, str] = {
    "user:created": "user.created",
    "register": "user.created",
    "user:password-update-remind": "password.expired",
    "user:blocked": "user.disabled",
    "user:unblocked": "user.reenabled",
    "user:deleted": "user.deleted",
}
SENT_AS: Mapping[str, str] = {
    "password.reset": "user:password-changed with an administrator's entry in the audit log",
    "password.expired": "user:password-update-remind, user:updated with resetPasswordOnNextLogin",
}
"""What `usher handlers --types` says of the types that are more than another name."""
EVENT_TYPES = frozenset(
    (
        "user.created", "password.reset", "password.expired", "user.disabled", "user.reenabled", "user.deleted",
        "login", "refresh-token", "kick", "mfa:verified", "user:updated", "user:udv-changed",
        "user:password-changed", "user:email-verified", "user:archived", "user:unarchived",
        "user:link-account", "group:member-added", "group:member-removed", "organization:member-added",
        "organization:member-removed",
    )
)  # fmt: skip
