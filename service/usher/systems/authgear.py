"""Authgear, as the settings describe it."""

from __future__ import annotations

from usher.identity.authgear import AdminApi, ApiKey, read_key
from usher.identity.authgear_log import AuditLog, activity_types
from usher.settings import Authgear, SettingsError
from usher.sources import authgear
from usher.systems.system import Session, System


def open_system(settings: Authgear, name: str, session: Session) -> System:
    """One Authgear project.

    Raises:
        SettingsError: half of what the API needs is missing, or the key is none.
    """
    prefix = f"USHER_AUTHGEAR__{name.upper()}__" if name else "USHER_AUTHGEAR__"
    secrets = [secret.get_secret_value() for secret in settings.webhook_secret]
    habits = authgear.Habits(frozenset(settings.sends_password), frozenset(settings.expires_password))
    source = authgear.Authgear(secrets, habits)
    api, feeds = None, []
    if (key := _key(settings, prefix)) is not None and settings.endpoint is not None:
        types = activity_types(settings.poll_types) if settings.poll else ()
        api = AdminApi(settings.endpoint, key, session, types=types, prefix=prefix)
        if settings.poll:
            feeds.append(AuditLog(api, key.app_id, source, settings.poll_types, settings.poll_every))
    return System(source=source, name=name, tenant=settings.app_id, receives=bool(secrets), api=api, feeds=feeds)


def _key(settings: Authgear, prefix: str) -> ApiKey | None:
    """What calls are signed with; None where nothing of the API is set."""
    needed = {
        "ENDPOINT": settings.endpoint,
        "APP_ID": settings.app_id,
        "KEY_ID": settings.key_id,
        "PRIVATE_KEY": settings.private_key,
    }
    missing = [name for name, value in needed.items() if not value]
    if settings.private_key is None and settings.key_id is None and settings.endpoint is None and not settings.poll:
        return None  # an app id alone names the tenant
    if missing:
        why = "the audit log is read" if settings.poll else "the Admin API is used"
        raise SettingsError(f"{prefix}{name}: is needed where {why}; set it" for name in missing)
    assert settings.app_id and settings.key_id and settings.private_key  # noqa: S101, PT018 - nothing is missing
    try:
        return ApiKey(settings.app_id, settings.key_id, read_key(settings.private_key.get_secret_value()))
    except ValueError as error:
        raise SettingsError([f"{prefix}PRIVATE_KEY: {error}"]) from None
