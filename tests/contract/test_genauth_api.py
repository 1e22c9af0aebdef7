"""GenAuth's API against a loopback one: signatures, answers good and bad, actions, look-ups, and the feed of its audit log."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import aiohttp
import pytest
from tests.fakes.genauth import FakeGenAuth

from usher.event import UNKNOWN, Event, User
from usher.outcome import Hold, Outcome, Reject, Retry, Skip
from usher.settings import Settings, SettingsError
from usher.systems.decode import decode
from usher.systems.genauth.api import GenAuthApi, string_to_sign
from usher.systems.genauth.enrichment import GenAuthEnrichment
from usher.systems.genauth.feed import GenAuthAuditFeed
from usher.systems.genauth.open import open_system
from usher.systems.genauth.settings import GenAuthSettings
from usher.systems.source import Arrival
from usher.systems.system import System
from usher.testing.providers import HANG, RESET, Fault, answer

POOL, SECRET = "fake-user-pool", "whsec"
NOW = 1_740_830_400.0


@asynccontextmanager
async def opened(fake: FakeGenAuth | None = None, **more: Any) -> AsyncIterator[tuple[FakeGenAuth, System]]:
    """A system that is set up for a fake GenAuth."""
    async with fake or FakeGenAuth(now=lambda: NOW) as running, aiohttp.ClientSession() as session:
        given = {
            "url": running.url,
            "access_key_id": running.key_id,
            "access_key_secret": running.key_secret,
            "brand": running.brand,
            "webhook_secret": SECRET,
            **more,
        }
        yield running, open_system(GenAuthSettings.model_validate(given), "", lambda: session)


def an_arrival(fake: FakeGenAuth, system: System, name: str, data: dict[str, Any], at: float = NOW) -> Arrival:
    body, headers = fake.webhook(name, data, SECRET)
    (arrival,) = system.source.arrivals(body, headers, at)
    return arrival


def api_of(system: System) -> GenAuthApi:
    assert isinstance(system.api, GenAuthApi)
    return system.api


async def completed(system: System, arrival: Arrival, at: float = NOW) -> Event:
    """The event that is stored, with no time lost in waiting."""
    enrich = system.enrich
    assert isinstance(enrich, GenAuthEnrichment)
    enrich.now = lambda: at
    enrich.sleep = _no_sleep
    event = (await enrich(arrival)).event
    assert event is not None
    return event


async def _no_sleep(_seconds: float) -> None:
    return None


def created(user: str = "u-1", type_: str = "user.created") -> Event:
    document = {"source": "genauth", "tenant": POOL, "type": type_, "id": "e", "user": {"id": user}}
    return decode(json.dumps(document).encode())


def test_the_string_to_sign() -> None:
    """Method, signed headers in order, path, and the fields in order; what is no text is compact JSON."""
    headers = {
        "x-authing-signature-nonce": "n",
        "date": "Sat, 01 Mar 2025 12:00:00 GMT",
        "x-authing-signature-method": "HMAC-SHA1",
    }
    given = {"userId": "ü", "options": {"b": True, "a": None}, "limit": 5}

    assert string_to_sign("POST", "/api/v3/update-user", headers, given) == (
        "POST\n"
        "date:Sat, 01 Mar 2025 12:00:00 GMT\n"
        "x-authing-signature-method:HMAC-SHA1\n"
        "x-authing-signature-nonce:n\n"
        '/api/v3/update-user?limit=5&options={"b":true,"a":null}&userId=ü'
    )
    assert string_to_sign("GET", "/api/v3/x", {}, {}) == "GET\n/api/v3/x"


@pytest.mark.parametrize("brand", ["genauth", "authing"])
async def test_requests_are_signed_as_either_brand_wants(brand: str) -> None:
    """Reading with a query and writing with a body are both taken."""
    async with opened(FakeGenAuth(brand=brand)) as (fake, system):
        fake.users["ü 1/&="] = {"email": "kim.berg@example.com"}
        await api_of(system).user(created("ü 1/&="))
        await api_of(system).require_password_change(created("ü 1/&="))

        assert fake.asked == ["/api/v3/get-user", "/api/v3/update-user"]


async def test_a_user_is_looked_up_with_one_number() -> None:
    """In the newer shape, number and country code apart."""
    async with opened() as (fake, system):
        fake.users["u-1"] = {
            "username": "kim.b", "email": "kim.berg@example.com", "phone": "07400123456", "phoneCountryCode": "+44", "nickname": "Kim",
            "locale": "en-GB",
        }  # fmt: skip

        user = await api_of(system).user(created())

        assert user == User(
            id="u-1", username="kim.b", email="kim.berg@example.com", phone="+447400123456", name="Kim", locale="en-GB"
        )


async def test_a_user_who_is_gone_is_a_skip() -> None:
    """Whoever asks for one who was deleted meanwhile has nothing to send, or to change."""
    async with opened() as (_fake, system):
        for action in (
            api_of(system).user,
            api_of(system).require_password_change,
            api_of(system).clear_password_change,
        ):
            with pytest.raises(Skip, match="no such user"):
                await action(created())


async def test_a_new_password_is_required_at_the_first_login_or_the_next() -> None:
    """The first one of a new user; and taken back for both. No password goes with it, and no message of GenAuth's own."""
    async with opened() as (fake, system):
        fake.users["u-1"] = {}
        await api_of(system).require_password_change(created())
        await api_of(system).require_password_change(created(type_="password.reset"))
        await api_of(system).clear_password_change(created())

        assert fake.options == [
            ("u-1", {"resetPasswordOnFirstLogin": True}),
            ("u-1", {"resetPasswordOnNextLogin": True}),
            ("u-1", {"resetPasswordOnFirstLogin": False, "resetPasswordOnNextLogin": False}),
        ]


async def test_what_genauth_does_not_offer_is_refused_by_name() -> None:
    """It sends codes and has no link that could be sent."""
    async with opened() as (_fake, system):
        with pytest.raises(Reject, match="GenAuth does not have a link"):
            await api_of(system).password_link(created())
        with pytest.raises(Reject, match="names no user"):
            await api_of(system).user(created(""))


def answered(status: int, **more: Any) -> Fault:
    """An answer as GenAuth gives it: 200, and the real status in its body."""
    return answer(200, body=json.dumps({"statusCode": status, "message": "kim.berg@example.com", **more}).encode())


@pytest.mark.parametrize(
    ("fault", "kind", "after"),
    [
        (answer(503), Retry, None),
        (answer(429, headers=[("Retry-After", "7")]), Retry, 7.0),
        (answer(401), Hold, 60.0),
        (answer(403), Hold, 60.0),
        (answer(200), Retry, None),
        (answer(200, body=b'{"statusCode":200,"da'), Retry, None),
        (answer(200, body=b"[]"), Retry, None),
        (answer(400), Reject, None),
        (RESET, Retry, None),
        (answered(401, apiCode=2020), Hold, 60.0),
        (answered(403), Hold, 60.0),
        (answered(429), Retry, 60.0),
        (answered(500), Retry, None),
        (answered(499, apiCode=1234), Reject, None),
    ],
    ids=lambda value: f"{value.how}{value.status}{(value.body or b'')[:22]!r}" if isinstance(value, Fault) else "",
)
async def test_what_an_answer_means(fault: Fault, kind: type[Outcome], after: float | None) -> None:
    """Their trouble is tried again, our credentials are the operator's to mend, a refusal is final; no text of theirs is quoted."""
    async with opened() as (fake, system):
        fake.users["u-1"] = {}
        fake.script(fault)

        with pytest.raises(kind) as caught:
            await api_of(system).require_password_change(created())

        assert getattr(caught.value, "after", None) == after
        assert "kim.berg" not in str(caught.value)
        assert fake.key_secret not in str(caught.value)
        assert await api_of(system).user(created()) == User(id="u-1")


async def test_check_distinguishes_good_credentials_from_bad() -> None:
    """It proves them without reading anybody's data."""
    async with opened() as (fake, system):
        assert f"{fake.url} takes the access key {POOL}" in await api_of(system).check()
        fake.script(answered(404, apiCode=2004), answered(403))
        with pytest.raises(Hold, match="but not for get-admin-audit-logs"):
            await api_of(system).check()
        fake.key_secret = "another"
        with pytest.raises(Hold, match="USHER_GENAUTH__ACCESS_KEY_ID"):
            await api_of(system).check()


def test_half_an_access_key_is_a_mistake() -> None:
    """And polling without one is, too."""
    for given, missing in (
        ({"ACCESS_KEY_ID": "k"}, ["ACCESS_KEY_SECRET"]),
        ({"ACCESS_KEY_SECRET": "s"}, ["ACCESS_KEY_ID"]),
        ({"POLL": "true"}, ["ACCESS_KEY_ID", "ACCESS_KEY_SECRET"]),
    ):
        with pytest.raises(SettingsError) as caught:
            Settings.load({f"USHER_GENAUTH__SHOP__{name}": text for name, text in given.items()}, env_file=None)
        names = [problem.partition(":")[0] for problem in caught.value.problems]
        assert names == [f"USHER_GENAUTH__SHOP__{name}" for name in missing]


@pytest.mark.parametrize(
    ("profile", "actor", "basis"),
    [
        ({"userSourceType": "adminCreated"}, "admin_api", "get-user: userSourceType adminCreated"),
        ({"userSourceType": "register"}, "user", "get-user: userSourceType register"),
        ({"registerSource": ["import:manual"]}, "admin_api", "get-user: registerSource import:manual"),
        ({}, UNKNOWN, "get-user: neither userSourceType nor registerSource says it"),
    ],
)
async def test_who_made_a_user_is_looked_up(profile: dict[str, Any], actor: str, basis: str) -> None:
    """No matter what the webhook's older shape says: an administrator's new user may look like a self-registration there."""
    async with opened() as (fake, system):
        fake.users["u-1"] = profile
        arrival = an_arrival(fake, system, "user:created", {"id": "u-1", "registerSource": ["basic:email"]})

        event = await completed(system, arrival)

        assert (event.context.triggered_by, event.context.triggered_by_basis) == (actor, basis)
        assert event.id == ("created-u-1" if actor != UNKNOWN else "created-u-1-unknown")


async def test_a_user_who_is_not_there_yet_is_waited_for_before_the_actor_counts_as_unknown() -> None:
    """A webhook may be quicker than what get-user reads: its answer decides whether the user is written to at all."""
    async with opened() as (fake, system):
        arrival = an_arrival(fake, system, "user:created", {"id": "u-1", "registerSource": ["basic:email"]})
        enrich = system.enrich
        assert isinstance(enrich, GenAuthEnrichment)

        async def made_meanwhile(_seconds: float) -> None:
            fake.users["u-1"] = {"userSourceType": "adminCreated"}

        enrich.sleep = made_meanwhile
        event = (await enrich(arrival)).event

        assert event is not None
        assert (event.id, event.context.triggered_by) == ("created-u-1", "admin_api")


@pytest.mark.parametrize("sure", [{"registerSource": ["import:excel"]}, {"userSourceType": "register"}])
async def test_what_is_clear_is_not_looked_up(sure: dict[str, Any]) -> None:
    """An import of thousands asks the API nothing."""
    async with opened() as (fake, system):
        arrival = an_arrival(fake, system, "user:created", {"id": "u-1", **sure})

        assert await completed(system, arrival) == arrival.event
        assert fake.answered == []


async def test_a_user_who_is_gone_at_once_is_unknown() -> None:
    """Nobody vouches for who made the user."""
    async with opened() as (fake, system):
        event = await completed(system, an_arrival(fake, system, "user:created", {"id": "u-1"}))

        assert event.context.triggered_by == UNKNOWN


async def test_an_entry_of_the_audit_log_counts_although_the_webhook_named_no_actor() -> None:
    """They are one fact, but the one that names the actor must not count as known because of the other."""
    async with opened() as (fake, system):
        fake.users["u-1"] = {}
        watch = Watch(system)
        _, cursor, _ = await watch.look(None)
        by_webhook = await completed(system, an_arrival(fake, system, "user:created", {"id": "u-1"}))
        fake.administrator("create", "u-1", at=NOW + 1)
        watch.now += 10
        [by_feed], _, _ = await watch.look(cursor)

        assert by_webhook.context.triggered_by == UNKNOWN
        assert by_feed.context.triggered_by == "admin_api"
        assert by_feed.uid != by_webhook.uid


async def test_a_look_up_that_fails_is_tried_again_and_then_refused() -> None:
    """A webhook may never come again: a stumble costs nothing, and only then the sender is asked to repeat."""
    async with opened() as (fake, system):
        fake.users["u-1"] = {"userSourceType": "adminCreated"}
        arrival = an_arrival(fake, system, "user:created", {"id": "u-1"})
        fake.script(answer(503), RESET)
        assert (await completed(system, arrival)).context.triggered_by == "admin_api"

        fake.script(answer(503), answer(503), answer(503))
        with pytest.raises(Retry):
            await completed(system, arrival)


async def test_an_administrators_change_of_a_password_is_found_in_the_audit_log() -> None:
    """It is the entry's event then: the same one whichever call finds it, another for another change."""
    async with opened() as (fake, system):
        fake.administrator("update", "u-2", {"password": "x"}, at=NOW - 1)
        fake.administrator("update", "u-1", {"password": "first"}, at=NOW - 3)
        arrival = an_arrival(fake, system, "user:password-changed", {"userId": "u-1"})

        first = await completed(system, arrival)
        again = await completed(
            system, an_arrival(fake, system, "user:password-changed", {"userId": "u-1"}, NOW + 200), NOW + 200
        )
        fake.administrator("update", "u-1", {"password": "second"}, at=NOW + 20)
        other = await completed(system, arrival, NOW + 21)

        assert (first.type, first.context.triggered_by, first.user.id) == ("password.reset", "admin_api", "u-1")
        assert first.context.triggered_by_basis == "admin audit log: update by an administrator"
        assert first.id == again.id != other.id


async def test_an_entry_that_comes_late_is_waited_for() -> None:
    """The log may know of it a moment after the webhook."""
    async with opened() as (fake, system):
        arrival = an_arrival(fake, system, "user:password-changed", {"userId": "u-1"})
        enrich = system.enrich
        assert isinstance(enrich, GenAuthEnrichment)
        enrich.now = lambda: NOW

        async def meanwhile(_seconds: float) -> None:
            fake.administrator("update", "u-1", {"newPassword": "x"}, at=NOW - 1)

        enrich.sleep = meanwhile
        event = (await enrich(arrival)).event

        assert event is not None
        assert event.context.triggered_by == "admin_api"


@pytest.mark.parametrize(
    "entry",
    [
        {"operationParam": json.dumps({"userId": "u-1", "nickname": "Kim"})},
        {"operationParam": json.dumps({"userId": "u-1", "options": {"resetPasswordOnNextLogin": True}})},
        {"operationParam": json.dumps({"userId": "u-2", "password": "x"})},
        {"operationParam": json.dumps({"userId": "u-1", "password": "x"}), "success": False},
        {"operationParam": json.dumps({"userId": "u-1", "password": "x"}), "operationType": "export"},
        {"targetValue": json.dumps({"id": "u-1", "password": "hash"})},
        {
            "targetValue": json.dumps({"id": "u-1", "password": "hash"}),
            "originValue": json.dumps({"id": "u-1", "password": "hash"}),
        },
        {"operationParam": "no document, password of u-1"},
        {"operationParam": 7},
    ],
)
async def test_another_entry_is_no_change_of_this_password(entry: dict[str, Any]) -> None:
    """An edited profile, a flag that is set, a failure, another user, a hash that stays: who changed it is not known."""
    base = {
        "operationType": "update",
        "resourceType": "user",
        "timestamp": "2025-03-01T12:00:00.000+0000",
        "requestId": "r",
    }
    async with opened() as (fake, system):
        fake.entry({**base, **entry})
        event = await completed(system, an_arrival(fake, system, "user:password-changed", {"userId": "u-1"}))

        assert (event.type, event.context.triggered_by) == ("user:password-changed", UNKNOWN)


async def test_a_hash_that_is_another_than_before_is_a_change() -> None:
    """Where the request's parameters say nothing, the values do."""
    async with opened() as (fake, system):
        values = {
            "originValue": json.dumps({"id": "u-1", "password": "a"}),
            "targetValue": json.dumps({"id": "u-1", "password": "b"}),
        }
        fake.entry(
            {"operationType": "update", "resourceType": "user", "timestamp": "2025-03-01T20:00:00.000+0800", **values}
        )
        event = await completed(system, an_arrival(fake, system, "user:password-changed", {"userId": "u-1"}))

        assert event.context.triggered_by == "admin_api"
        assert event.time is not None
        assert event.time.timestamp() == NOW


# The feed.


class Watch:
    """A feed of a system, and a clock that is set."""

    def __init__(self, system: System) -> None:
        self.now = NOW
        self.feed = GenAuthAuditFeed(api_of(system), name="genauth:audit", tenant=POOL, every=30, now=lambda: self.now)

    async def look(self, cursor: bytes | None) -> tuple[list[Event], bytes, bool]:
        page = await self.feed.page(cursor)
        return [arrival.event for arrival in page.arrivals if arrival.event], page.cursor, page.more


async def test_the_feed_begins_now_and_brings_what_happens_after() -> None:
    """Nothing of the past; created users and set passwords, in order, each once though looks overlap by id."""
    async with opened() as (fake, system):
        watch = Watch(system)
        fake.administrator("update", "old", {"password": "x"}, at=NOW - 900)
        past, cursor, _ = await watch.look(None)
        fake.administrator("update", "u-2", {"password": "hunter-2"}, at=NOW + 20)
        fake.administrator("create", "u-1", {"email": "kim.berg@example.com"}, at=NOW + 10)
        fake.administrator("delete", "u-3", at=NOW + 15)
        watch.now += 60
        page = await watch.feed.page(cursor)
        watch.now += 60
        again, _, _ = await watch.look(page.cursor)

        assert past == []
        events = [arrival.event for arrival in page.arrivals if arrival.event]
        assert [(event.type, event.user.id, event.tenant) for event in events] == [
            ("user.created", "u-1", POOL),
            ("password.reset", "u-2", POOL),
        ]
        assert {event.context.triggered_by for event in events} == {"admin_api"}
        assert [event.id for event in again] == [event.id for event in events]
        assert b"hunter-2" not in b"".join(arrival.value for arrival in page.arrivals)
        assert all(decode(arrival.value) == arrival.event for arrival in page.arrivals)
        assert watch.feed.since(page.cursor) < NOW


async def test_an_entry_that_turns_up_late_is_still_brought() -> None:
    """Each look goes back a little."""
    async with opened() as (fake, system):
        watch = Watch(system)
        _, cursor, _ = await watch.look(None)
        watch.now += 200
        _, cursor, _ = await watch.look(cursor)
        fake.administrator("update", "u-1", {"password": "x"}, at=NOW + 100)
        watch.now += 30
        found, _, _ = await watch.look(cursor)

        assert [event.user.id for event in found] == ["u-1"]


async def test_webhook_and_feed_give_one_fact_one_id() -> None:
    """A created user and a set password: the report that comes second is known."""
    async with opened() as (fake, system):
        fake.users["u-1"] = {"userSourceType": "adminCreated"}
        watch = Watch(system)
        _, cursor, _ = await watch.look(None)
        fake.administrator("create", "u-1", at=NOW + 1)
        fake.administrator("update", "u-1", {"password": "x"}, at=NOW + 2)
        watch.now += 10
        by_feed, _, _ = await watch.look(cursor)
        by_webhook = [
            await completed(system, an_arrival(fake, system, name, {"id": "u-1", "userId": "u-1"}), NOW + 3)
            for name in ("user:created", "user:password-changed")
        ]

        assert [event.uid for event in by_webhook] == [event.uid for event in by_feed]


async def test_pages_are_read_to_their_end() -> None:
    """However many entries there are in a stretch."""
    async with opened() as (fake, system):
        watch = Watch(system)
        _, cursor, _ = await watch.look(None)
        for number in range(120):
            fake.administrator("create", f"u-{number:03}", at=NOW + 1 + number / 100)
        watch.now += 10
        found, _, more = await watch.look(cursor)

        assert [event.user.id for event in found] == [f"u-{number:03}" for number in range(120)]
        assert not more
        assert len(fake.answered) == 3


async def test_a_stretch_with_too_many_is_halved(monkeypatch: pytest.MonkeyPatch) -> None:
    """The rest comes with the next looks, which follow at once."""
    monkeypatch.setattr("usher.systems.genauth.feed._MOST", 60)
    async with opened() as (fake, system):
        watch = Watch(system)
        _, cursor, _ = await watch.look(None)
        for number in range(100):
            fake.administrator("create", f"u-{number:03}", at=NOW + 300 + number * 10)
        watch.now += 2000
        seen: list[str | None] = []
        more = True
        while more:
            found, cursor, more = await watch.look(cursor)
            seen += [event.user.id for event in found]

        assert list(dict.fromkeys(seen)) == [f"u-{number:03}" for number in range(100)]


def _scrambled(entries: Iterable[dict[str, Any]]) -> bytes:
    return json.dumps({"statusCode": 200, "data": {"totalCount": 3, "list": list(entries)}}).encode()


async def test_a_clock_that_was_ahead_passes_over_nothing() -> None:
    """One look is made while our clock is hours ahead. What happens after it was set right is found at the next look."""
    async with opened() as (fake, system):
        watch = Watch(system)
        _, cursor, _ = await watch.look(None)
        fake.administrator("create", "u-1", at=NOW + 5)
        watch.now += 5 * 3600
        found, cursor, _ = await watch.look(cursor)
        assert [event.user.id for event in found] == ["u-1"]
        watch.now = NOW + 60
        fake.administrator("create", "u-2", at=NOW + 50)
        found, cursor, _ = await watch.look(cursor)

        assert "u-2" in [event.user.id for event in found]


async def test_a_look_that_fails_after_a_clock_was_ahead_passes_over_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """What happened since the last look that found something out is read, however many looks have failed since."""
    passed = 0.0
    monkeypatch.setattr("usher.systems.genauth.feed.time", SimpleNamespace(monotonic=lambda: passed))
    async with opened() as (fake, system):
        watch = Watch(system)
        watch.now += 5 * 3600
        _, cursor, _ = await watch.look(None)
        fake.administrator("create", "u-1", at=NOW + 50)
        for passed in (1000.0, 2000.0):
            watch.now = NOW + passed
            fake.script(answer(500))
            with pytest.raises(Retry):
                await watch.look(cursor)
        passed = 3000.0
        watch.now = NOW + passed
        found, cursor, _ = await watch.look(cursor)

        assert "u-1" in [event.user.id for event in found]


async def test_a_position_that_a_clock_ahead_has_left_behind_is_given_up() -> None:
    """After a restart it is not known until when was read: polling says so, and does not wait in silence until that time comes."""
    async with opened() as (_fake, system):
        watch = Watch(system)
        watch.now += 5 * 3600
        _, cursor, _ = await watch.look(None)
        later = Watch(system)

        with pytest.raises(Reject, match="a time that has not come yet"):
            await later.look(cursor)


async def test_entries_out_of_order_are_put_in_order() -> None:
    """By their own times; what is no entry is passed over."""
    async with opened() as (fake, system):
        watch = Watch(system)
        _, cursor, _ = await watch.look(None)
        base = {"operationType": "create", "resourceType": "user"}
        late = {**base, "timestamp": "2025-03-01T12:00:09.000+0000", "operationParam": '{"userId":"late"}'}
        early = {**base, "timestamp": "2025-03-01T12:00:01.000+0000", "operationParam": '{"userId":"early"}'}
        junk: Any = 7
        fake.script(answer(200, body=_scrambled([late, junk, early])))
        watch.now += 30
        found, _, _ = await watch.look(cursor)

        assert [event.user.id for event in found] == ["early", "late"]


@pytest.mark.parametrize(
    "fault", [answer(503), answer(429), answer(401), RESET, answer(200, body=b"{}"), answered(200, data={})]
)
async def test_a_look_that_fails_loses_nothing(fault: Fault) -> None:
    """The position stays, and the next look brings it all."""
    async with opened() as (fake, system):
        watch = Watch(system)
        _, cursor, _ = await watch.look(None)
        fake.administrator("create", "u-1", at=NOW + 1)
        watch.now += 30
        fake.script(fault)
        with pytest.raises((Retry, Hold)):
            await watch.look(cursor)
        found, _, _ = await watch.look(cursor)

        assert [event.user.id for event in found] == ["u-1"]


async def test_a_position_that_is_not_readable_is_given_up() -> None:
    """Polling then continues from now, and says so."""
    async with opened() as (_fake, system):
        with pytest.raises(Reject, match="that was kept for the audit log"):
            await Watch(system).look(b"yesterday")


async def test_an_api_that_hangs_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """No answer in time is an answer: later."""
    monkeypatch.setattr("usher.systems.api._PATIENCE", aiohttp.ClientTimeout(total=0.2))
    async with opened() as (fake, system):
        fake.script(HANG)
        with pytest.raises(Retry, match="could not be reached"):
            await api_of(system).check()
