"""What a webhook's secret vouches for: events of its own tenant, and of now."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from tests.ingress import Site, sign

from usher.delivery import StoredRecord
from usher.settings import Settings
from usher.systems.open import open_source
from usher.systems.source import Source, own, read_record

SECRET = "whsec-0123456789abcdef"
NOW = 1_790_000_000.0
HEADERS = {"authgear": "x-authgear-body-signature", "keycloak": "x-keycloak-signature"}
NAMES = {"authgear": "APP_ID", "keycloak": "REALM", "genauth": "USER_POOL_ID"}


def opened(system: str, tenant: str = "") -> Source:
    """The source of a tenant, as settings open it; *tenant* names its app, realm or pool."""
    named = {f"USHER_{system.upper()}__{NAMES[system]}": tenant} if tenant else {}
    secret = {f"USHER_{system.upper()}__WEBHOOK_SECRET": SECRET}
    return open_source(Settings.load({**named, **secret}, env_file=None), system)


def authgear(tenant: str, at: float = NOW) -> dict[str, Any]:
    context = {"app_id": tenant, "user_id": "u-1", "triggered_by": "admin_api", "timestamp": at}
    return {"id": "1", "type": "user.created", "context": context, "payload": {}}


def keycloak(tenant: str, at: float = NOW) -> dict[str, Any]:
    return {
        "id": "1", "operationType": "CREATE", "resourceType": "USER", "resourcePath": "users/u-1",
        "realmName": tenant, "time": int(at * 1000),
    }  # fmt: skip


def genauth(tenant: str) -> dict[str, Any]:
    return {"eventName": "user:created", "data": {"userId": "u-1", "userPoolId": tenant}}


def site(system: str, tenant: str = "") -> Site:
    def prove(body: bytes) -> dict[str, str]:
        return sign(HEADERS[system], body, SECRET) if system in HEADERS else {"x-authing-token": SECRET}

    return Site(opened(system, tenant), prove, now=lambda: NOW)


systems = pytest.mark.parametrize(
    ("system", "document"), [("authgear", authgear), ("keycloak", keycloak), ("genauth", genauth)]
)
signed = pytest.mark.parametrize(("system", "document"), [("authgear", authgear), ("keycloak", keycloak)])


@systems
async def test_a_tenant_that_names_itself_takes_events_of_no_other(
    system: str, document: Callable[[str], dict[str, Any]]
) -> None:
    """Also of one that nobody has set up: its secret is its own. A note of it is kept, with nothing of its content."""
    async with site(system, "shop") as here:
        assert await here.post(json.dumps(document("shop")).encode()) == 200
        assert await here.post(json.dumps(document("warehouse")).encode()) == 202
        assert b"only those of shop" in here.kept[1].value
        assert b"u-1" not in here.kept[1].value


@systems
async def test_a_tenant_without_a_name_takes_events_of_all(
    system: str, document: Callable[[str], dict[str, Any]]
) -> None:
    """One secret for several realms is a set-up that is meant."""
    async with site(system) as here:
        for tenant in ("shop", "warehouse"):
            assert await here.post(json.dumps(document(tenant)).encode()) == 200


@systems
def test_in_a_topic_the_records_of_other_tenants_are_passed_over(
    system: str, document: Callable[[str], dict[str, Any]]
) -> None:
    """Listeners write all realms to one topic: that is no fault, and no dead letter."""
    source = opened(system, "shop")
    ours, others = (
        read_record(source, StoredRecord("raw", 0, 0, 0, None, json.dumps(document(tenant)).encode()))
        for tenant in ("shop", "warehouse")
    )

    assert ours is not None
    assert ours.event is not None
    assert others is None


@systems
def test_an_event_that_names_no_tenant_is_the_tenants_own(
    system: str, document: Callable[[str], dict[str, Any]]
) -> None:
    """The admin API leaves the realm's name out, and who may sign may say nothing."""
    source = opened(system, "shop")
    [arrival] = source.arrivals(json.dumps(document("")).encode(), {}, NOW)

    assert own(source, arrival) is arrival


@signed
@pytest.mark.parametrize(("ahead", "status"), [(0.0, 200), (290.0, 200), (310.0, 401), (1e9, 401), (-1e8, 200)])
async def test_a_signed_event_of_the_future_is_refused(
    system: str, document: Callable[..., dict[str, Any]], ahead: float, status: int
) -> None:
    """Clocks differ by minutes at most; what is dated later would never expire, however often it is sent."""
    async with site(system) as here:
        assert await here.post(json.dumps(document("shop", NOW + ahead)).encode()) == status
        assert len(here.kept) == (status == 200)
        assert here.counted("dated-ahead") == (status == 401)


async def test_events_of_the_future_warn_once_a_minute_with_their_number() -> None:
    """A clock that is wrong is seen in the log, and does not fill it."""
    async with site("authgear") as here:
        for _ in range(3):
            await here.post(json.dumps(authgear("shop", NOW + 1e6)).encode())
        here.now = 61.0
        await here.post(json.dumps(authgear("shop", NOW + 1e6)).encode())
        said = [line for line in here.lines.entries if line["event"] == "webhook refused: dated ahead of our clock"]
        assert [line["count"] for line in said] == [1, 3]
