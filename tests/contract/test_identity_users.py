"""A user as each identity system's API has it: not there yet, gone, or disabled. All four are asked alike."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest
from tests.fakes.auth0 import FakeAuth0
from tests.fakes.authgear import FakeAuthgear
from tests.fakes.genauth import FakeGenAuth
from tests.fakes.keycloak import FakeKeycloak

from usher import Event, Retry, Skip
from usher.settings import Settings
from usher.system import IdentitySystem
from usher.systems.decode import decode
from usher.systems.open import open_systems

SYSTEMS = ["auth0", "authgear", "genauth", "keycloak"]
KIM = "auth0|kim"
_FAKES: dict[str, Callable[[], Any]] = {
    "auth0": FakeAuth0,
    "authgear": FakeAuthgear,
    "genauth": FakeGenAuth,
    "keycloak": FakeKeycloak,
}


def _settings(system: str, fake: Any) -> dict[str, Any]:
    if system == "auth0":
        own = {"domain": fake.domain, "base_url": fake.url}
        return {**own, "client_id": fake.client_id, "client_secret": fake.client_secret}
    if system == "authgear":
        own = {"endpoint": fake.url, "app_id": fake.app_id}
        return {**own, "key_id": fake.key_id, "private_key": fake.private_key}
    if system == "genauth":
        own = {"url": fake.url, "brand": fake.brand}
        return {**own, "access_key_id": fake.key_id, "access_key_secret": fake.key_secret}
    return {
        "url": fake.url, "realm": fake.realm, "client_id": fake.client_id, "client_secret": fake.client_secret,
    }  # fmt: skip


@asynccontextmanager
async def scene(system: str) -> AsyncIterator[tuple[Any, IdentitySystem]]:
    """A loopback system without users, and its API, as the settings open it."""
    async with _FAKES[system]() as fake, aiohttp.ClientSession() as session:
        given = {f"USHER_{system.upper()}__{name.upper()}": value for name, value in _settings(system, fake).items()}
        (opened,) = open_systems(Settings.load(given, env_file=None), lambda: session)
        assert opened.api is not None
        yield fake, opened.api


def about(system: str, type_: str = "user.created", age: float = 0.0) -> Event:
    """An event about Kim of so many seconds ago."""
    document = {
        "source": system, "id": "e", "type": type_, "user": {"id": KIM}, "context": {"timestamp": time.time() - age},
    }  # fmt: skip
    return decode(json.dumps(document).encode())


def make(system: str, fake: Any, *, disabled: bool) -> None:
    """Make Kim in the system, as an administrator does."""
    fake.users[KIM] = {
        "auth0": {
            "user_id": KIM, "email": "kim@example.org", "identities": [{"provider": "auth0", "connection": "db"}],
            **({"blocked": True} if disabled else {}),
        },
        "authgear": {"email": "kim@example.org"},
        "genauth": {"userId": KIM, "email": "kim@example.org", "status": "Suspended" if disabled else "Activated"},
        "keycloak": {"id": KIM, "email": "kim@example.org", "enabled": not disabled, "requiredActions": []},
    }[system]  # fmt: skip
    if system == "authgear" and disabled:
        fake.disabled.add(KIM)


@pytest.mark.parametrize("call", ["user", "require_password_change"])
@pytest.mark.parametrize("system", SYSTEMS)
async def test_a_user_who_was_just_made_is_not_there_yet(system: str, call: str) -> None:
    """A system may report the creation before it commits it: the delivery is tried again, and then the user is found."""
    async with scene(system) as (fake, api):
        with pytest.raises(Retry, match="not show the new user yet"):
            await getattr(api, call)(about(system))
        make(system, fake, disabled=False)

        await getattr(api, call)(about(system))


@pytest.mark.parametrize("call", ["user", "require_password_change"])
@pytest.mark.parametrize("system", SYSTEMS)
@pytest.mark.parametrize(
    ("type_", "age"),
    [("user.created", 61.0), ("user.created", -3600.0), ("password.reset", 0.0), ("user.disabled", 0.0)],
)
async def test_a_user_who_is_gone_is_skipped(system: str, call: str, type_: str, age: float) -> None:
    """A minute after the creation, or where something else happened, nobody will come; a time far ahead proves nothing."""
    async with scene(system) as (_, api):
        with pytest.raises(Skip, match="no such user"):
            await getattr(api, call)(about(system, type_, age))


@pytest.mark.parametrize("disabled", [True, False])
@pytest.mark.parametrize("system", SYSTEMS)
async def test_a_look_up_says_whether_the_account_is_disabled(system: str, disabled: bool) -> None:
    """Where the event does not."""
    async with scene(system) as (fake, api):
        make(system, fake, disabled=disabled)
        found = await api.user(about(system, "password.reset"))

    assert (found.email, found.disabled) == ("kim@example.org", disabled)
