"""The settings of Keycloak."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, SecretStr

from usher.settings import values
from usher.settings.tenant import Tenant


class Keycloak(Tenant):
    webhook_secret: values.Secrets = Field(
        (), description="what Keycloak signs webhooks with; several while one replaces the other. None: no webhook"
    )
    url: values.ApiUrl | None = Field(
        None,
        description="where Keycloak is reached: what comes before `/realms` and `/admin`, as in `https://id.example.com`",
    )
    realm: str | None = Field(None, min_length=1, description="the realm's name; also the name of the tenant in events")
    client_id: str | None = Field(None, description="the client that Usher uses the admin API with")
    client_secret: SecretStr | None = Field(None, description="its secret")
    poll: bool = Field(False, description="whether to read the realm's admin events, beside or instead of webhooks")
    poll_every: values.Duration = Field(10.0, description="the time between looks into the admin events")
    phone_attributes: values.Names = Field(
        ("phoneNumber", "phone_number", "mobile"),
        description="the user's attributes that a phone number may be in, best first",
    )
    locale_attribute: str = Field("locale", min_length=1, description="the user's attribute that has the language")
    required_action: Literal["any", "alone"] = Field(
        "any",
        description="which updates of a user with the required action UPDATE_PASSWORD are `password.expired`: `any`, or only "
        "those that say it `alone`; the admin console sends all fields with every change",
    )
