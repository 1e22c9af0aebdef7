"""Auth0's API as handlers and `usher check` use it, against the loopback Auth0 with all its refusals."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict, replace
from datetime import UTC, datetime
from typing import Any

import aiohttp
import pytest
from tests.fakes.auth0 import CONNECTION, FakeAuth0

from usher.event import Event
from usher.outcome import Hold, Outcome, Reject, Retry, Skip
from usher.systems.auth0.api import Auth0Api
from usher.systems.auth0.source import Auth0Source
from usher.testing.providers import RESET, answer

EMAIL = "eva.lund@example.com"


@asynccontextmanager
async def tenant(
    *, secret: str = "", fake: dict[str, Any] | None = None, **options: Any
) -> AsyncIterator[tuple[FakeAuth0, Auth0Api]]:
    async with FakeAuth0(**(fake or {})) as auth0, aiohttp.ClientSession() as session:
        api = Auth0Api(
            auth0.domain,
            client_id=auth0.client_id,
            client_secret=secret or auth0.client_secret,
            base_url=auth0.url,
            session=lambda: session,
            **options,
        )
        yield auth0, api


def about(fake: FakeAuth0, user: dict[str, Any], type_: str = "user.created") -> Event:
    (arrival,) = Auth0Source(tenant=fake.domain).arrivals(json.dumps(fake.event_of(user, type_)).encode(), {}, 0.0)
    assert arrival.event is not None
    return arrival.event


def at(event: Event, moment: float) -> Event:
    return replace(event, context=replace(event.context, timestamp=moment))


def metadata(fake: FakeAuth0, user: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = fake.users[user["user_id"]].get("app_metadata", {})
    return found


async def test_a_user_is_looked_up_with_one_token() -> None:
    """Address, phone, name and language; the token is kept for the next call."""
    async with tenant() as (fake, api):
        user = fake.create_user(
            username="eva.l", email=EMAIL, phone_number="+12025550147", name="Eva", user_metadata={"lang": "de"}
        )
        event = about(fake, user)

        found = await api.user(event)
        await api.user(event)

    assert {name: item for name, item in asdict(found).items() if name != "id"} == {
        "username": "eva.l", "email": EMAIL, "phone": "+12025550147", "name": "Eva", "locale": "de", "disabled": False,
    }  # fmt: skip
    assert fake.asked.count("POST /oauth/token") == 1


async def test_a_token_that_is_refused_is_fetched_anew_once() -> None:
    """Auth0 may forget tokens; ours is then worth nothing, and the call is not lost."""
    async with tenant() as (fake, api):
        event = about(fake, fake.create_user(email=EMAIL))
        await api.user(event)
        fake.forget_tokens()

        assert (await api.user(event)).email == EMAIL
    assert fake.asked.count("POST /oauth/token") == 2


@pytest.mark.parametrize("call", ["user", "require_password_change", "clear_password_change", "password_link"])
async def test_a_user_who_is_gone_is_nobodys_failure(call: str) -> None:
    """There is nothing to do for the user."""
    async with tenant() as (fake, api):
        event = at(about(fake, fake.create_user(email=EMAIL)), time.time() - 3600)
        fake.users.clear()

        with pytest.raises(Skip, match="no such user"):
            await getattr(api, call)(event)


@pytest.mark.parametrize(
    ("fault", "expected", "after"),
    [
        (answer(503), Retry, None),
        (answer(500), Retry, None),
        (answer(429, headers=[("Retry-After", "7")]), Retry, 7.0),
        (RESET, Retry, None),
        (answer(403), Hold, 60.0),
        (answer(400, body=b'{"errorCode":"invalid_body","message":"eva.lund@example.com is bad"}'), Reject, None),
        (answer(200, body=b"<html>"), Reject, None),
    ],
)
async def test_what_auth0_answers_decides_what_becomes_of_the_delivery(
    fault: Any, expected: type[Outcome], after: float | None
) -> None:
    """Down or busy: later, with the wait it asks for; no right: held; refused: never; and no address is quoted."""
    async with tenant() as (fake, api):
        event = about(fake, fake.create_user(email=EMAIL))
        await api.user(event)
        fake.script(fault, fault)  # aiohttp tries once more where a kept connection was reset

        with pytest.raises(expected) as caught:
            await api.user(event)

    assert getattr(caught.value, "after", None) == after
    assert EMAIL not in str(caught.value)


async def test_a_used_up_rate_limit_is_waited_for_without_asking() -> None:
    """The answer that uses it up says until when: what comes before is held, and counts no attempt."""
    moment = [1_800_000_000.0]
    async with tenant(now=lambda: moment[0]) as (fake, api):
        event = about(fake, fake.create_user(email=EMAIL))
        fake.remaining, fake.reset_at = 1, int(moment[0]) + 4
        await api.user(event)
        asked = len(fake.asked)

        with pytest.raises(Hold, match="rate limit") as caught:
            await api.user(event)
        assert caught.value.after == 4.0
        assert len(fake.asked) == asked
        moment[0] += 4
        fake.remaining = 10
        assert (await api.user(event)).email == EMAIL


async def test_a_429_waits_until_the_reset_it_names() -> None:
    """Where another application has used up the limit: the one call that found out, and all after it, without asking."""
    async with tenant() as (fake, api):
        event = about(fake, fake.create_user(email=EMAIL))
        fake.remaining, fake.reset_at = 0, int(time.time()) + 30

        with pytest.raises(Retry) as caught:
            await api.user(event)

        with pytest.raises(Hold) as held:
            await api.user(event)

    assert caught.value.after is not None
    assert 25 < caught.value.after <= 30
    assert 25 < held.value.after <= 30


async def test_a_slow_auth0_holds_up_what_waits_for_a_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    """The handler's time would run out in our own queue: such a delivery is held, and counts no attempt."""
    monkeypatch.setattr("usher.systems.auth0.api._QUEUE", 0.05)
    async with tenant(fake={"slow": 0.3}) as (fake, api):
        event = about(fake, fake.create_user(email=EMAIL))
        ends = await asyncio.gather(*(api.user(event) for _ in range(8)), return_exceptions=True)

    held = [end for end in ends if isinstance(end, Hold)]
    assert len(held) == 3
    assert all(getattr(end, "email", EMAIL) == EMAIL for end in ends)


async def test_a_new_password_is_required_until_it_is_set() -> None:
    """The flag is set once, with its moment, beside what else is there; the user's change clears it."""
    async with tenant() as (fake, api):
        user = fake.create_user(email=EMAIL, app_metadata={"plan": "pro"})
        event = about(fake, user)

        await api.require_password_change(event)
        await api.require_password_change(event)
        flagged = metadata(fake, user)
        writes = fake.asked.count(f"PATCH /api/v2/users/{user['user_id']}")
        await api.clear_password_change(at(event, time.time() + 60))

    assert flagged == {
        "plan": "pro",
        "needsPasswordReset": True,
        "needsPasswordResetSince": user["created_at"].replace("Z", "+00:00"),
    }
    assert writes == 1
    assert metadata(fake, user)["needsPasswordReset"] is False


async def test_a_late_flag_does_not_catch_who_has_changed_it_already() -> None:
    """The delivery may have been parked for an hour."""
    async with tenant() as (fake, api):
        user = fake.create_user(email=EMAIL)
        event = at(about(fake, user), time.time() - 3600)
        fake.change_password(user["user_id"])

        with pytest.raises(Skip, match="set a new password since"):
            await api.require_password_change(event)
    assert metadata(fake, user) == {}


async def test_an_old_change_does_not_clear_a_newer_flag() -> None:
    """An administrator has required it again meanwhile."""
    async with tenant() as (fake, api):
        user = fake.create_user(email=EMAIL)
        await api.require_password_change(about(fake, user))

        with pytest.raises(Skip, match="required after this change"):
            await api.clear_password_change(at(about(fake, user), time.time() - 3600))
    assert metadata(fake, user)["needsPasswordReset"] is True


async def test_an_event_without_an_id_is_about_who_has_a_password_under_its_address() -> None:
    """An entry may name the address alone; where that is not one user, nobody is touched."""
    async with tenant() as (fake, api):
        user = fake.create_user(email=EMAIL)
        fake.users["google-oauth2|1"] = {"user_id": "google-oauth2|1", "email": EMAIL}
        nameless = about(fake, {"email": EMAIL})
        await api.require_password_change(nameless)
        assert metadata(fake, user)["needsPasswordReset"] is True
        fake.create_user(email=EMAIL)

        for given, expected in (({"email": EMAIL}, Reject), ({"email": "nobody@example.com"}, Skip), ({}, Reject)):
            with pytest.raises(expected) as caught:
                await api.require_password_change(about(fake, given))
            assert "@" not in str(caught.value)


@pytest.mark.parametrize("seconds", [0.05, 1.0, 5.0, 9.9, 600.0])
@pytest.mark.parametrize("changes", ["before", "after"])
async def test_a_user_who_is_quick_is_never_locked_out(seconds: float, changes: str) -> None:
    """A password that the user sets any time after the creation counts, whether the flag was set by then or not."""
    moment = [1_800_000_000.0]
    async with tenant(fake={"now": lambda: moment[0]}, now=lambda: moment[0]) as (fake, api):
        user = fake.create_user(email=EMAIL)
        event = about(fake, user)
        if changes == "after":
            await api.require_password_change(event)
        moment[0] += seconds
        fake.change_password(user["user_id"])
        if changes == "before":
            with pytest.raises(Skip, match="set a new password since"):
                await api.require_password_change(event)
        else:
            assert metadata(fake, user)["needsPasswordReset"] is True
            await api.clear_password_change(at(event, moment[0]))

    assert metadata(fake, user).get("needsPasswordReset") is not True


async def test_an_administrators_own_change_reported_late_clears_nothing() -> None:
    """The log may have an entry about it as if the user had changed the password: Auth0's own time of the change decides."""
    moment = [1_800_000_000.0]
    async with tenant(fake={"now": lambda: moment[0]}, now=lambda: moment[0]) as (fake, api):
        user = fake.create_user(email=EMAIL)
        fake.change_password(user["user_id"])
        reset = at(about(fake, user, "password.reset"), moment[0] + 0.2)
        await api.require_password_change(reset)
        with pytest.raises(Skip, match="required after this change"):
            await api.clear_password_change(at(reset, moment[0] + 3))
        moment[0] += 4
        fake.change_password(user["user_id"])

        await api.clear_password_change(at(reset, moment[0]))
    assert metadata(fake, user)["needsPasswordReset"] is False


async def test_a_later_event_requires_a_later_change() -> None:
    """Else a change between the two, reported late, would clear what the second one asked for."""
    async with tenant() as (fake, api):
        user = fake.create_user(email=EMAIL)
        event, now = about(fake, user), time.time()
        await api.require_password_change(at(event, now - 600))
        await api.require_password_change(at(event, now))
        await api.require_password_change(at(event, now - 600))

        with pytest.raises(Skip, match="required after this change"):
            await api.clear_password_change(at(event, now - 300))
        await api.clear_password_change(at(event, now + 300))
    assert metadata(fake, user)["needsPasswordReset"] is False


async def test_clearing_writes_nothing_where_nothing_is_set() -> None:
    """Most changes of passwords are of users without a flag."""
    async with tenant() as (fake, api):
        user = fake.create_user(email=EMAIL)
        await api.clear_password_change(about(fake, user))

    assert not any(asked.startswith("PATCH") for asked in fake.asked)


async def test_who_signs_in_elsewhere_has_no_password_to_change() -> None:
    """The flag would lock a social user out for good."""
    async with tenant() as (fake, api):
        user = fake.create_user(email=EMAIL)
        user["identities"] = [{"connection": "google-oauth2", "provider": "google-oauth2", "isSocial": True}]

        for call in (api.require_password_change, api.send_password_reset):
            with pytest.raises(Skip, match="no password in Auth0"):
                await call(about(fake, user))


async def test_a_link_says_until_when_it_works() -> None:
    """A ticket of Auth0's, for the application that users log in to."""
    async with tenant(link_expires_after=3600, app_client_id="portal", now=lambda: 1_800_000_000.0) as (fake, api):
        user = fake.create_user(email=EMAIL)
        link = await api.password_link(about(fake, user))

    assert fake.tickets == [
        {"user_id": user["user_id"], "ttl_sec": 3600, "client_id": "portal", "ticket": link.url},
    ]
    assert link.expires_at == datetime.fromtimestamp(1_800_003_600, UTC)


async def test_auth0_sends_its_own_mail() -> None:
    """To the user's address, from the connection that holds the password."""
    async with tenant() as (fake, api):
        await api.send_password_reset(about(fake, fake.create_user(email=EMAIL)))

    assert fake.mails == [EMAIL]
    assert fake.users.popitem()[1]["identities"][0]["connection"] == CONNECTION


async def test_check_proves_credentials_and_reports_what_is_not_granted() -> None:
    """Good ones; ones without a permission that only an action needs; and without one that polling needs."""
    async with tenant() as (_, api):
        assert await api.check() == "acme.eu.auth0.com takes our credentials"
    async with tenant(fake={"scopes": ("read:users", "read:logs")}, feeds=("logs",)) as (_, api):
        assert "not granted: update:users (force_password_change" in await api.check()
    async with tenant(fake={"scopes": ("read:users", "read:logs")}, feeds=("events", "logs")) as (_, api):
        with pytest.raises(Reject, match="has not granted read:events, which polling needs"):
            await api.check()


async def test_check_names_the_settings_of_wrong_credentials() -> None:
    """And neither the secret nor what Auth0 said."""
    async with tenant(secret="wrong-secret", settings_prefix="USHER_AUTH0__EU__") as (_, api):
        with pytest.raises(Hold, match=r"refuses our credentials \(401\); see USHER_AUTH0__EU__CLIENT_ID") as caught:
            await api.check()
    assert "wrong-secret" not in str(caught.value)
