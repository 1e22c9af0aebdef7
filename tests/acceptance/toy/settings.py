"""The settings of Toybox."""

from __future__ import annotations

from collections.abc import Iterator

from pydantic import Field

from usher.settings import values
from usher.settings.tenant import TenantSettings


class ToySettings(TenantSettings):
    webhook_key: values.Secrets = Field((), description="what Toybox sends in `X-Toy-Key` with webhooks")
    box: str | None = Field(None, description="the box's name; also the tenant of its events")

    @property
    def tenant(self) -> str | None:
        return self.box

    @property
    def brings_events(self) -> bool:
        return bool(self.webhook_key)

    def lacks(self) -> Iterator[str]:
        yield from ()


SETTINGS = ToySettings
