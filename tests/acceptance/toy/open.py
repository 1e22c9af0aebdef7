"""Toybox: opens a box as the settings describe it."""

from __future__ import annotations

from usher.systems.system import Session, System

from .settings import ToySettings
from .source import ToySource


def open_system(settings: ToySettings, name: str, session: Session) -> System:
    keys = [key.get_secret_value() for key in settings.webhook_key]
    source = ToySource(keys, settings.box or "")
    return System(source=source, name=name, tenant=settings.tenant, receives=bool(keys))
