"""Keycloak: opens a realm as the settings describe it."""

from __future__ import annotations

from usher.settings import tenant_prefix
from usher.systems.keycloak.api import KeycloakApi
from usher.systems.keycloak.feed import KeycloakAdminFeed
from usher.systems.keycloak.settings import KeycloakSettings
from usher.systems.keycloak.source import NAME, KeycloakSource
from usher.systems.system import Session, System


def open_system(settings: KeycloakSettings, name: str, session: Session) -> System:
    """Open one realm."""
    secrets = [secret.get_secret_value() for secret in settings.webhook_secret]
    source = KeycloakSource(
        secrets,
        realm=settings.realm,
        phone_attributes=settings.phone_attributes,
        locale_attribute=settings.locale_attribute,
        required_action=settings.required_action,
    )
    api = _open_api(settings, name, session, source)
    title = f"keycloak/{name}" if name else "keycloak"
    polls = settings.poll and api is not None
    return System(
        source=source,
        name=name,
        tenant=settings.tenant,
        receives=bool(secrets),
        api=api,
        enrich=api.recognize if api else None,
        feeds=[KeycloakAdminFeed(api, source, name=f"{title}:admin-events", every=settings.poll_every)]
        if api and polls
        else (),
        warnings=() if api else (_blind(name),),
    )


def _blind(name: str) -> str:
    prefix = tenant_prefix(NAME, name)
    return (
        "no message is sent about a password that an administrator set: its event has no address, and without the admin API "
        f"no user can be looked up; set {prefix}URL, {prefix}REALM, {prefix}CLIENT_ID and {prefix}CLIENT_SECRET"
    )


def _open_api(settings: KeycloakSettings, name: str, session: Session, source: KeycloakSource) -> KeycloakApi | None:
    if (access := settings.access) is None:
        return None
    return KeycloakApi(
        access.url,
        access.realm,
        client_id=access.client_id,
        client_secret=access.client_secret,
        session=session,
        source=source,
        settings_prefix=tenant_prefix(NAME, name),
        polls=settings.poll,
    )
