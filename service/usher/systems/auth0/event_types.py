"""The event types of Auth0: those of its event streams, and the codes of its log entries."""

from __future__ import annotations

from collections.abc import Mapping

RENAMED_TYPES: Mapping[str, str] = {"scpr": "password.reset_requested"}
EVENT_TYPES = frozenset(
    (
        "user.created", "password.reset", "password.expired", "password.reset_requested", "password.changed",
        "user.updated", "user.deleted",
        "ss", "fs", "fcp", "fcpr", "scp", "sapi", "mgmt_api_read", "fapi", "sce", "fce", "scpn", "fcpn", "scu", "fcu", "sv", "fv",
        "svr", "fvr", "si", "fi", "sdu", "fdu", "fn", "fcph", "pwd_leak", "signup_pwd_leak", "reset_pwd_leak", "limit_wc",
        "limit_mu", "ublkdu", "gd_enrollment_complete", "gd_unenroll", "gd_user_delete", "gd_start_enroll", "cls", "cs",
        "s", "f", "fp", "fu", "slo", "flo", "sscim", "fscim",
    )
)  # fmt: skip
