"""Authgear: opens a project as the settings describe it."""

from __future__ import annotations

from usher.settings import tenant_prefix
from usher.systems.authgear.api import AuthgearApi, AuthgearKey
from usher.systems.authgear.feed import AuthgearAuditFeed, activity_types
from usher.systems.authgear.settings import AuthgearSettings
from usher.systems.authgear.source import NAME, AuthgearHabits, AuthgearSource
from usher.systems.system import Session, System


def open_system(settings: AuthgearSettings, name: str, session: Session) -> System:
    """Open one Authgear project."""
    prefix = tenant_prefix(NAME, name)
    secrets = [secret.get_secret_value() for secret in settings.webhook_secret]
    habits = AuthgearHabits(frozenset(settings.sends_password), frozenset(settings.expires_password))
    source = AuthgearSource(secrets, habits, settings.tenant or "")
    api, feeds = None, []
    if (access := settings.access) is not None:
        types = activity_types(settings.poll_types) if settings.poll else ()
        key = AuthgearKey(access.app_id, access.key_id, access.private_key)
        api = AuthgearApi(access.endpoint, key, session, types=types, prefix=prefix)
        if settings.poll:
            feeds.append(AuthgearAuditFeed(api, key.app_id, source, settings.poll_types, settings.poll_every))
    return System(source=source, name=name, tenant=settings.tenant, receives=bool(secrets), api=api, feeds=feeds)
