"""The base of the settings of all identity systems. There may be several tenants of each, with a name each."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from typing import Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from usher.settings import values

TENANT_NAME = re.compile(r"[a-z][a-z0-9_]*")
"""The form of a tenant's name: it is part of an environment name and of the webhook's path."""
GROUP = "{group}"
"""Stands in a tenant's mistakes for the beginning of the settings' names, which only their reader knows."""


class TenantSettings(BaseModel, ABC):
    """The settings of one tenant. ``USHER_KEYCLOAK__URL`` is the first one's, ``USHER_KEYCLOAK__SHOP__URL`` that of ``shop``."""

    model_config = ConfigDict(frozen=True, validate_default=True, extra="forbid")

    messages_per_minute: values.Count | None = Field(
        None, description="at most so many messages a minute for the users of one tenant; more wait, in order"
    )

    @property
    @abstractmethod
    def tenant(self) -> str | None:
        """The ``event.tenant`` of its events; None: each event says it."""

    @property
    @abstractmethod
    def brings_events(self) -> bool:
        """Whether its events come by a webhook or a poller."""

    @property
    def api_url(self) -> str | None:
        """The address of the system's API; None: it is not called."""
        return None

    @abstractmethod
    def lacks(self) -> Iterator[str]:
        """Name each setting that is missing beside the others, in one line; `GROUP` stands for the beginning of its name."""

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if problems := tuple(self.lacks()):
            raise ValueError("\n".join(problems))
        return self


def missing(wanted: Mapping[str, object], why: str) -> Iterator[str]:
    """Make a line for each of the settings *wanted*, by name, that has no value; *why* says when it is needed."""
    return (f"{GROUP}{name}: is needed {why}; set it" for name, value in wanted.items() if not value)
