"""The identity systems that the settings name: what connects the settings, the sources and the APIs. One file a system."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from usher.event import Event
from usher.settings import SYSTEMS, Settings, Tenant
from usher.sources import Source
from usher.system import IdentitySystem
from usher.systems import auth0, authgear, genauth
from usher.systems.system import Session, System

__all__ = ["Session", "System", "Systems", "open_systems"]

_OPEN: Mapping[str, Callable[[Any, str, Session], System]] = {
    "authgear": authgear.open_system,
    "auth0": auth0.open_system,
    "genauth": genauth.open_system,
}


class Systems(tuple[System, ...]):
    """All of them, to be asked by event or topic."""

    __slots__ = ()

    def of(self, event: Event) -> IdentitySystem | None:
        """The API of the system that *event* came from; None where it can't be told, or there are no credentials.

        By the tenant; where just one tenant of the system is set up and does not say which it is, it is that one.
        """
        ours = [system for system in self if system.source.name == event.source]
        for system in ours:
            if system.tenant is not None and system.tenant == event.tenant:
                return system.api
        return ours[0].api if len(ours) == 1 and ours[0].tenant is None else None

    def sources_of_topics(self, settings: Settings) -> Mapping[str, Source]:
        """The topics that hold a system's own events, and what reads them."""
        by_name = {(system.source.name, system.name): system.source for system in self}
        return {topic.name: by_name[topic.source, topic.tenant] for topic in settings.topics if topic.source}


def open_systems(settings: Settings, session: Session) -> Systems:
    """The systems that the settings name, also those of which only a topic is told. Nothing is connected or asked yet.

    Raises:
        SettingsError: what is set for one does not fit together.
    """
    opened = []
    for system in SYSTEMS:
        tenants: dict[str, Tenant] = dict(settings.tenants_of(system))
        if any((topic.source, topic.tenant) == (system, "") for topic in settings.topics):
            tenants.setdefault("", getattr(settings, system))
        opened += [_OPEN[system](tenant, name, session) for name, tenant in tenants.items()]
    return Systems(opened)
