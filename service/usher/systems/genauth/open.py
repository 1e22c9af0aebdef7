"""GenAuth and Authing: opens a user pool as the settings describe it."""

from __future__ import annotations

from collections.abc import Sequence

from usher.settings import tenant_prefix
from usher.systems.api import ApiClient
from usher.systems.genauth.api import GenAuthApi
from usher.systems.genauth.enrichment import GenAuthEnrichment
from usher.systems.genauth.feed import GenAuthAuditFeed
from usher.systems.genauth.settings import GenAuthSettings
from usher.systems.genauth.source import NAME, GenAuthSource, Repeats
from usher.systems.system import Session, System

_BRANDS = {"genauth": "GenAuth", "authing": "Authing"}


def open_system(settings: GenAuthSettings, name: str, session: Session) -> System:
    """Open one user pool."""
    secrets = [secret.get_secret_value() for secret in settings.webhook_secret]
    tenant, api = settings.tenant, _open_api(settings, name, session)
    source = GenAuthSource(
        secrets,
        tenant=tenant or "",
        strict="user_pool_id" in settings.model_fields_set,
        country_code=settings.country_code,
        repeat_window=settings.repeat_window,
    )
    feeds: Sequence[GenAuthAuditFeed] = ()
    if settings.poll and api is not None:
        title = f"genauth/{name}" if name else "genauth"
        feeds = [GenAuthAuditFeed(api, name=f"{title}:audit", tenant=tenant or "", every=settings.poll_every)]
    return System(
        source=source,
        name=name,
        tenant=tenant,
        receives=bool(secrets),
        api=api,
        enrich=GenAuthEnrichment(api, Repeats(settings.repeat_window)),
        feeds=feeds,
        warnings=() if api else (_blind(name),),
    )


def _blind(name: str) -> str:
    prefix = tenant_prefix(NAME, name)
    return (
        "no message is sent about a password that an administrator set: without an access key it is not known who set it; "
        f"set {prefix}ACCESS_KEY_ID and {prefix}ACCESS_KEY_SECRET"
    )


def _open_api(settings: GenAuthSettings, name: str, session: Session) -> GenAuthApi | None:
    if (access := settings.access) is None:
        return None
    prefix = tenant_prefix(NAME, name)
    what = f"{_BRANDS[settings.brand]} (user pool {settings.user_pool_id})"
    api = ApiClient(
        what, settings.url, session, hint=f"{prefix}ACCESS_KEY_ID, {prefix}ACCESS_KEY_SECRET and {prefix}BRAND"
    )
    return GenAuthApi(
        api, key_id=access.id, key_secret=access.secret, brand=settings.brand, country_code=settings.country_code
    )
