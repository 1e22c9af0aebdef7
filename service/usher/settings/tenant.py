"""What the settings of all identity systems have in common: there may be several tenants of each, told apart by name."""

from __future__ import annotations

import re

from pydantic import BaseModel, ConfigDict, Field

from usher.settings import values

TENANT_NAME = re.compile(r"[a-z][a-z0-9_]*")
"""A tenant's name: it is part of an environment name and of the webhook's path."""


class Tenant(BaseModel):
    """One tenant of an identity system. ``USHER_KEYCLOAK__URL`` is the first one's, ``USHER_KEYCLOAK__SHOP__URL`` that of ``shop``."""

    model_config = ConfigDict(frozen=True, validate_default=True, extra="forbid")

    messages_per_minute: values.Count | None = Field(
        None, description="at most so many messages a minute for the users of one tenant; more wait, in order"
    )
