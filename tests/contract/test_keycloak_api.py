"""Keycloak's admin API as Usher uses it, against one on loopback: tokens, users, actions, and the admin events with their failures."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import asdict
from typing import Any

import aiohttp
import pytest
from tests.fakes.keycloak import ACCOUNT, FakeKeycloak
from tests.identity_api import FIELDS_OF_ADA, NOW, about, look

from usher.outcome import Hold, Reject, Retry, Skip
from usher.settings import Settings, SettingsError
from usher.systems.decode import decode
from usher.systems.keycloak.api import KeycloakApi
from usher.systems.keycloak.feed import KeycloakAdminFeed
from usher.systems.keycloak.source import KeycloakSource
from usher.systems.open import open_systems
from usher.testing import Clock
from usher.testing.providers import RESET, Fault, answer

ADA = {
    "username": "ada.k", "email": "ada@example.com", "firstName": "Ada", "lastName": "Keller",
    "attributes": {"mobile": ["+41440000019"], "locale": ["de-CH"]},
}  # fmt: skip


class Scene:
    """A fake Keycloak at a time of ours, its client and its feed."""

    def __init__(self, fake: FakeKeycloak, session: aiohttp.ClientSession, clock: Clock) -> None:
        self.fake, self.clock, self.session = fake, clock, session
        self.api = self.client()
        self.feed = KeycloakAdminFeed(
            self.api, KeycloakSource(realm=fake.realm), name="keycloak", every=10.0, now=clock
        )

    def client(self, **options: Any) -> KeycloakApi:
        given = {"url": self.fake.url, "realm": self.fake.realm, "client_secret": self.fake.client_secret, **options}
        url, realm = given.pop("url"), given.pop("realm")
        given.setdefault("source", KeycloakSource(realm=realm))
        return KeycloakApi(url, realm, client_id=self.fake.client_id, session=lambda: self.session, **given)

    def resets(self, count: int, apart: float = 1.0) -> list[str]:
        """So many passwords are reset, one after the other: the ids of the events."""
        ids = []
        for _ in range(count):
            self.clock.advance(apart)
            ids.append(self.fake.happens("ACTION", "users/ada/reset-password")["id"])
        return ids


@asynccontextmanager
async def scene() -> AsyncIterator[Scene]:
    clock = Clock(NOW)
    async with FakeKeycloak(now=clock) as fake, aiohttp.ClientSession() as session:
        fake.create_user("ada", **ADA)
        yield Scene(fake, session, clock)


# Users and actions.


async def test_a_user_is_looked_up_by_id() -> None:
    """Addresses and name are the user's, number and language are in attributes."""
    async with scene() as it:
        user = await it.api.user(about())
    assert asdict(user) == FIELDS_OF_ADA


async def test_nobody_is_looked_up_where_the_event_names_no_user() -> None:
    """Nothing is asked; an action can't be done and says so."""
    async with scene() as it:
        assert (await it.api.user(about(None))).email is None
        with pytest.raises(Reject, match="does not say which user"):
            await it.api.require_password_change(about(None))
        assert it.fake.asked == []


async def test_a_user_who_is_gone_is_skipped() -> None:
    """Nobody is left to be written to, or to be made to change a password."""
    async with scene() as it:
        for act in (
            it.api.user,
            it.api.require_password_change,
            it.api.clear_password_change,
            it.api.send_password_reset,
        ):
            with pytest.raises(Skip, match="no such user"):
                await act(about("gone"))


async def test_an_id_can_not_lead_to_another_path() -> None:
    """It is the system's to say what an id looks like; in a path it is one segment."""
    async with scene() as it:
        with pytest.raises(Skip, match="no such user"):
            await it.api.user(about("ada/credentials?x=#"))
        assert it.fake.answered == [200, 404]


async def test_the_required_action_is_added_once_beside_others_and_taken_back() -> None:
    """Keycloak takes the list for the whole; what is there already is not written again."""
    async with scene() as it:
        it.fake.users["ada"]["requiredActions"] = ["VERIFY_EMAIL"]
        await it.api.require_password_change(about())
        await it.api.require_password_change(about())
        assert it.fake.users["ada"]["requiredActions"] == ["VERIFY_EMAIL", "UPDATE_PASSWORD"]
        await it.api.clear_password_change(about())
        await it.api.clear_password_change(about())
        assert it.fake.users["ada"]["requiredActions"] == ["VERIFY_EMAIL"]
        assert [asked for asked in it.fake.asked if asked.startswith("PUT")] == [
            "PUT /admin/realms/example/users/ada"
        ] * 2


async def test_a_password_that_was_reset_since_is_still_to_be_changed() -> None:
    """An old event of a change does not undo a newer temporary password."""
    async with scene() as it:
        it.clock.advance(3600)
        it.fake.reset_password("ada")
        with pytest.raises(Skip, match="another password was set since"):
            await it.api.clear_password_change(about())
        assert it.fake.users["ada"]["requiredActions"] == ["UPDATE_PASSWORD"]


async def test_keycloak_sends_its_own_mail_to_users_with_an_address() -> None:
    """Without an address there is nothing to send; there is no link that we could send."""
    async with scene() as it:
        it.fake.create_user("bob")
        await it.api.send_password_reset(about())
        with pytest.raises(Skip, match="no email address"):
            await it.api.send_password_reset(about("bob"))
        assert it.fake.sent == ["ada"]
        with pytest.raises(Reject, match="does not have a link"):
            await it.api.password_link(about())


@pytest.mark.parametrize("fault", [answer(500), answer(503), RESET, answer(429)])
async def test_what_may_pass_is_worth_another_attempt(fault: Fault) -> None:
    """No answer, 5xx and 429 are tried again later, whether they meet the token or the call; reasons name no user."""
    token = answer(200, body=b'{"access_token": "t", "expires_in": 300}')
    async with scene() as it:
        for faults in ([fault], [token, fault, fault]):  # aiohttp itself repeats a GET on a connection that was cut
            it.fake.script(*faults)
            with pytest.raises(Retry) as trouble:
                await it.client().user(about())
            assert "ada" not in trouble.value.reason


async def test_the_wait_that_is_asked_for_is_kept() -> None:
    """429 with Retry-After, as a proxy before Keycloak says it."""
    async with scene() as it:
        await it.api.user(about())
        it.fake.script(answer(429, headers=[("Retry-After", "7")]))
        with pytest.raises(Retry) as trouble:
            await it.api.user(about())
        assert trouble.value.after == 7


@pytest.mark.parametrize("body", [b"", b"[]", b'{"access_to', b'{"access_token": 5}'])
async def test_an_answer_that_is_cut_is_no_answer(body: bytes) -> None:
    """Half a document is as good as none."""
    async with scene() as it:
        it.fake.script(answer(200, body=body))
        with pytest.raises(Retry, match="without a token"):
            await it.client().user(about())
        await it.api.user(about())
        it.fake.script(answer(200, body=body))
        with (
            pytest.raises(Retry, match="without admin events")
            if body != b"[]"
            else pytest.raises(Retry, match="without a user")
        ):
            await (it.api.admin_events(0, 1) if body != b"[]" else it.api.user(about()))


async def test_a_token_is_kept_and_one_that_was_forgotten_is_fetched_anew() -> None:
    """Three calls, two tokens: Keycloak was restarted in between."""
    async with scene() as it:
        await it.api.user(about())
        await it.api.user(about())
        it.fake.forget_tokens()
        await it.api.user(about())
        assert sum("token" in asked for asked in it.fake.asked) == 2


async def test_refused_credentials_are_the_operators_affair() -> None:
    """A wrong secret or a missing role holds deliveries without counting an attempt, and names the settings."""
    async with scene() as it:
        with pytest.raises(Hold, match=r"refuses our credentials \(401\); see USHER_KEYCLOAK__URL"):
            await it.client(client_secret="wrong").check()
        it.fake.forbidden = True
        with pytest.raises(Hold, match=r"\(403\).*roles of its service account"):
            await it.api.check()


async def test_check_says_what_the_realm_keeps() -> None:
    """Polling needs admin events; without their representation a required action can't be seen."""
    async with scene() as it:
        api = it.client(polls=True)
        assert await it.api.check() == "realm example takes our credentials"
        assert (await api.check()).endswith("and keeps admin events")
        it.fake.events_config["adminEventsDetailsEnabled"] = False
        assert "no password.expired is seen" in await api.check()
        it.fake.events_config["adminEventsEnabled"] = False
        with pytest.raises(Reject, match="keeps no admin events"):
            await api.check()


async def test_a_mail_that_we_had_sent_is_known_by_our_account() -> None:
    """A process that made no call before finds out who it is; what an administrator had sent stays the administrator's."""
    async with scene() as it:
        source = KeycloakSource(realm="example")
        api = it.client(source=source)
        path = "users/ada/execute-actions-email"
        by_us, by_admin = (
            source.arrival(it.fake.happens("ACTION", path, by=who)) for who in (ACCOUNT, "an-administrator")
        )
        events = [(await api.recognize(arrival)).event for arrival in (by_us, by_admin)]
        assert [event.context.already_notified_by is not None for event in events if event] == [True, False]
        assert decode((await api.recognize(by_us)).value) == events[0]
        assert source.arrival(it.fake.happens("ACTION", path, by=ACCOUNT)).event.context.already_notified_by  # type: ignore[union-attr]


# The feed.


async def test_a_feed_begins_now() -> None:
    """What happened before is not brought; what follows is, oldest first, with the realm's name for a tenant."""
    async with scene() as it:
        it.resets(3)
        begun = await it.feed.page(None)
        assert (begun.arrivals, begun.more) == ((), False)
        ids = it.resets(3)
        page = await it.feed.page(begun.cursor)
        assert [arrival.event.id for arrival in page.arrivals if arrival.event] == ids
        assert {arrival.event.tenant for arrival in page.arrivals if arrival.event} == {"example"}


async def test_a_feed_of_a_realm_without_events_begins_now_too() -> None:
    """The first event ever is brought."""
    async with scene() as it:
        it.fake.admin_events.clear()
        begun = await it.feed.page(None)
        ids = it.resets(1)
        assert (await look(it.feed, begun.cursor))[0] == ids


@pytest.mark.parametrize("apart", [0.0, 0.2, 5.0])
async def test_many_events_come_page_by_page_oldest_first_and_none_is_missing(apart: float) -> None:
    """More than a page, however close together: all are brought, in order, in pages of at most a hundred."""
    async with scene() as it:
        begun = (await it.feed.page(None)).cursor
        it.clock.advance(1)
        ids = it.resets(650, apart)
        found, after = await look(it.feed, begun)
        assert set(found) == set(ids)
        if apart:
            assert list(dict.fromkeys(found)) == ids
        assert set((await look(it.feed, after))[0]) <= set(found)


async def test_events_that_come_in_between_the_pages_shift_none_out() -> None:
    """Keycloak counts from the newest: what is new moves everything, and still each event is brought."""
    async with scene() as it:
        cursor = (await it.feed.page(None)).cursor
        ids, found = it.resets(500), set[str]()
        for _ in range(60):
            page = await it.feed.page(cursor)
            found |= {arrival.event.id for arrival in page.arrivals if arrival.event}
            cursor = page.cursor
            if not page.more:
                break
            ids += it.resets(random.Random(len(ids)).choice([0, 7, 40, 60]))
        assert found | set((await look(it.feed, cursor))[0]) == set(ids)


async def test_an_event_that_is_written_late_is_brought() -> None:
    """Its transaction took a minute: its time is older than what was seen."""
    async with scene() as it:
        begun = (await it.feed.page(None)).cursor
        it.clock.advance(200)
        it.resets(1)
        _, after = await look(it.feed, begun)
        late = it.fake.happens("ACTION", "users/ada/reset-password", at=it.clock() - 60)
        assert late["id"] in (await look(it.feed, after))[0]


async def test_an_event_that_is_written_late_while_a_walk_waits_between_two_pages_is_brought() -> None:
    """The walk has passed its place, and goes on minutes later."""
    async with scene() as it:
        begun = (await it.feed.page(None)).cursor
        it.clock.advance(200)
        it.resets(250, apart=0.1)
        first = await it.feed.page(begun)
        assert first.more
        late = it.fake.happens("ACTION", "users/ada/reset-password", at=it.clock() - 60)
        it.clock.advance(180)
        it.resets(1)
        found, after = await look(it.feed, first.cursor)
        found += (await look(it.feed, after))[0]
        assert late["id"] in found


async def test_a_server_whose_clock_is_ahead_hides_nothing() -> None:
    """An event of the next hour is brought, and so is what the other servers write after it by the right time."""
    async with scene() as it:
        begun = (await it.feed.page(None)).cursor
        it.clock.advance(10)
        ahead = it.fake.happens("ACTION", "users/ada/reset-password", at=it.clock() + 3600)["id"]
        found, after = await look(it.feed, begun)
        ids = it.resets(3, apart=200)
        assert found == [ahead]
        assert set((await look(it.feed, after))[0]) == {ahead, *ids}
        anew = (await it.feed.page(None)).cursor
        later = it.resets(1)
        assert set(later) <= set((await look(it.feed, anew))[0])


async def test_a_feed_goes_on_where_a_failure_met_it() -> None:
    """What was not stored is asked for again: the cursor is given back as it was."""
    async with scene() as it:
        begun = (await it.feed.page(None)).cursor
        ids = it.resets(300)
        first = await it.feed.page(begun)
        for faults in ([answer(503)], [answer(429)], [RESET, RESET], [answer(200, body=b'[{"id": "cu')]):
            it.fake.script(*faults)
            with pytest.raises(Retry):
                await it.feed.page(first.cursor)
        again, _ = await look(it.feed, begun)  # the log took nothing of the first page
        assert set(again) == set(ids)


async def test_a_cursor_that_can_not_be_read_is_refused() -> None:
    """Polling then begins anew, and says so."""
    async with scene() as it:
        for cursor in (b"", b"7", b"{}", b'{"begin": "x", "end": 1}'):
            with pytest.raises(Reject):
                await it.feed.page(cursor)


async def test_two_workers_in_turn_bring_everything() -> None:
    """A feed that was idle while another worker polled goes on from the cursor, not from what it remembers."""
    async with scene() as it:
        other = KeycloakAdminFeed(it.api, KeycloakSource(realm="example"), name="keycloak", every=10.0, now=it.clock)
        cursor = (await it.feed.page(None)).cursor
        ids = it.resets(250)
        page = await it.feed.page(cursor)
        found = {arrival.event.id for arrival in page.arrivals if arrival.event}
        page = await other.page(page.cursor)
        found |= {arrival.event.id for arrival in page.arrivals if arrival.event}
        found |= set((await look(it.feed, page.cursor))[0])
        assert found == set(ids)


# Settings.


def _open(**given: Any) -> Any:
    settings = Settings.load({f"USHER_KEYCLOAK__{name.upper()}": value for name, value in given.items()}, env_file=None)
    return open_systems(settings, lambda: pytest.fail("nothing is asked yet"))


def test_half_of_the_settings_is_a_mistake_that_names_the_others() -> None:
    """Polling without credentials, credentials without a realm: each missing name is reported."""
    with pytest.raises(SettingsError) as mistake:
        _open(poll="true", realm="shop")
    assert [line.partition(":")[0] for line in mistake.value.problems] == [
        f"USHER_KEYCLOAK__{name}" for name in ("URL", "CLIENT_ID", "CLIENT_SECRET")
    ]
    (system,) = _open(webhook_secret="s", realm="shop")
    assert (system.receives, system.api, system.feeds) == (True, None, ())


def test_further_realms_have_paths_and_feeds_of_their_own() -> None:
    """`USHER_KEYCLOAK__SHOP__…` is another realm."""
    api = {"url": "https://id.example.com/auth/", "client_id": "usher", "client_secret": "s", "poll": "true"}
    both = {**{f"shop__{name}": text for name, text in api.items()}, "shop__realm": "s", "realm": "r", **api}
    first, shop = _open(**both)
    assert (first.path, shop.path) == ("/ingest/keycloak", "/ingest/keycloak/shop")
    assert [feed.name for system in (first, shop) for feed in system.feeds] == [
        "keycloak:admin-events", "keycloak/shop:admin-events",
    ]  # fmt: skip


# What an update has changed.


def _person(**more: Any) -> dict[str, Any]:
    """All fields of Ada, as the admin console writes them with each change."""
    return {"username": "ada", "email": "ada@example.com", "attributes": {}, "requiredActions": [], **more}


async def _recognized(it: Scene, event: Mapping[str, Any]) -> str:
    arrival = await it.api.recognize(KeycloakSource(realm=it.fake.realm).arrival(dict(event)))
    assert arrival.event is not None
    assert decode(arrival.value) == arrival.event
    return arrival.event.type


@pytest.mark.parametrize("apart", [0.01, 600.0])
async def test_what_the_console_has_changed_is_known_by_what_was_there_before(apart: float) -> None:
    """It writes all fields with each change: only the first such update disables the account, only the first after that enables it."""
    async with scene() as it:
        seen = []
        for enabled in (True, True, False, False, True, True):
            it.clock.advance(apart)
            event = it.fake.happens("UPDATE", "users/ada", _person(enabled=enabled))
            seen.append(await _recognized(it, event))

    plain = "admin.USER-UPDATE"
    assert seen == [plain, plain, "user.disabled", plain, "user.reenabled", plain]


@pytest.mark.parametrize(("enabled", "type_"), [(True, "user.reenabled"), (False, "admin.USER-UPDATE")])
async def test_a_user_who_was_made_without_a_word_on_it_was_disabled(enabled: bool, type_: str) -> None:
    """That is Keycloak's own default; the console's first save then changes it, or does not."""
    async with scene() as it:
        it.fake.happens("CREATE", "users/lee", {"username": "lee"})
        it.clock.advance(60.0)
        event = it.fake.happens("UPDATE", "users/lee", {"username": "lee", "enabled": enabled})

        assert await _recognized(it, event) == type_


async def test_an_update_that_failed_has_changed_nothing() -> None:
    """So the next one is the first that disables the account."""
    async with scene() as it:
        it.fake.happens("UPDATE", "users/ada", _person(enabled=False))["error"] = "not_allowed"
        it.clock.advance(60.0)
        event = it.fake.happens("UPDATE", "users/ada", _person(enabled=False))

        assert await _recognized(it, event) == "user.disabled"


async def test_a_required_action_is_seen_where_the_account_stays_disabled() -> None:
    """The update disables nothing, and expires the password."""
    async with scene() as it:
        it.fake.happens("UPDATE", "users/ada", {"enabled": False})
        it.clock.advance(5.0)
        event = it.fake.happens("UPDATE", "users/ada", _person(enabled=False, requiredActions=["UPDATE_PASSWORD"]))

        assert await _recognized(it, event) == "password.expired"


@pytest.mark.parametrize("written", [{}, {"email": "ada@example.com"}, _person(enabled=True)])
async def test_a_password_that_was_written_with_an_update_is_known_by_its_date(written: dict[str, Any]) -> None:
    """Keycloak leaves credentials out of the event; the password was set a moment before it."""
    async with scene() as it:
        it.clock.advance(100.0)
        it.fake.passwords["ada"] = it.clock() - 0.02
        event = it.fake.happens("UPDATE", "users/ada/", written)

        assert await _recognized(it, event) == "password.reset"


@pytest.mark.parametrize(("operation", "path"), [("ACTION", "users/ada/reset-password"), ("CREATE", "users/ada")])
async def test_a_password_of_another_event_is_that_events(operation: str, path: str) -> None:
    """A script sets a password and updates the user right after: that is one reset."""
    async with scene() as it:
        it.clock.advance(100.0)
        it.fake.passwords["ada"] = it.clock() - 0.01
        it.fake.happens(operation, path)
        it.clock.advance(0.3)
        event = it.fake.happens("UPDATE", "users/ada", {"email": "ada@example.com"})

        assert await _recognized(it, event) == "admin.USER-UPDATE"


@pytest.mark.parametrize("set_ago", [None, -0.5, 2.0, 3600.0])
async def test_an_update_without_a_password_is_none(set_ago: float | None) -> None:
    """A password that was set at another time, or never."""
    async with scene() as it:
        it.clock.advance(100.0)
        if set_ago is not None:
            it.fake.passwords["ada"] = it.clock() - set_ago
        event = it.fake.happens("UPDATE", "users/ada", {"email": "ada@example.com"})

        assert await _recognized(it, event) == "admin.USER-UPDATE"


@pytest.mark.parametrize("kind", ["UPDATE_PASSWORD", "UPDATE_CREDENTIAL", "REGISTER"])
async def test_a_password_that_the_user_set_is_no_reset(kind: str) -> None:
    """A program learns of it and updates the user right after: the user must not hear of an administrator."""
    async with scene() as it:
        it.clock.advance(100.0)
        it.fake.passwords["ada"] = it.clock() - 0.3
        own = {"type": kind, "userId": "ada", "time": round((it.clock() - 0.29) * 1000)}
        it.fake.user_events.append(own)
        event = it.fake.happens("UPDATE", "users/ada", _person(enabled=True))

        assert await _recognized(it, event) == "admin.USER-UPDATE"


async def test_a_password_of_a_registration_is_no_reset() -> None:
    """Also where the realm keeps no user events: nobody but the user has made this account."""
    async with scene() as it:
        it.clock.advance(100.0)
        made = it.clock() - 0.4
        it.fake.users["eve"] = {"id": "eve", "username": "eve", "createdTimestamp": round(made * 1000)}
        it.fake.passwords["eve"] = made + 0.1
        event = it.fake.happens("UPDATE", "users/eve", {"attributes": {"tier": ["free"]}})

        assert await _recognized(it, event) == "admin.USER-UPDATE"


async def test_a_password_is_a_reset_right_after_an_administrator_made_the_user() -> None:
    """A script makes the user without a password, and writes one with an update."""
    async with scene() as it:
        it.clock.advance(100.0)
        it.fake.create_user("lee", createdTimestamp=round(it.clock() * 1000))
        it.clock.advance(0.5)
        it.fake.passwords["lee"] = it.clock() - 0.02
        event = it.fake.happens("UPDATE", "users/lee", {"email": "lee@example.com"})

        assert await _recognized(it, event) == "password.reset"


async def test_an_update_is_looked_up_once_though_the_feed_reads_it_again() -> None:
    """The last two minutes are read at every look: many updates would be many calls each time."""
    async with scene() as it:
        feed = it.feed
        cursor = (await feed.page(None)).cursor
        it.clock.advance(1.0)
        it.fake.happens("UPDATE", "users/ada", _person(enabled=True))
        types = []
        for _ in range(3):
            page = await feed.page(cursor)
            cursor = page.cursor
            types += [arrival.event.type for arrival in page.arrivals if arrival.event]

        assert types == ["admin.USER-UPDATE"] * 3
        assert [call for call in it.fake.asked if call.endswith("/credentials")] == [
            f"GET /admin/realms/{it.fake.realm}/users/ada/credentials"
        ]


async def test_an_update_whose_user_is_gone_is_still_an_event() -> None:
    """Deleted since; and where the realm shows us nothing, the event's own words hold."""
    async with scene() as it:
        event = it.fake.happens("UPDATE", "users/gone", {"email": "gone@example.com"})
        assert await _recognized(it, event) == "admin.USER-UPDATE"
        off = it.fake.happens("UPDATE", "users/ada", _person(enabled=False))
        it.fake.forbidden = True

        assert await _recognized(it, off) == "user.disabled"


async def test_the_feed_brings_updates_as_what_they_are_and_imports_too() -> None:
    """Under whatever resource type; what is about no user is left out."""
    async with scene() as it:
        feed = it.feed
        cursor = (await feed.page(None)).cursor
        it.clock.advance(1.0)
        for resource, path in (
            ("REALM", "users/ida"),
            (None, "users/lee"),
            ("CLIENT", "clients/c"),
            ("GROUP", "groups/users"),
        ):
            it.fake.happens("CREATE", path, {"enabled": True})["resourceType"] = resource
        it.fake.happens("UPDATE", "users/ada", _person(enabled=False))
        page = await feed.page(cursor)

    found = [(arrival.event.type, arrival.event.user.id) for arrival in page.arrivals if arrival.event]
    assert found == [("user.created", "ida"), ("user.created", "lee"), ("user.disabled", "ada")]
