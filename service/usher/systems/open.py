"""The identity systems that the settings name. The registry finds what opens each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import NoReturn

from usher.event import Event
from usher.registry import SYSTEMS, part
from usher.settings import Settings, SettingsError, TenantSettings, tenant_model
from usher.system import IdentitySystem
from usher.systems.source import Source
from usher.systems.system import Session, System


class Systems(tuple[System, ...]):
    """All systems; finds one by event or topic."""

    __slots__ = ()

    def which(self, event: Event) -> System | None:
        """Find the system that *event* came from; None: it is not known.

        It is found by the tenant. If just one tenant of the system is set up, without the tenant's name, it is that one.
        """
        ours = [system for system in self if system.source.name == event.source]
        for system in ours:
            if system.tenant is not None and system.tenant == event.tenant:
                return system
        return ours[0] if len(ours) == 1 and ours[0].tenant is None else None

    def of(self, event: Event) -> IdentitySystem | None:
        """Find the API of the system that *event* came from; None: the system is not known, or has no credentials."""
        system = self.which(event)
        return None if system is None else system.api

    def others(self, system: System) -> frozenset[str]:
        """List the tenants whose events come by webhooks or pollers of their own: the webhook of *system* can't speak for them."""
        return frozenset(
            other.tenant
            for other in self
            if other.source.name == system.source.name
            and other.tenant not in (None, system.tenant)
            and (other.receives or other.feeds)
        )

    def sources_of_topics(self, settings: Settings) -> Mapping[str, Source]:
        """Map the topics that hold a system's own events to the sources that read them."""
        by_name = {(system.source.name, system.name): system.source for system in self}
        return {topic.name: by_name[topic.source, topic.tenant] for topic in settings.topics if topic.source}


def open_systems(settings: Settings, session: Session) -> Systems:
    """Open the systems that the settings name, also those that only a topic names. No connection or request is made yet."""
    opened: list[System] = []
    for system in SYSTEMS:
        tenants = dict(settings.tenants_of(system))
        if any((topic.source, topic.tenant) == (system, "") for topic in settings.topics):
            tenants.setdefault("", tenant_model(system)())
        for name, tenant in tenants.items():
            opened.append(_open(system, tenant, name, session))
    return Systems(opened)


def open_source(settings: Settings, title: str) -> Source:
    """Open the source of the tenant *title*, as in ``keycloak`` or ``keycloak/shop``; the first one needs no settings.

    Raises:
        SettingsError: there is no such system or tenant.
    """
    system, _, name = title.partition("/")
    if system not in SYSTEMS:
        raise SettingsError(
            [f"{title!r} is no source; write one of {', '.join(SYSTEMS)}, a tenant may follow: keycloak/shop"]
        )
    tenants = {"": tenant_model(system)(), **settings.tenants_of(system)}
    if name not in tenants:
        raise SettingsError(
            [
                f"{title!r}: nothing is set for a tenant {name!r}; set USHER_{system.upper()}__{name.upper()}__…, or leave it out"
            ]
        )
    return _open(system, tenants[name], name, _no_session).source


def _open(system: str, settings: TenantSettings, name: str, session: Session) -> System:
    """Open one tenant."""
    opened: System = part(system, "open").open_system(settings, name, session)
    return replace(opened, messages_per_minute=settings.messages_per_minute)


def _no_session() -> NoReturn:
    raise RuntimeError("a source makes no request")
