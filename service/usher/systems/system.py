"""A System: one tenant of an identity system, with all that Usher does with it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import aiohttp

from usher.identity.poll import Feed
from usher.sources import Arrival, Source
from usher.system import IdentitySystem
from usher.web import DEFAULT_LIMIT

Session = Callable[[], aiohttp.ClientSession]
"""Gives the pooled HTTP session, once there is one."""


class SystemApi(IdentitySystem, Protocol):
    """An identity system's API, as far as Usher itself uses it."""

    async def check(self) -> str:
        """What `usher check` tells of it when credentials and address are good.

        Raises:
            usher.outcome.Outcome: they are not, or it can't be told now.
        """


@dataclass(frozen=True, slots=True)
class System:
    """What the settings say of one tenant.

    *name* is its name in the settings, empty for the first. *tenant* is what its events carry as ``event.tenant``, None
    where they say it themselves. *receives*: whether there is a secret, and so a webhook. *api* is None without credentials.
    *enrich* asks the system for what the filter needs and an event does not say; *feeds* are those to be polled. *limit*
    is the largest body of a webhook, in bytes; *warnings* are what `usher check` warns of.
    *messages_per_minute* caps what is sent.
    """

    source: Source
    name: str = ""
    tenant: str | None = None
    receives: bool = False
    api: SystemApi | None = None
    enrich: Callable[[Arrival], Awaitable[Arrival]] | None = None
    feeds: Sequence[Feed] = ()
    limit: int = DEFAULT_LIMIT
    warnings: Sequence[str] = ()
    messages_per_minute: int | None = None

    @property
    def title(self) -> str:
        """As in ``keycloak/shop``: names it to people, in paths and in `USHER_TOPICS`."""
        return f"{self.source.name}/{self.name}" if self.name else self.source.name

    @property
    def path(self) -> str:
        """Of its webhook."""
        return f"/ingest/{self.title}"
