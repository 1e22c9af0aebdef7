"""The event types of Authgear."""

from __future__ import annotations

from collections.abc import Mapping

RAW_TYPES: Mapping[str, str] = {
    "password.reset": "admin_api.mutation.reset_password.executed",
    "password.expired": "admin_api.mutation.set_password_expired.executed",
    "password.reset_requested": "admin_api.mutation.send_reset_password_message.executed",
}
"""Authgear's names of the canonical types that it names differently."""
RENAMED_TYPES: Mapping[str, str] = {raw: name for name, raw in RAW_TYPES.items() if name != "password.expired"}
"""``set_password_expired`` keeps its raw name where it takes the expiry back."""

_MUTATIONS = (
    "create_user", "update_user", "delete_user", "set_password_expired",
    "generate_oob_otp_code", "set_verified_status", "set_disabled_status", "create_identity", "update_identity",
    "delete_identity", "create_authenticator", "delete_authenticator", "set_account_valid_from",
    "set_account_valid_until", "set_account_valid_period", "schedule_account_deletion", "unschedule_account_deletion",
    "schedule_account_anonymization", "unschedule_account_anonymization", "anonymize_user", "create_session",
    "revoke_session", "revoke_all_sessions", "reset_account_lockout",
)  # fmt: skip
EVENT_TYPES = frozenset(
    (
        "user.created", *RAW_TYPES,
        "user.authenticated", "user.reauthenticated", "user.profile.updated", "user.disabled", "user.reenabled",
        "user.anonymous.promoted", "user.deletion_scheduled", "user.deletion_unscheduled", "user.deleted",
        "user.anonymization_scheduled", "user.anonymization_unscheduled", "user.anonymized", "user.signed_out",
        "user.session.terminated", "usage.alert.triggered", "fraud_protection.decision_recorded",
        "identity.oauth.connected", "identity.oauth.disconnected", "identity.biometric.enabled",
        "identity.biometric.disabled", "email.sent", "email.error", "email.suppressed", "sms.sent", "sms.error",
        "sms.suppressed", "whatsapp.sent", "whatsapp.error", "whatsapp.suppressed", "whatsapp.otp.verified",
        *(
            f"identity.{kind}.{verb}"
            for kind in ("email", "phone", "username")
            for verb in ("added", "removed", "updated", "verified", "unverified")
        ),
        *(f"admin_api.mutation.{name}.executed" for name in _MUTATIONS),
    )
)  # fmt: skip
