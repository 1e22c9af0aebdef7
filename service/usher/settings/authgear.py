"""The settings of Authgear."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, SecretStr

from usher.event import CANONICAL_TYPES, EVENT_TYPES
from usher.handler import nearest
from usher.settings import values
from usher.settings.tenant import Tenant

_SILENT = {"password.changed"}
"""Canonical types that no event of Authgear's becomes."""
POLLED = (
    *(name for name in CANONICAL_TYPES if name not in _SILENT),
    "admin_api.mutation.create_user.executed",
)


def _types(value: object) -> tuple[str, ...]:
    names: tuple[str, ...] = tuple(values.split(value))
    known = EVENT_TYPES - _SILENT
    for name in names:
        if name not in known:
            raise ValueError(
                f"{name} is no event type of Authgear's{nearest(name, known)}; `usher handlers --types` lists them"
            )
    if not names:
        raise ValueError("should name one event type or more, as in user.created,password.reset")
    return names


_Steps = Annotated[tuple[Literal["created", "reset"], ...], BeforeValidator(values.split)]


class Authgear(Tenant):
    webhook_secret: values.Secrets = Field(
        (), description="what Authgear signs webhooks with; several while one replaces the other. None: no webhook"
    )
    endpoint: values.BaseUrl | None = Field(
        None, description="the project's endpoint, as in `https://myapp.authgear.cloud`: where its Admin API is"
    )
    app_id: str | None = Field(None, description="the project's id, as in `myapp`; also the tenant of its events")
    key_id: str | None = Field(None, description="the id of the Admin API key")
    private_key: SecretStr | None = Field(None, description="the Admin API key itself: PEM, RSA")
    poll: bool = Field(
        False, description="whether to read the audit log, for the password events and for what webhooks missed"
    )
    poll_every: values.Duration = Field(15.0, gt=0, description="the time between looks into the audit log")
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
        "told once",
    )
