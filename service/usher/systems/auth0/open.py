"""Auth0: opens a tenant as the settings describe it."""

from __future__ import annotations

from collections.abc import Iterator

from usher.settings import tenant_prefix
from usher.systems.auth0.api import Auth0Api
from usher.systems.auth0.feeds import Auth0EventsFeed, Auth0LogsFeed
from usher.systems.auth0.rules import Auth0Rules
from usher.systems.auth0.settings import Auth0Settings
from usher.systems.auth0.source import NAME, Auth0Source
from usher.systems.feed import Feed
from usher.systems.system import Session, System

_BATCH = 8 * 1024 * 1024
"""Bytes of a log stream's batch that are taken: Auth0 repeats a refused batch again and again, and sends nothing after it."""


def open_system(settings: Auth0Settings, name: str, session: Session) -> System:
    """Open one tenant of Auth0."""
    secrets = [secret.get_secret_value() for secret in settings.webhook_token]
    source = Auth0Source(secrets, tenant=settings.domain or "", rules=_rules(settings))
    api = _api(settings, name, session)
    feeds: list[Feed] = []
    if settings.poll and api is not None:
        if "events" in settings.feeds:
            feeds.append(Auth0EventsFeed(api, source))
        if "logs" in settings.feeds:
            feeds.append(Auth0LogsFeed(api, source, every=settings.poll_every, types=settings.log_types))
    return System(
        source=source,
        name=name,
        tenant=settings.tenant,
        receives=bool(secrets),
        api=api,
        feeds=tuple(feeds),
        limit=_BATCH,
        warnings=tuple(_warnings(settings, name)),
    )


def _warnings(settings: Auth0Settings, name: str) -> Iterator[str]:
    """Warn of settings that are valid, and with which no user is welcomed."""
    prefix = tenant_prefix(NAME, name)
    if settings.created_from == "events" and not (settings.admin_clients or settings.admin_markers):
        yield (
            f"no user is welcomed: events of new users do not say who made them; set {prefix}ADMIN_MARKERS or "
            f"{prefix}ADMIN_CLIENTS, or {prefix}CREATED_FROM=logs"
        )
    if settings.poll and not settings.webhook_token and settings.created_from not in settings.feeds:
        yield f"no user is welcomed: new users are taken from {settings.created_from}, which {prefix}FEEDS does not pull"


def _rules(settings: Auth0Settings) -> Auth0Rules:
    return Auth0Rules(
        created_from=settings.created_from,
        admin_clients=frozenset(settings.admin_clients),
        user_clients=frozenset(settings.user_clients),
        admin_markers=settings.admin_markers,
        own_client=settings.client_id,
        reset_flag=settings.reset_flag,
    )


def _api(settings: Auth0Settings, name: str, session: Session) -> Auth0Api | None:
    if (access := settings.access) is None:
        return None
    return Auth0Api(
        access.domain,
        client_id=access.client_id,
        client_secret=access.client_secret,
        base_url=access.base_url,
        session=session,
        settings_prefix=tenant_prefix(NAME, name),
        feeds=settings.feeds if settings.poll else (),
        reset_flag=settings.reset_flag,
        app_client_id=settings.app_client_id,
        link_expires_after=settings.link_expires_after,
    )
