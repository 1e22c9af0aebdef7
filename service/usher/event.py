"""The Event: one thing that happened to one user, in one frozen shape whatever system it came from.

Field names are Authgear's (``id``, ``seq``, ``type``, ``payload``, ``context``), because only Authgear says natively who
triggered an event; other sources derive it and tell how in ``context.triggered_by_basis``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any, NamedTuple

from pydantic import BaseModel, ConfigDict

UNKNOWN = "unknown"
"""What ``triggered_by`` is where it can't be told. It passes no filter unless a handler asks for it by name."""

CANONICAL_TYPES: Mapping[str, str] = {
    "user.created": "an account exists",
    "password.reset": "someone else set a new password",
    "password.expired": "the password must be changed at the next login",
    "password.reset_requested": "the identity system has sent its own message",
    "password.changed": "the user changed the password",
}
"""The types that mean the same in every identity system. Others pass through under their raw names."""

_MUTATIONS = (
    "create_user", "update_user", "delete_user", "set_password_expired",
    "generate_oob_otp_code", "set_verified_status", "set_disabled_status", "create_identity", "update_identity",
    "delete_identity", "create_authenticator", "delete_authenticator", "set_account_valid_from",
    "set_account_valid_until", "set_account_valid_period", "schedule_account_deletion", "unschedule_account_deletion",
    "schedule_account_anonymization", "unschedule_account_anonymization", "anonymize_user", "create_session",
    "revoke_session", "revoke_all_sessions", "reset_account_lockout",
)  # fmt: skip
_RAW_TYPES = frozenset(
    (
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
_AUTH0_TYPES = frozenset(
    (
        "user.updated",
        "ss", "fs", "fcp", "fcpr", "scp", "sapi", "mgmt_api_read", "fapi", "sce", "fce", "scpn", "fcpn", "scu", "fcu", "sv", "fv",
        "svr", "fvr", "si", "fi", "sdu", "fdu", "fn", "fcph", "pwd_leak", "signup_pwd_leak", "reset_pwd_leak", "limit_wc",
        "limit_mu", "ublkdu", "gd_enrollment_complete", "gd_unenroll", "gd_user_delete", "gd_start_enroll", "cls", "cs",
        "s", "f", "fp", "fu", "slo", "flo", "sscim", "fscim",
    )
)  # fmt: skip
"""Auth0's: of its event streams, and the codes of its log entries."""
_GENAUTH_TYPES = frozenset(
    (
        "login", "refresh-token", "kick", "mfa:verified", "user:updated", "user:udv-changed", "user:deleted",
        "user:password-changed", "user:email-verified", "user:archived", "user:unarchived", "user:blocked", "user:unblocked",
        "user:link-account", "group:member-added", "group:member-removed", "organization:member-added",
        "organization:member-removed",
    )
)  # fmt: skip
"""GenAuth's, as far as they are about users."""
_KEYCLOAK_TYPES = frozenset(
    (
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
"""Keycloak's, as far as they are about users: of admin events, and of what users do."""
RENAMED_TYPES = {
    "admin_api.mutation.reset_password.executed": "password.reset",
    "admin_api.mutation.send_reset_password_message.executed": "password.reset_requested",
}
"""Raw names under which no event ever arrives: a handler for one of them would be silent for ever."""
EVENT_TYPES = frozenset(CANONICAL_TYPES) | _RAW_TYPES | _AUTH0_TYPES | _GENAUTH_TYPES | _KEYCLOAK_TYPES
"""Every type a handler may ask for: the canonical ones and the sources' raw names."""


class EventUid(NamedTuple):
    """What makes an event the same event: ids alone are counters of one deployment."""

    source: str
    tenant: str
    id: str


class User(BaseModel):
    """Whom the event is about, as far as the event says. Addresses are as the source wrote them, not yet checked."""

    model_config = ConfigDict(frozen=True)

    id: str | None = None
    email: str | None = None
    phone: str | None = None
    name: str | None = None
    locale: str | None = None


class EventContext(BaseModel):
    """The circumstances: who triggered it, when, in which language. Unknown fields are kept.

    ``already_notified_by`` says how the user hears of it without a message of ours, where the source knows that. The
    bundled handlers then send none.
    """

    model_config = ConfigDict(frozen=True, extra="allow")

    timestamp: float | None = None
    user_id: str | None = None
    triggered_by: str = UNKNOWN
    triggered_by_basis: str | None = None
    already_notified_by: str | None = None
    language: str | None = None
    preferred_languages: tuple[str, ...] = ()
    app_id: str | None = None


class Event(BaseModel):
    """One thing that happened to one user.

    ``type`` is canonical where one of `CANONICAL_TYPES` fits, else the source's own; ``raw_type`` is always the source's.
    ``payload`` is the source's document as it came, less credentials. Unknown top-level fields are kept.
    """

    model_config = ConfigDict(frozen=True, extra="allow")

    id: str
    type: str
    raw_type: str
    source: str
    tenant: str = ""
    seq: int | None = None
    user: User = User()
    context: EventContext = EventContext()
    payload: dict[str, Any] = {}

    @property
    def uid(self) -> EventUid:
        """(source, tenant, id): what dedupe goes by."""
        return EventUid(self.source, self.tenant, self.id)

    @property
    def time(self) -> datetime | None:
        """When it happened, by the source's clock; None where the source doesn't say."""
        stamp = self.context.timestamp
        return None if stamp is None else datetime.fromtimestamp(stamp, UTC)

    @property
    def languages(self) -> tuple[str, ...]:
        """BCP 47 tags to write to the user in, best first, without repeats; may be empty."""
        wanted: Iterable[str | None] = (self.context.language, *self.context.preferred_languages, self.user.locale)
        return tuple(dict.fromkeys(tag for tag in wanted if tag))


class Undecodable(ValueError):
    """These bytes are no event. Raised by sources; the record goes to the dead-letter topic at once, as it came."""
