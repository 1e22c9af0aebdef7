"""Keycloak, as the settings describe it."""

from __future__ import annotations

from usher.identity.keycloak import KeycloakApi
from usher.identity.keycloak_events import AdminEvents
from usher.settings import Keycloak, SettingsError
from usher.sources.keycloak import Keycloak as Source
from usher.systems.system import Session, System


def open_system(settings: Keycloak, name: str, session: Session) -> System:
    """One realm.

    Raises:
        SettingsError: the API's settings are given in part, or polling without them.
    """
    secrets = [secret.get_secret_value() for secret in settings.webhook_secret]
    source = Source(
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
        tenant=settings.realm,
        receives=bool(secrets),
        api=api,
        enrich=api.recognize if api else None,
        feeds=[AdminEvents(api, source, name=f"{title}:admin-events", every=settings.poll_every)]
        if api and polls
        else (),
        warnings=() if api else (_blind(name),),
    )


def _blind(name: str) -> str:
    prefix = _prefix(name)
    return (
        "nobody hears of a password that an administrator set: its event has no address, and without the admin API "
        f"nobody can be looked up; set {prefix}URL, {prefix}REALM, {prefix}CLIENT_ID and {prefix}CLIENT_SECRET"
    )


def _prefix(name: str) -> str:
    """How the names of a tenant's settings begin."""
    return "USHER_KEYCLOAK__" + (f"{name.upper()}__" if name else "")


def _open_api(settings: Keycloak, name: str, session: Session, source: Source) -> KeycloakApi | None:
    prefix = _prefix(name)
    wanted = {
        "URL": settings.url,
        "REALM": settings.realm,
        "CLIENT_ID": settings.client_id,
        "CLIENT_SECRET": settings.client_secret,
    }
    missing = [prefix + setting for setting, value in wanted.items() if not value]
    if missing and (settings.poll or settings.url or settings.client_id or settings.client_secret):
        why = f"{prefix}POLL" if settings.poll else "the admin API"
        raise SettingsError([f"{setting}: is needed for {why}; set it" for setting in missing])
    if settings.url is None or settings.realm is None or settings.client_id is None or settings.client_secret is None:
        return None
    return KeycloakApi(
        settings.url.rstrip("/"),
        settings.realm,
        client_id=settings.client_id,
        client_secret=settings.client_secret.get_secret_value(),
        session=session,
        source=source,
        settings_prefix=prefix,
        polls=settings.poll,
    )
