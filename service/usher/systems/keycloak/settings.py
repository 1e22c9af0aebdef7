"""The settings of Keycloak."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, NamedTuple

from pydantic import Field, SecretStr

from usher.settings import values
from usher.settings.tenant import GROUP, TenantSettings, missing


class KeycloakAccess(NamedTuple):
    """The address and credentials of the admin API."""

    url: str
    realm: str
    client_id: str
    client_secret: str


class KeycloakSettings(TenantSettings):
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
    poll_every: values.Pause = Field(10.0, description="the time between looks into the admin events")
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

    @property
    def tenant(self) -> str | None:
        return self.realm

    @property
    def brings_events(self) -> bool:
        return bool(self.webhook_secret) or self.poll

    @property
    def api_url(self) -> str | None:
        return self.access.url if self.access else None

    @property
    def access(self) -> KeycloakAccess | None:
        """Address and credentials; None: the admin API is not used."""
        if self.url is None or self.realm is None or self.client_id is None or self.client_secret is None:
            return None
        return KeycloakAccess(self.url, self.realm, self.client_id, self.client_secret.get_secret_value())

    def lacks(self) -> Iterator[str]:
        beginning = {"URL": self.url, "REALM": self.realm}  # a realm alone names the tenant
        credentials = {"CLIENT_ID": self.client_id, "CLIENT_SECRET": self.client_secret}
        if self.poll or self.url or any(credentials.values()):
            yield from missing({**beginning, **credentials}, f"for {GROUP}POLL" if self.poll else "for the admin API")


SETTINGS = KeycloakSettings
