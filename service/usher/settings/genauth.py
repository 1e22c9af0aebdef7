"""The settings of GenAuth."""

from __future__ import annotations

from pydantic import Field

from usher.settings import values
from usher.settings.tenant import Tenant


class GenAuth(Tenant):
    webhook_secret: values.Secrets = Field(
        (),
        description="the secret that GenAuth sends with webhooks; several while one replaces the other. None: no webhook",
    )
