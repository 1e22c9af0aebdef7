"""The event types of GenAuth that are about users."""

from __future__ import annotations

from collections.abc import Mapping

RENAMED_TYPES: Mapping[str, str] = {
    "user:created": "user.created",
    "register": "user.created",
    "user:password-update-remind": "password.expired",
}
EVENT_TYPES = frozenset(
    (
        "user.created", "password.reset", "password.expired",
        "login", "refresh-token", "kick", "mfa:verified", "user:updated", "user:udv-changed", "user:deleted",
        "user:password-changed", "user:email-verified", "user:archived", "user:unarchived", "user:blocked", "user:unblocked",
        "user:link-account", "group:member-added", "group:member-removed", "organization:member-added",
        "organization:member-removed",
    )
)  # fmt: skip
