"""The settings of Auth0."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, NamedTuple

from pydantic import Field, SecretStr

from usher.settings import values
from usher.settings.tenant import GROUP, TenantSettings, missing

_LOG_TYPES = ("sapi", "scp", "scpr", "fcp", "fcpr", "ss", "sce", "scpn", "scu", "sv", "sdu", "fn", "pwd_leak")


class Auth0Access(NamedTuple):
    """The address and credentials of the Management API."""

    domain: str
    client_id: str
    client_secret: str
    base_url: str


class Auth0Settings(TenantSettings):
    webhook_token: values.Secrets = Field(
        (),
        description="what Auth0 sends in `Authorization` with webhooks: the token, or `user:password`; several while one "
        "replaces the other. None: no webhook",
    )
    domain: values.Domain | None = Field(
        None, description="the tenant's own domain, as in `acme.eu.auth0.com`; also the name of the tenant in events"
    )
    client_id: str | None = Field(None, description="the machine-to-machine application that Usher uses the API with")
    client_secret: SecretStr | None = Field(None, description="its secret")
    base_url: values.BaseUrl | None = Field(
        None, description="where the API is reached, without a path; default: `https://` and the domain"
    )
    poll: bool = Field(False, description="whether to pull events and logs from Auth0, beside or instead of webhooks")
    feeds: tuple[Literal["events", "logs"], ...] = Field(
        ("events", "logs"), description="what is pulled: `events` (the Events API), `logs` (the tenant logs)"
    )
    poll_every: values.Pause = Field(15.0, description="the time between looks into the tenant logs")
    log_types: values.Names = Field(
        _LOG_TYPES, description="the types of log entries that are pulled, by their codes; `*`: all of them"
    )
    created_from: Literal["events", "logs"] = Field(
        "events",
        description="what announces a new user: `events` (the event stream's `user.created`) or `logs` (the entry of the "
        "Management API call); the other one runs no handler",
    )
    admin_clients: values.Names = Field(
        (), description="ids of the applications through which only administrators act: the dashboard, a back office"
    )
    user_clients: values.Names = Field(
        (), description="ids of the applications that use the Management API for what users do themselves"
    )
    admin_markers: values.Names = Field(
        (),
        description="what a back office writes into `app_metadata` of the users it makes: `created_by`, or "
        "`created_by=back-office`",
    )
    reset_flag: str = Field(
        "needsPasswordReset",
        min_length=1,
        description="the key in `app_metadata` that makes the post-login Action ask for a new password",
    )
    app_client_id: str | None = Field(
        None, description="the application that users log in to: password links lead back there"
    )
    link_expires_after: values.Duration = Field(432_000.0, description="how long a password link works")

    @property
    def tenant(self) -> str | None:
        return self.domain

    @property
    def brings_events(self) -> bool:
        return bool(self.webhook_token) or self.poll

    @property
    def api_url(self) -> str | None:
        return self.access.base_url if self.access else None

    @property
    def access(self) -> Auth0Access | None:
        """Address and credentials; None: the API is not used."""
        if self.domain is None or self.client_id is None or self.client_secret is None:
            return None
        base_url = self.base_url or f"https://{self.domain}"
        return Auth0Access(self.domain, self.client_id, self.client_secret.get_secret_value(), base_url)

    def lacks(self) -> Iterator[str]:
        credentials = {"CLIENT_ID": self.client_id, "CLIENT_SECRET": self.client_secret}
        if self.poll or any(credentials.values()):
            why = f"for {GROUP}POLL" if self.poll else "for the API"
            yield from missing({"DOMAIN": self.domain, **credentials}, why)


SETTINGS = Auth0Settings
