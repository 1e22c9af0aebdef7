"""The settings of Keycloak."""

from __future__ import annotations

from pydantic import Field

from usher.settings import values
from usher.settings.tenant import Tenant


class Keycloak(Tenant):
    webhook_secret: values.Secrets = Field(
        (), description="what Keycloak signs webhooks with; several while one replaces the other. None: no webhook"
    )
