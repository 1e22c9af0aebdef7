"""The Event: one thing that happened to one user, in one frozen shape whatever system it came from.

Field names are Authgear's (``id``, ``seq``, ``type``, ``payload``, ``context``), because only Authgear says natively who
triggered an event. Other sources derive it, and say in ``context.triggered_by_basis`` from what.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any, NamedTuple

from pydantic import BaseModel, ConfigDict

UNKNOWN = "unknown"
"""The value of ``triggered_by`` where it is not known. It passes no filter unless a handler names it."""

CANONICAL_TYPES: Mapping[str, str] = {
    "user.created": "an account exists",
    "password.reset": "someone else set a new password",
    "password.expired": "the password must be changed at the next login",
    "password.reset_requested": "the identity system has sent its own message",
    "password.changed": "the user changed the password",
}
"""The types that mean the same in every identity system. Other types keep their raw names."""

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
"""The types of Auth0: of its event streams, and the codes of its log entries."""
_GENAUTH_TYPES = frozenset(
    (
        "login", "refresh-token", "kick", "mfa:verified", "user:updated", "user:udv-changed", "user:deleted",
        "user:password-changed", "user:email-verified", "user:archived", "user:unarchived", "user:blocked", "user:unblocked",
        "user:link-account", "group:member-added", "group:member-removed", "organization:member-added",
        "organization:member-removed",
    )
)  # fmt: skip
"""The types of GenAuth that are about users."""
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
"""The types of Keycloak that are about users: of admin events, and of what users do."""
RENAMED_TYPES = {
    "admin_api.mutation.reset_password.executed": "password.reset",
    "admin_api.mutation.send_reset_password_message.executed": "password.reset_requested",
}
"""Raw names that no event ever has here: a handler for one of them would never run."""
EVENT_TYPES = frozenset(CANONICAL_TYPES) | _RAW_TYPES | _AUTH0_TYPES | _GENAUTH_TYPES | _KEYCLOAK_TYPES
"""Every type that a handler may name: the canonical ones, and the raw names of the sources."""


class EventUid(NamedTuple):
    """The key of an event: two events with the same one are the same event. An id alone counts in one deployment only."""

    source: str
    tenant: str
    id: str


class User(BaseModel):
    """The user that the event is about, as far as the event says. Addresses are as the source wrote them, not yet checked."""

    model_config = ConfigDict(frozen=True)

    id: str | None = None
    email: str | None = None
    phone: str | None = None
    name: str | None = None
    locale: str | None = None


class EventContext(BaseModel):
    """The circumstances of an event: who triggered it, when, in which language. Unknown fields are kept.

    ``already_notified_by`` says how the user gets to know of it without a message from Usher, where the source knows
    that. The bundled handlers then send none.
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

    ``type`` is one of `CANONICAL_TYPES` where one fits, else the type of the source; ``raw_type`` is always that of the source.
    ``payload`` is the document of the source as it came, without credentials. Unknown top-level fields are kept.
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
        """(source, tenant, id): dedupe compares it."""
        return EventUid(self.source, self.tenant, self.id)

    @property
    def time(self) -> datetime | None:
        """When it happened, by the clock of the source; None where the source does not say, or no date can tell it."""
        stamp = self.context.timestamp
        try:
            return None if stamp is None else datetime.fromtimestamp(stamp, UTC)
        except (OverflowError, ValueError, OSError):  # milliseconds, or what is no time at all
            return None

    @property
    def languages(self) -> tuple[str, ...]:
        """The languages for a message to the user, as BCP 47 tags: the best first, no repeats, may be empty."""
        wanted: Iterable[str | None] = (self.context.language, *self.context.preferred_languages, self.user.locale)
        return tuple(dict.fromkeys(tag for tag in wanted if tag))


class Undecodable(ValueError):
    """These bytes are no event. Sources raise it. The record becomes a dead letter at once, as it came."""
