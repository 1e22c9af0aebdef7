"""The settings of Authgear."""

from __future__ import annotations

from pydantic import Field

from usher.settings import values
from usher.settings.tenant import Tenant


class Authgear(Tenant):
    webhook_secret: values.Secrets = Field(
        (), description="what Authgear signs webhooks with; several while one replaces the other. None: no webhook"
    )
