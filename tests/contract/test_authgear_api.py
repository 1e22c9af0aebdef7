"""Authgear's Admin API as Usher uses it, against one on loopback: tokens, users, actions, and the audit log with its failures."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import asdict
from typing import Any

import aiohttp
import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from hypothesis import given
from hypothesis import strategies as st
from tests.fakes.authgear import FakeAuthgear
from tests.identity_api import FIELDS_OF_ADA, NOW, about, look

from usher.http import Answer
from usher.outcome import Hold, Outcome, Reject, Retry, Skip
from usher.settings import Settings, SettingsError
from usher.systems.api import ApiClient
from usher.systems.authgear.api import AuthgearApi, AuthgearKey
from usher.systems.authgear.feed import OVERLAP, AuthgearAuditFeed
from usher.systems.authgear.settings import signing_key
from usher.systems.authgear.source import AuthgearSource as Source
from usher.systems.decode import decode
from usher.systems.open import open_systems
from usher.testing import Clock, an_event, raw_event
from usher.testing.providers import DROP, RESET, answer

ADA = {
    "preferred_username": "ada.k", "email": "ada@example.com", "phone_number": "+41440000019", "name": "Ada Keller",
    "locale": "de-CH",
}  # fmt: skip
TYPES = ("user.created", "password.reset", "password.expired", "password.reset_requested")


class Scene:
    """A fake Authgear at a time of ours, its client and its feed."""

    def __init__(self, fake: FakeAuthgear, session: aiohttp.ClientSession, clock: Clock) -> None:
        self.fake, self.clock = fake, clock
        self.key = AuthgearKey(fake.app_id, fake.key_id, signing_key(fake.private_key))
        self.session = session
        self.api = self.client(self.key)
        self.feed = AuthgearAuditFeed(self.api, fake.app_id, Source(), TYPES, 15.0, now=clock)

    def client(self, key: AuthgearKey, url: str = "") -> AuthgearApi:
        return AuthgearApi(url or self.fake.url, key, lambda: self.session)

    def happens(self, id_: str, type_: str = "user.created", at: float = 0, **details: Any) -> None:
        self.fake.happens(
            raw_event(type_, id=id_, tenant=self.fake.app_id, timestamp=int(self.clock() + at), **details)
        )


@asynccontextmanager
async def scene(**options: Any) -> AsyncIterator[Scene]:
    clock = Clock(NOW)
    async with FakeAuthgear(now=clock, **options) as fake, aiohttp.ClientSession() as session:
        fake.users["ada"] = dict(ADA)
        yield Scene(fake, session, clock)


# Users and actions.


async def test_a_user_is_looked_up_by_the_events_user_id() -> None:
    """Addresses, name and language come from the standard attributes."""
    async with scene() as it:
        user = await it.api.user(about())

    assert asdict(user) == FIELDS_OF_ADA


async def test_a_user_who_is_gone_is_skipped() -> None:
    """Nobody is left to be written to."""
    async with scene() as it:
        with pytest.raises(Skip, match="no such user"):
            await it.api.user(about("gone"))
        with pytest.raises(Skip, match="no such user"):
            await it.api.require_password_change(about("gone"))


async def test_an_event_without_a_user_is_no_reason_to_ask() -> None:
    """The reset message's event names a login id and no user: nothing is asked, and the engine goes on with what is there."""
    async with scene() as it:
        event = decode(
            json.dumps(
                {
                    "type": "admin_api.mutation.send_reset_password_message.executed",
                    "payload": {"login_id": "ada"},
                    "context": {"user_id": None, "app_id": "example"},
                }
            ).encode()
        )
        with pytest.raises(Reject, match="does not say which user"):
            await it.api.user(event)
        assert it.fake.asked == []


async def test_a_password_is_expired_and_the_event_says_that_it_was_us() -> None:
    """The call comes back from the audit log like an administrator's, with our mark: no message is sent about it."""
    async with scene() as it:
        start = (await it.feed.page(None)).cursor
        await it.api.require_password_change(about())
        await it.api.require_password_change(about())
        assert it.fake.expired == {"ada": True}
        page = await it.feed.page(start)
        await it.api.clear_password_change(about())
        assert it.fake.expired == {"ada": False}

    events = [arrival.event for arrival in page.arrivals if arrival.event]
    assert [event.type for event in events] == ["password.expired"] * 2
    assert all(
        event.context.already_notified_by and "Usher itself" in event.context.already_notified_by for event in events
    )
    assert [decode(arrival.value) for arrival in page.arrivals] == events


async def test_a_user_without_a_password_has_none_to_expire() -> None:
    """Who logs in with a code or another provider is passed over."""
    async with scene() as it:
        it.fake.without_password.add("ada")
        with pytest.raises(Skip, match="no password"):
            await it.api.require_password_change(about())


@pytest.mark.parametrize(
    ("details", "login_id"),
    [
        ({"email": "ada@example.com"}, "ada@example.com"),
        ({"phone": "+41440000019"}, "+41440000019"),
        ({}, "ada@example.com"),
    ],
)
async def test_authgear_sends_its_own_reset_message(details: Mapping[str, str], login_id: str) -> None:
    """To the event's address, else to the user's as Authgear knows it."""
    async with scene() as it:
        event = an_event("password.reset", **{"email": None, "user_id": "ada", **details})
        await it.api.send_password_reset(event)
        assert it.fake.sent == [login_id]


async def test_what_authgear_says_of_an_address_stays_there() -> None:
    """Its messages quote the login id; our reason does not."""
    async with scene() as it:
        with pytest.raises(Skip) as refusal:
            await it.api.send_password_reset(an_event("password.reset", email="eve@example.com"))
    assert "eve@" not in refusal.value.reason


@pytest.mark.parametrize(
    ("status", "extensions", "ending"),
    [
        (200, {"reason": "PasswordPolicyViolated", "errorName": "Invalid"}, Reject),
        (400, {"reason": "InvalidCursor", "errorName": "BadRequest"}, Reject),
        (200, {"reason": "SomethingOfTheirs", "errorName": "ServiceUnavailable"}, Retry),
        (200, {"reason": "RateLimited", "errorName": "TooManyRequest"}, Retry),
        (200, {"reason": "Whatever", "errorName": "Forbidden"}, Hold),
        (200, {"reason": "ada@example.com"}, Reject),
        (200, None, Reject),
    ],
)
async def test_what_an_error_means_for_the_delivery(status: int, extensions: object, ending: type[Outcome]) -> None:
    """Its reason and its kind are read, whatever the status; what may pass is tried again, the rest is refused by its name."""
    body = json.dumps({"data": None, "errors": [{"message": "ada@example.com", "extensions": extensions}]}).encode()
    async with scene() as it:
        it.fake.script(answer(status, body=body))
        with pytest.raises(ending) as refusal:
            await it.api.require_password_change(about())
    assert "ada@" not in refusal.value.reason


async def test_there_is_no_link() -> None:
    """The API has no such call, and the reason says what there is instead."""
    async with scene() as it:
        with pytest.raises(Reject, match="send_password_reset"):
            await it.api.password_link(about())


# Credentials.


async def test_the_token_is_what_authgear_documents() -> None:
    """RS256, the key's id, the project as audience, five minutes; and it says whose calls these are."""
    async with scene() as it:
        token = (await it.api._sign()).text
    claims = jwt.decode(token, options={"verify_signature": False})
    assert jwt.get_unverified_header(token) == {"alg": "RS256", "kid": "fake-key", "typ": "JWT"}
    assert claims["iat"] < time.time() < claims["exp"]
    assert claims.pop("exp") - claims.pop("iat") == 300
    assert claims == {"aud": ["example"], "audit_context": {"usage": "usher"}}


@pytest.mark.parametrize("wrong", ["app_id", "key_id", "private"])
async def test_credentials_that_are_refused_are_the_operators(wrong: str) -> None:
    """403 counts nobody's attempt, and names the settings."""
    async with scene() as it:
        other = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        key = {**it.key._asdict(), wrong: other if wrong == "private" else "other"}
        api = it.client(AuthgearKey(**key))
        with pytest.raises(Hold, match=r"\(403\); see USHER_AUTHGEAR__APP_ID"):
            await api.check()


async def test_check_says_that_key_and_log_are_good_and_else_what_is_not() -> None:
    """An address without the API, and a type that this Authgear does not know, are reported as what they are."""
    async with scene() as it:
        assert "takes our key" in await it.api.check()
        it.fake.script(answer(404))
        with pytest.raises(
            Hold, match=r"no Admin API at its endpoint \(it answered 404\); see USHER_AUTHGEAR__ENDPOINT"
        ):
            await it.api.check()
        unknown = AuthgearApi(it.fake.url, it.key, lambda: it.session, types=["USER_TELEPORTED"])
        with pytest.raises(Hold, match="USHER_AUTHGEAR__POLL_TYPES"):
            await unknown.check()


def _pem(key: Any, password: bytes | None = None) -> str:
    how = serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption()
    text: bytes = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, how)
    return text.decode()


def test_the_key_is_checked_before_anything_starts() -> None:
    """Half a set of credentials, and a key that Authgear could not have made, name the setting and quote nothing."""
    good = _pem(rsa.generate_private_key(public_exponent=65537, key_size=2048))
    given = {"endpoint": "https://a.example.com", "app_id": "a", "key_id": "k", "private_key": good}

    def opened(**settings: str) -> Any:
        environ = {f"USHER_AUTHGEAR__SHOP__{name.upper()}": text for name, text in settings.items()}
        return open_systems(Settings.load(environ, env_file=None), lambda: pytest.fail("nothing is asked yet"))[0]

    assert opened(**given).api is not None
    assert opened(**{**given, "private_key": good.replace("\n", "\\n")}).api is not None
    assert opened(app_id="a", webhook_secret="s").api is None
    for name in ("app_id", "key_id", "private_key"):
        with pytest.raises(SettingsError, match=f"USHER_AUTHGEAR__SHOP__{name.upper()}: is needed"):
            opened(**{**given, name: ""})
    with pytest.raises(SettingsError, match=r"__ENDPOINT: is needed where the audit log is read(.|\n)*__KEY_ID"):
        opened(poll="true")
    wrong = [
        "not a key",
        _pem(ec.generate_private_key(ec.SECP256R1())),
        _pem(rsa.generate_private_key(public_exponent=65537, key_size=1024)),
        _pem(rsa.generate_private_key(public_exponent=65537, key_size=2048), b"passphrase"),
    ]
    for pem in wrong:
        with pytest.raises(SettingsError, match="USHER_AUTHGEAR__SHOP__PRIVATE_KEY: should be") as refusal:
            opened(**{**given, "private_key": pem})
        assert pem.splitlines()[-1] not in str(refusal.value)


# The feed.


async def test_the_feed_begins_now_by_authgears_clock() -> None:
    """Nothing of the past is brought; what happens in the same second is."""
    async with scene() as it:
        it.happens("past", at=-1)
        page = await it.feed.page(None)
        it.happens("now")
        ids, _ = await look(it.feed, page.cursor)

    assert (page.arrivals, page.more) == ((), False)
    assert ids == ["now"]


async def test_only_the_types_that_were_asked_for_come_and_by_their_canonical_names() -> None:
    """The four facts become what webhooks and other systems call them; all else stays where it is."""
    async with scene() as it:
        start = (await it.feed.page(None)).cursor
        for number, type_ in enumerate([*TYPES, "user.authenticated", "user.deleted"]):
            it.happens(f"e{number}", type_, at=number)
        page = await it.feed.page(start)

    assert [arrival.event.type for arrival in page.arrivals if arrival.event] == list(TYPES)


@pytest.mark.parametrize("page_size", [1, 2, 3, 7, 100])
async def test_pages_miss_nothing_though_seconds_have_no_order(page_size: int) -> None:
    """Also where a second fills more than a page and entries of one second come differently each time."""
    async with scene(page_size=page_size) as it:
        start = (await it.feed.page(None)).cursor
        wanted = []
        for number in range(40):
            wanted.append(f"e{number}")
            it.happens(f"e{number}", at=number // 4 if number < 24 else number)
        it.fake._rng.shuffle(it.fake.audit_log)
        stable = page_size > 4  # within a second larger than a page Authgear's own numbering decides
        if not stable:
            it.fake._rng.shuffle = lambda _list: None  # type: ignore[assignment, method-assign]
        ids, cursor = await look(it.feed, start)
        assert sorted(set(ids)) == sorted(wanted)
        again, _ = await look(it.feed, cursor)
        assert set(again) == set(wanted)  # all of it is within the overlap


async def test_what_is_written_late_is_found_by_the_next_look() -> None:
    """An entry has its event's time, and may appear minutes after younger ones did."""
    async with scene() as it:
        start = (await it.feed.page(None)).cursor
        it.clock.advance(3600)
        it.happens("prompt")
        _, cursor = await look(it.feed, start)
        it.happens("late", at=-OVERLAP + 1)
        it.happens("too late", at=-OVERLAP - 10)
        ids, _ = await look(it.feed, cursor)

    assert ids == ["late", "prompt"]


async def test_a_day_without_usher_is_caught_up() -> None:
    """The position holds: everything since comes, a page at a time, oldest first."""
    async with scene(page_size=10) as it:
        start = (await it.feed.page(None)).cursor
        for hour in range(36):
            it.happens(f"e{hour:02}", at=hour * 3600)
        it.clock.advance(37 * 3600)
        ids, _ = await look(it.feed, start)

    assert list(dict.fromkeys(ids)) == [f"e{hour:02}" for hour in range(36)]


async def test_webhook_and_audit_log_give_one_fact_one_id() -> None:
    """The same event by either way is the same event, so that the second is known."""
    body = raw_event("user.created", tenant="example", timestamp=NOW)
    async with scene() as it:
        start = (await it.feed.page(None)).cursor
        it.fake.happens(body)
        [polled] = (await it.feed.page(start)).arrivals
    [sent] = Source().arrivals(body, {}, NOW)

    assert polled.event == sent.event
    assert polled.event is not None
    assert polled.event.uid == ("authgear", "example", json.loads(body)["id"])


@pytest.mark.parametrize(
    ("fault", "ending", "wait"),
    [
        (answer(500), Retry, None),
        (answer(503, headers=[("Retry-After", "7")]), Retry, 7),
        (answer(429, headers=[("Retry-After", "30")]), Retry, 30),
        (answer(403), Hold, 60),
        (answer(404), Hold, 60),
        (answer(200, body=b"<html>a portal</html>"), Hold, 60),
        (answer(200, body=b'{"data": null}', headers=[("Content-Type", "application/json")]), Retry, None),
        (answer(200, body=b'{"data": {"auditLogs": null}}'), Retry, None),
        (answer(200, body=b'{"data": null, "errors": [{"message": "ada@", "extensions": {"reason": "InternalError"}}]}'), Retry, None),
        (answer(200, body=b'{"data": null, "errors": [{"message": "ada@"}]}'), Hold, 60),
        (answer(200, body=b'{"errors": "none of the form"}'), Retry, None),
        (RESET, Retry, None),
        (DROP, Retry, None),
    ],
    ids=lambda value: "" if isinstance(value, type) or value is None or isinstance(value, int) else f"{value.how}{value.status}",
)  # fmt: skip
async def test_every_failure_keeps_the_position(fault: Any, ending: type[Outcome], wait: float | None) -> None:
    """The feed says when to come again; the same position brings what was missed. No reason quotes what was answered."""
    async with scene() as it:
        start = (await it.feed.page(None)).cursor
        it.happens("e1")
        it.fake.script(fault, fault)  # a dropped connection is tried anew once by the HTTP client itself
        with pytest.raises(ending) as trouble:
            await it.feed.page(start)
        it.fake._script.clear()
        ids, _ = await look(it.feed, start)

    assert getattr(trouble.value, "after", None) == wait
    assert "ada@" not in trouble.value.reason
    assert ids == ["e1"]


async def test_an_answer_that_does_not_come_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """A slow API is a failure like others."""
    monkeypatch.setattr("usher.systems.api._PATIENCE", aiohttp.ClientTimeout(total=0.05))
    async with scene(slow=5.0) as it:
        with pytest.raises(Retry, match="no answer in time"):
            await it.feed.page(None)


async def test_an_expired_token_is_made_anew() -> None:
    """The token is kept for most of its life and no longer."""
    async with scene() as it:
        await it.api.check()
        first = it.api._api._token
        await it.api.check()
        assert it.api._api._token == first
        it.api._api._ends = 0.0
        await it.api.check()
        assert len(it.fake.answered) == 3
        assert set(it.fake.answered) == {200}


@pytest.mark.parametrize(
    "cursor", [b"", b"{}", b"[1]", b"\xff", b'["a", 1, null, null]', b"[1e300, 1e300, null, null]"]
)
async def test_a_position_that_is_none_is_refused(cursor: bytes) -> None:
    """Another version's, or garbage: polling continues from now."""
    async with scene() as it:
        with pytest.raises(Reject, match="can't be read"):
            await it.feed.page(cursor)


async def test_an_entry_without_its_event_is_reported_and_one_that_is_gone_is_not() -> None:
    """A stub for what can't be read; nothing for a row that vanished while the page was made."""
    body = {
        "data": {
            "auditLogs": {
                "edges": [
                    {"cursor": "a", "node": None},
                    {"cursor": "b", "node": {"createdAt": "2026-01-05T08:00:00Z", "data": None}},
                    {"cursor": "c", "node": {"createdAt": "never", "data": {"type": 7}}},
                ],
                "pageInfo": {"hasNextPage": False},
            }
        }
    }
    async with scene() as it:
        start = (await it.feed.page(None)).cursor
        it.fake.script(answer(200, body=json.dumps(body).encode()))
        page = await it.feed.page(start)

    assert [(arrival.event, bool(arrival.reason)) for arrival in page.arrivals] == [(None, True)] * 2


async def test_an_entry_with_a_wrong_time_does_not_carry_the_position_past_all_others() -> None:
    """It is brought; the next look is where it would have been."""
    async with scene() as it:
        start = (await it.feed.page(None)).cursor
        it.happens("odd", at=10 * 365 * 86400)
        ids, cursor = await look(it.feed, start)
        it.happens("next", at=1)
        again, _ = await look(it.feed, cursor)

    assert ids == ["odd"]
    assert again == ["next", "odd"]


_ANY = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                [
                    "data",
                    "errors",
                    "auditLogs",
                    "edges",
                    "node",
                    "pageInfo",
                    "hasNextPage",
                    "cursor",
                    "createdAt",
                    "extensions",
                    "reason",
                    "standardAttributes",
                    "email",
                ]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=25,
)
_LOGS = st.builds(lambda found: {"data": {"auditLogs": found}}, _ANY)
_NODE = st.builds(lambda found: {"data": {"node": found}}, _ANY)
_ERRORS = st.builds(lambda errors: {"data": None, "errors": errors}, _ANY)


@given(answered=_ANY | _LOGS | _NODE | _ERRORS)
def test_whatever_the_api_answers_is_an_answer_or_an_outcome(answered: Any) -> None:
    """No document of any form ends in another exception, in feed, look-up or action."""

    class Canned(ApiClient):
        async def call(self, *_: Any, **__: Any) -> Answer:
            return Answer(200, {}, json.dumps(answered).encode())

    async def ask() -> None:
        api = AuthgearApi("http://127.0.0.1:1", _KEY, lambda: None)  # type: ignore[arg-type, return-value]
        api._api = Canned("Authgear", "http://127.0.0.1:1", lambda: None)  # type: ignore[arg-type, return-value]
        feed = AuthgearAuditFeed(api, "example", Source(), TYPES, 15.0, now=lambda: NOW)
        for attempt in (
            feed.page(None),
            feed.page(b"[1, 1, null, null]"),
            api.user(about()),
            api.send_password_reset(about()),
        ):
            with contextlib.suppress(Outcome):
                await attempt

    asyncio.run(ask())


_KEY = AuthgearKey("example", "k", rsa.generate_private_key(public_exponent=65537, key_size=2048))


async def test_two_calls_at_once_share_one_token() -> None:
    """The client may be used by many deliveries together."""
    async with scene() as it:
        users = await asyncio.gather(*(it.api.user(about()) for _ in range(20)))

    assert {user.email for user in users} == {"ada@example.com"}


async def test_an_older_server_is_read_without_what_it_does_not_know() -> None:
    """A type that is read by default and that it lacks does not hold up the others; `usher check` names it."""
    newer = "ADMIN_API_MUTATION_CREATE_AUTHENTICATOR_EXECUTED"
    async with scene() as it:
        it.happens("01")
        for _ in range(2):
            page = await it.api.logs(None, ("USER_CREATED", newer), first=10)
            assert [edge["node"]["data"]["id"] for edge in page.edges] == ["01"]

        assert newer in await it.api.check()
        assert it.fake.asked == ["auditLogs"] * 4  # the first was refused
