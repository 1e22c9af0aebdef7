"""Auth0's settings: what they make of a tenant, and what is said where they do not fit together."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import aiohttp
import pytest

from usher.settings import Settings, SettingsError
from usher.systems.open import Systems, open_systems


def opened(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, **given: str) -> Systems:
    monkeypatch.chdir(tmp_path)  # no .env
    for name, value in given.items():
        monkeypatch.setenv(f"USHER_{name.upper()}", value)
    return open_systems(Settings.load(), lambda: cast("aiohttp.ClientSession", None))


def test_a_token_is_a_webhook_and_no_api(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Nothing is polled, and events say their tenant themselves."""
    (system,) = opened(monkeypatch, tmp_path, auth0__webhook_token="token")

    assert (system.path, system.receives, system.tenant) == ("/ingest/auth0", True, None)
    assert (system.api, system.feeds) == (None, ())


def test_two_tenants_are_distinguished(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Each has its own path, token, API and feeds."""
    eu, shop = opened(
        monkeypatch,
        tmp_path,
        auth0__domain="acme.eu.auth0.com",
        auth0__client_id="c",
        auth0__client_secret="s",
        auth0__poll="true",
        auth0__shop__webhook_token="token",
        auth0__shop__domain="shop.us.auth0.com",
    )

    assert [feed.name for feed in eu.feeds] == ["auth0/acme.eu.auth0.com/events", "auth0/acme.eu.auth0.com/logs"]
    assert (eu.tenant, eu.receives, eu.api is not None) == ("acme.eu.auth0.com", False, True)
    assert (shop.path, shop.tenant, shop.receives) == ("/ingest/auth0/shop", "shop.us.auth0.com", True)


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ({"auth0__poll": "true"}, "USHER_AUTH0__DOMAIN: is needed for USHER_AUTH0__POLL; set it"),
        ({"auth0__client_id": "c"}, "USHER_AUTH0__CLIENT_SECRET: is needed for the API; set it"),
        ({"auth0__eu__client_secret": "s3cret"}, "USHER_AUTH0__EU__CLIENT_ID: is needed for the API; set it"),
        ({"auth0__domain": "https://acme.auth0.com/"}, "should be a domain alone"),
        ({"auth0__feeds": "users"}, "USHER_AUTH0__FEEDS"),
        ({"auth0__created_from": "both"}, "should be one of 'events' or 'logs'"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, given: dict[str, str], problem: str
) -> None:
    """And never with a secret."""
    with pytest.raises(SettingsError) as caught:
        opened(monkeypatch, tmp_path, **given)

    assert problem in str(caught.value)
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize(
    ("given", "warning"),
    [
        ({}, "set USHER_AUTH0__ADMIN_MARKERS or"),
        ({"auth0__admin_markers": "created_by"}, None),
        ({"auth0__admin_clients": "back-office"}, None),
        ({"auth0__created_from": "logs"}, None),
    ],
)
def test_a_tenant_that_welcomes_nobody_is_warned_of(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, given: dict[str, str], warning: str | None
) -> None:
    """Everything works, and no mail ever goes out: `usher check` says what to set."""
    (system,) = opened(monkeypatch, tmp_path, auth0__webhook_token="token", **given)

    assert [warning in given for given in system.warnings if warning] == [True] * len(system.warnings)
    assert bool(system.warnings) == bool(warning)


def test_feeds_that_do_not_bring_new_users_are_warned_of(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The other one is what counts."""
    given = {"domain": "a.auth0.com", "client_id": "c", "client_secret": "s", "poll": "true", "feeds": "events"}
    given["created_from"] = "logs"
    (system,) = opened(monkeypatch, tmp_path, **{f"auth0__{name}": value for name, value in given.items()})

    assert system.warnings == (
        "no user is welcomed: new users are taken from logs, which USHER_AUTH0__FEEDS does not pull",
    )
