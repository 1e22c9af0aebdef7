"""The registry of the identity systems: the one place that names them.

A system is a folder. What is below the systems finds their parts here by name, when it needs them, and imports none. So a
handler's file, which needs the event types alone, loads no client.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

SYSTEMS: dict[str, str] = {
    "authgear": "usher.systems.authgear",
    "auth0": "usher.systems.auth0",
    "genauth": "usher.systems.genauth",
    "keycloak": "usher.systems.keycloak",
}
"""The package of each system. The names are those of sources, of groups of settings, and of webhooks' paths."""


def part(system: str, module: str) -> Any:
    """Return a module of a system's folder: ``event_types``, ``settings`` or ``open``. docs/sources.md says what each holds."""
    return import_module(f"{SYSTEMS[system]}.{module}")
