"""The table of all settings, as the README shows it."""

from __future__ import annotations

from collections.abc import Iterator

from usher.registry import SYSTEMS
from usher.settings import Settings
from usher.settings.environment import Leaf, leaves
from usher.settings.report import SettingRow, default_text
from usher.settings.tenants import tenant_model, tenant_prefix


def every_setting() -> Iterator[Leaf]:
    """Go through all settings with a name of their own: the service's, then those of each identity system."""
    yield from leaves(Settings)
    for system in SYSTEMS:
        yield from leaves(tenant_model(system), tenant_prefix(system))


def settings_table() -> list[SettingRow]:
    """List every environment name with its default and meaning, as the README shows them."""
    return [
        *(SettingRow(leaf.name, default_text(leaf), leaf.field.description or "") for leaf in every_setting()),
        SettingRow(
            "USHER_<SYSTEM>__<NAME>__…",
            "",
            "the same for a further tenant, as in `USHER_KEYCLOAK__SHOP__REALM`; its path is `/ingest/keycloak/shop`",
        ),
        SettingRow("USHER_KAFKA__…", "", "an option of the Kafka client, as in `USHER_KAFKA__SECURITY_PROTOCOL`"),
        SettingRow("USHER_<HANDLER>__…", "", "a setting of a handler's own; `usher handlers` lists them"),
    ]
