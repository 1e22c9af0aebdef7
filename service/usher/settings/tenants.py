"""The tenants of the identity systems: from the names of the environment to their settings.

Each system's settings stand in its folder; the registry finds them.
"""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import ValidationError

from usher.registry import part
from usher.settings.environment import PREFIX, Environment, leaves
from usher.settings.report import mistakes
from usher.settings.tenant import TenantSettings


def tenant_model(system: str) -> type[TenantSettings]:
    """Return the settings of a system's tenants."""
    model: type[TenantSettings] = part(system, "settings").SETTINGS
    return model


def tenant_prefix(system: str, name: str = "") -> str:
    """Return the beginning of the names of a tenant's settings."""
    return f"{PREFIX}{system.upper()}__" + (f"{name.upper()}__" if name else "")


def read_tenants(system: str, given: Mapping[str, Mapping[str, str]], problems: list[str]) -> dict[str, TenantSettings]:
    """Read the tenants of a system from what is *given* for each; add a line to *problems* for each mistake."""
    model = tenant_model(system)
    made: dict[str, TenantSettings] = {}
    for name in sorted(given, key=bool):  # the first one has no name
        prefix = tenant_prefix(system, name)
        filled = Environment(given[name], model, prefix)
        problems += filled.problems
        try:
            made[name] = model.model_validate(filled.values)
        except ValidationError as error:
            problems += mistakes(error, filled, leaves(model, prefix), prefix)
    return made
