"""The settings of Authgear."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal, NamedTuple

from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from pydantic import BeforeValidator, Field, PlainValidator

from usher.event_types import CANONICAL_TYPES
from usher.handler import nearest
from usher.settings import values
from usher.settings.tenant import TenantSettings, missing
from usher.systems.authgear.event_types import CREATE_AUTHENTICATOR, EVENT_TYPES

_SMALLEST_KEY = 2048
POLLED = (
    *(name for name in CANONICAL_TYPES if name in EVENT_TYPES),
    "admin_api.mutation.create_user.executed",
    CREATE_AUTHENTICATOR,
)


def _types(value: object) -> tuple[str, ...]:
    names: tuple[str, ...] = tuple(values.split(value))
    for name in names:
        if name not in EVENT_TYPES:
            raise ValueError(
                f"{name} is no event type of Authgear's{nearest(name, EVENT_TYPES)}; `usher handlers --types` lists them"
            )
    if not names:
        raise ValueError("should name one event type or more, as in user.created,password.reset")
    return names


def signing_key(value: object) -> RSAPrivateKey:
    """Read the private key in a PEM. In an environment variable its line ends may be written as a backslash and an n.

    Raises:
        ValueError: Authgear makes no such key.
    """
    if isinstance(value, RSAPrivateKey):
        return value
    try:
        key = load_pem_private_key(str(value).replace("\\n", "\n").encode(), password=None)
    except (ValueError, TypeError):
        raise ValueError(
            "should be a private key in PEM form (-----BEGIN PRIVATE KEY-----), without a passphrase; "
            "download it anew under Advanced, Admin API, and mount it as a file"
        ) from None
    if not isinstance(key, RSAPrivateKey) or key.key_size < _SMALLEST_KEY:
        raise ValueError(f"should be an RSA key of {_SMALLEST_KEY} bits or more: Authgear takes RS256 only")
    return key


class AuthgearAccess(NamedTuple):
    """The address of the Admin API, and the key that signs our calls."""

    endpoint: str
    app_id: str
    key_id: str
    private_key: RSAPrivateKey


_SigningKey = Annotated[RSAPrivateKey, PlainValidator(signing_key)]
_Steps = Annotated[tuple[Literal["created", "reset"], ...], BeforeValidator(values.split)]


class AuthgearSettings(TenantSettings):
    webhook_secret: values.Secrets = Field(
        (), description="what Authgear signs webhooks with; several while one replaces the other. None: no webhook"
    )
    endpoint: values.BaseUrl | None = Field(
        None, description="the project's endpoint, as in `https://myapp.authgear.cloud`: where its Admin API is"
    )
    app_id: str | None = Field(None, description="the project's id, as in `myapp`; also the tenant of its events")
    key_id: str | None = Field(None, description="the id of the Admin API key")
    private_key: _SigningKey | None = Field(None, description="the Admin API key itself: PEM, RSA")
    poll: bool = Field(
        False, description="whether to read the audit log, for the password events and for what webhooks missed"
    )
    poll_every: values.Pause = Field(15.0, description="the time between looks into the audit log")
    poll_types: Annotated[tuple[str, ...], BeforeValidator(_types)] = Field(
        POLLED, description="the event types that are read there, as handlers name them"
    )
    sends_password: _Steps = Field(
        (),
        description="where your back office has Authgear mail the password (`sendPassword`): `created`, `reset`. Users "
        "with an email address are then not written to",
    )
    expires_password: _Steps = Field(
        (),
        description="where your back office calls `setPasswordExpired` right after: `created`, `reset`. The two are then "
        "reported once",
    )

    @property
    def tenant(self) -> str | None:
        return self.app_id

    @property
    def brings_events(self) -> bool:
        return bool(self.webhook_secret) or self.poll

    @property
    def api_url(self) -> str | None:
        return self.access.endpoint if self.access else None

    @property
    def access(self) -> AuthgearAccess | None:
        """Address and key; None: the Admin API is not used."""
        if self.endpoint is None or self.app_id is None or self.key_id is None or self.private_key is None:
            return None
        return AuthgearAccess(self.endpoint, self.app_id, self.key_id, self.private_key)

    def lacks(self) -> Iterator[str]:
        key = {"KEY_ID": self.key_id, "PRIVATE_KEY": self.private_key}
        if self.poll or self.endpoint or any(key.values()):  # an app id alone names the tenant
            why = "where the audit log is read" if self.poll else "where the Admin API is used"
            yield from missing({"ENDPOINT": self.endpoint, "APP_ID": self.app_id, **key}, why)


SETTINGS = AuthgearSettings
