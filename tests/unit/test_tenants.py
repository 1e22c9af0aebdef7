"""Several tenants of one system: none speaks for another, and no wrong API is asked about a user."""

from __future__ import annotations

from typing import Any

import pytest

from usher.settings import Settings, SettingsError
from usher.systems.open import Systems, open_systems


def opened(**given: str) -> Systems:
    settings = Settings.load({f"USHER_{name.upper()}": value for name, value in given.items()}, env_file=None)
    return open_systems(settings, lambda: pytest.fail("nothing is asked yet"))


@pytest.mark.parametrize(
    ("system", "tenant"),
    [("authgear", "app_id"), ("auth0", "domain"), ("genauth", "user_pool_id"), ("keycloak", "realm")],
)
def test_the_same_tenant_twice_is_refused(system: str, tenant: str) -> None:
    """Both are named: it would not be known which of two APIs knows the user of an event."""
    with pytest.raises(SettingsError) as caught:
        opened(**{f"{system}__{tenant}": "acme.example.com", f"{system}__shop__{tenant}": "acme.example.com"})
    [problem] = caught.value.problems
    assert f"{system}/shop and {system}:" in problem


def test_the_same_tenant_of_two_systems_is_none_twice() -> None:
    """A realm may be called like a project of Authgear's."""
    assert len(opened(keycloak__realm="acme", authgear__app_id="acme")) == 2


@pytest.mark.parametrize(
    ("shop", "others"),
    [
        ({"realm": "shop", "webhook_secret": "s"}, {"shop"}),
        (
            {"realm": "shop", "poll": "true", "url": "https://id.example.com", "client_id": "c", "client_secret": "s"},
            {"shop"},
        ),
        ({"realm": "shop"}, set()),  # it has no webhook: the first one's may be for all realms
        ({"webhook_secret": "s"}, set()),  # of any realm: nothing distinguishes them
    ],
)
def test_which_tenants_have_a_way_of_their_own(shop: dict[str, Any], others: set[str]) -> None:
    """Tenants whose events come by their own webhook or poller, as seen by the first one."""
    given = {f"keycloak__shop__{name}": value for name, value in shop.items()}
    systems = opened(keycloak__webhook_secret="s", authgear__webhook_secret="s", authgear__app_id="app", **given)
    first = next(system for system in systems if system.title == "keycloak")
    assert systems.others(first) == others
