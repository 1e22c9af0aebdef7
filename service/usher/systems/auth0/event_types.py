"""The event types of Auth0: those of its event streams, and the codes of its log entries."""

from __future__ import annotations

from collections.abc import Mapping

RENAMED_TYPES: Mapping[str, str] = {"scpr": "password.reset_requested"}
SENT_AS: Mapping[str, str] = {
    "user.created": "user.created, or sapi of a new user: as USHER_AUTH0__CREATED_FROM says",
    "password.reset": "sapi with a password",
    "password.expired": "sapi with the flag in app_metadata",
    "password.changed": "scp by the user",
    "user.disabled": "sapi with blocked: true",
    "user.reenabled": "sapi with blocked: false alone",
    "user.deleted": "user.deleted, or sapi of a deletion: likewise",
}
"""What `usher handlers --types` says of the types that are more than another name."""
EVENT_TYPES = frozenset(
    (
        "user.created", "password.reset", "password.expired", "password.reset_requested", "password.changed",
        "user.disabled", "user.reenabled", "user.deleted", "user.updated",
        "ss", "fs", "fcp", "fcpr", "scp", "sapi", "mgmt_api_read", "fapi", "sce", "fce", "scpn", "fcpn", "scu", "fcu", "sv", "fv",
        "svr", "fvr", "si", "fi", "sdu", "fdu", "fn", "fcph", "pwd_leak", "signup_pwd_leak", "reset_pwd_leak", "limit_wc",
        "limit_mu", "ublkdu", "gd_enrollment_complete", "gd_unenroll", "gd_user_delete", "gd_start_enroll", "cls", "cs",
        "s", "f", "fp", "fu", "slo", "flo", "sscim", "fscim",
    )
)  # fmt: skip
