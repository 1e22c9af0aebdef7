"""A System: one tenant of an identity system, with its source, API, feeds and limits."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import aiohttp

from usher.system import IdentitySystem
from usher.systems.feed import Feed
from usher.systems.source import Arrival, Source

BODY_LIMIT = 512 * 1024
"""The largest body of a webhook that is read, in bytes: a stored event with its headers must fit twice into a Kafka record of 1 MiB."""

Session = Callable[[], aiohttp.ClientSession]
"""Gives the pooled HTTP session, once there is one."""


class SystemApi(IdentitySystem, Protocol):
    """An identity system's API, as far as Usher itself uses it."""

    async def check(self) -> str:
        """Prove credentials and address, and return what `usher check` reports of them.

        Raises:
            usher.outcome.Outcome: they are wrong, or it can't be known now.
        """


@dataclass(frozen=True, slots=True)
class System:
    """One tenant, as the settings describe it.

    *name* is its name in the settings, empty for the first. *tenant* is the ``event.tenant`` of its events, None if each event
    says it. *receives*: whether there is a secret, and so a webhook. *api* is None without credentials. *enrich* asks the
    system for what the filter needs and an event does not say; *feeds* are polled. *limit* is the largest body of a webhook,
    in bytes; *warnings* are for `usher check`. *messages_per_minute* limits what is sent; None: no limit.
    """

    source: Source
    name: str = ""
    tenant: str | None = None
    receives: bool = False
    api: SystemApi | None = None
    enrich: Callable[[Arrival], Awaitable[Arrival]] | None = None
    feeds: Sequence[Feed] = ()
    limit: int = BODY_LIMIT
    warnings: Sequence[str] = ()
    messages_per_minute: int | None = None

    @property
    def title(self) -> str:
        """Its name for people, in paths and in `USHER_TOPICS`, as in ``keycloak/shop``."""
        return f"{self.source.name}/{self.name}" if self.name else self.source.name

    @property
    def path(self) -> str:
        """The path of its webhook."""
        return f"/ingest/{self.title}"
