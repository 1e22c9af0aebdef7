"""The settings of Auth0."""

from __future__ import annotations

from pydantic import Field

from usher.settings import values
from usher.settings.tenant import Tenant


class Auth0(Tenant):
    webhook_token: values.Secrets = Field(
        (),
        description="the token that Auth0 sends with webhooks; several while one replaces the other. None: no webhook",
    )
