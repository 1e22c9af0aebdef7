"""The settings of GenAuth and Authing."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, Literal, NamedTuple
from urllib.parse import urlsplit

from pydantic import BeforeValidator, Field, SecretStr

from usher.settings import values
from usher.settings.tenant import GROUP, TenantSettings, missing


def _country_code(value: Any) -> str:
    code = str(value).strip().removeprefix("+")
    if not code.isdecimal() or not 1 <= len(code) <= 3:
        raise ValueError("should be a country code, as in 86 or +44")
    return code


def _brand_of(url: str) -> Literal["genauth", "authing"]:
    """Return the brand that a host expects in the signature; a host of your own is mostly a private deployment of Authing."""
    return "genauth" if (urlsplit(url).hostname or "").endswith("genauth.ai") else "authing"


class GenAuthAccess(NamedTuple):
    """The key that signs requests to the API."""

    id: str
    secret: str


class GenAuthSettings(TenantSettings):
    webhook_secret: values.Secrets = Field(
        (),
        description="the secret that GenAuth sends with webhooks; several while one replaces the other. None: no webhook",
    )
    url: values.BaseUrl = Field(
        "https://api.genauth.ai", description="the API's address; Authing's is `https://api.authing.cn`"
    )
    access_key_id: values.HeaderSafe | None = Field(
        None, description="the key that requests to the API are signed with: its id"
    )
    access_key_secret: SecretStr | None = Field(None, description="its secret; without both the API is not used")
    user_pool_id: str | None = Field(
        default_factory=lambda given: given.get("access_key_id"),
        description="the user pool's id, the tenant of its events; default: the access key's id, which is the pool's own. "
        "Without either: as each webhook says",
    )
    brand: Literal["genauth", "authing"] = Field(
        default_factory=lambda given: _brand_of(given.get("url", "")),
        description="the product whose header names signatures carry, `genauth` or `authing`; default: by the address",
    )
    country_code: Annotated[str, BeforeValidator(_country_code)] = Field(
        "86", description="the country of phone numbers that come without `phoneCountryCode`"
    )
    repeat_window: values.Pause = Field(
        120.0,
        description="webhooks have no id: the same call again within this time is a repeat, later it is a second event",
    )
    poll: bool = Field(False, description="read the admin audit logs for what webhooks missed or did not say")
    poll_every: values.Pause = Field(30.0, description="how often")
    messages_per_minute: values.Count | None = Field(
        100, description="at most so many messages a minute for the users of one tenant; more wait, in order"
    )

    @property
    def tenant(self) -> str | None:
        return self.user_pool_id

    @property
    def brings_events(self) -> bool:
        return bool(self.webhook_secret) or self.poll

    @property
    def api_url(self) -> str | None:
        return self.url if self.access else None

    @property
    def access(self) -> GenAuthAccess | None:
        """The access key; None: the API is not used."""
        if self.access_key_id is None or self.access_key_secret is None:
            return None
        return GenAuthAccess(self.access_key_id, self.access_key_secret.get_secret_value())

    def lacks(self) -> Iterator[str]:
        key = {"ACCESS_KEY_ID": self.access_key_id, "ACCESS_KEY_SECRET": self.access_key_secret}
        if self.poll or any(key.values()):
            why = f"for {GROUP}POLL" if self.poll else "beside the other half of the access key"
            yield from missing(key, why)


SETTINGS = GenAuthSettings
