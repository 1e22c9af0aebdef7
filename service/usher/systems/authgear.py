"""Authgear, as the settings describe it."""

from __future__ import annotations

from usher.settings import Authgear
from usher.sources import authgear
from usher.systems.system import Session, System


def open_system(settings: Authgear, name: str, session: Session) -> System:  # noqa: ARG001 - every system has one
    """One Authgear project."""
    secrets = [secret.get_secret_value() for secret in settings.webhook_secret]
    return System(source=authgear.Authgear(secrets), name=name, receives=bool(secrets))
