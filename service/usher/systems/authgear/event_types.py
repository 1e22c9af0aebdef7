"""The event types of Authgear."""

from __future__ import annotations

from collections.abc import Mapping

RAW_TYPES: Mapping[str, str] = {
    "password.reset": "admin_api.mutation.reset_password.executed",
    "password.expired": "admin_api.mutation.set_password_expired.executed",
    "password.reset_requested": "admin_api.mutation.send_reset_password_message.executed",
}
"""Authgear's names of the canonical types that it names differently."""
CREATE_AUTHENTICATOR = "admin_api.mutation.create_authenticator.executed"
"""Authgear's second name of ``password.reset``, where the authenticator is a password."""
SENT_AS: Mapping[str, str] = {
    "password.reset": f"{RAW_TYPES['password.reset']}, {CREATE_AUTHENTICATOR} of a password",
    "password.expired": f"{RAW_TYPES['password.expired']} with expired: true",
}
"""What `usher handlers --types` says of the types that are more than another name."""
RENAMED_TYPES: Mapping[str, str] = {raw: name for name, raw in RAW_TYPES.items() if name != "password.expired"}
"""``set_password_expired`` keeps its raw name where it takes the expiry back."""

_MUTATIONS = (
    "create_user", "update_user", "delete_user", "set_password_expired",
    "generate_oob_otp_code", "set_verified_status", "set_disabled_status", "create_identity", "update_identity",
    "delete_identity", "create_authenticator", "delete_authenticator", "set_account_valid_from",
    "set_account_valid_until", "set_account_valid_period", "schedule_account_deletion", "unschedule_account_deletion",
    "schedule_account_anonymization", "unschedule_account_anonymization", "anonymize_user", "create_session",
    "revoke_session", "revoke_all_sessions", "reset_account_lockout", "delete_authorization",
    *(f"{verb}_{thing}" for verb in ("create", "update", "delete") for thing in ("role", "group", "resource", "scope")),
    "add_role_to_groups", "add_role_to_users", "add_group_to_roles", "add_group_to_users", "add_user_to_groups",
    "add_user_to_roles", "remove_role_from_groups", "remove_role_from_users", "remove_group_from_roles",
    "remove_group_from_users", "remove_user_from_groups", "remove_user_from_roles", "add_resource_to_clientid",
    "remove_resource_from_clientid", "add_scopes_to_clientid", "remove_scopes_from_clientid",
    "replace_scopes_of_clientid",
)  # fmt: skip
_PROJECT = (
    "app.created", "app.updated", "app.secret.viewed", "billing.checkout.created", "billing.subscription.cancelled",
    "billing.subscription.status.updated", "billing.subscription.updated", "collaborator.deleted",
    "collaborator.invitation.accepted", "collaborator.invitation.created", "collaborator.invitation.deleted",
    "domain.created", "domain.deleted", "domain.verified",
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
        "sms.suppressed", "authentication.blocked", "authentication.identity.login_id.failed",
        "bot_protection.verification.failed", "rate_limit.blocked", "m2m.token.created",
        "whatsapp.sent", "whatsapp.error", "whatsapp.suppressed", "whatsapp.otp.verified",
        *(
            f"identity.{kind}.{verb}"
            for kind in ("email", "phone", "username")
            for verb in ("added", "removed", "updated", "verified", "unverified")
        ),
        *(f"admin_api.mutation.{name}.executed" for name in _MUTATIONS),
        *(f"project.{name}" for name in _PROJECT),
    )
)  # fmt: skip
