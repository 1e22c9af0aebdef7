"""The service beside a real Keycloak: administrators and users do things there, and the right people get a message."""

from __future__ import annotations

import asyncio
import email
import email.policy
import json
import sqlite3
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing
from pathlib import Path

import aiohttp
import pytest
from aiosmtpd.smtp import SMTP, Envelope
from tests.engine import until
from tests.keycloak import CLIENT_SECRET, Realm, Server
from tests.keycloak_people import log_in_with_a_new_password, register
from tests.service import Service, environment, running, usher

from usher import Event, Skip
from usher.event import User
from usher.systems.canonical import canonical_document
from usher.systems.decode import decode
from usher.systems.document import dump
from usher.systems.keycloak.api import KeycloakApi
from usher.systems.keycloak.source import KeycloakSource
from usher.testing import an_event

pytestmark = pytest.mark.timeout(300)

SECRET = "the-webhook's-secret"
TEMPORARY, CHOSEN = "Temporary-pw-1", "Chosen-pw-2"
CREDENTIALS = (SECRET, CLIENT_SECRET, TEMPORARY, CHOSEN)
KIM = {"email": "kim.berg@example.org", "firstName": "Kim", "lastName": "Berg", "attributes": {"locale": ["de"]}}
LEE = {"email": "lee.other@example.org", "firstName": "Lee", "lastName": "Other"}
SAM = {"email": "sam.self@example.org", "firstName": "Sam", "lastName": "Self"}
WANTED = {
    ("kim.berg@example.org", "welcome_email"): 1,
    ("kim.berg@example.org", "reset_instructions"): 1,
    ("lee.other@example.org", "welcome_email"): 1,
    ("lee.other@example.org", "reset_instructions"): 1,
}
"""Who gets what of `a_day_at_the_office`: a temporary password is one message, and the required action is one."""


async def a_day_at_the_office(realm: Realm) -> None:
    """An admin makes Kim and Lee, sets Kim a temporary password, makes Lee choose one; Kim does, and Sam registers."""
    kim = await realm.create_user("kim", **KIM)
    await realm.set_password(kim, TEMPORARY, temporary=True)
    lee = await realm.create_user("lee", **LEE)
    await realm.update_user(lee, requiredActions=["UPDATE_PASSWORD"])
    await log_in_with_a_new_password(realm, "kim", TEMPORARY, CHOSEN)
    await register(realm, "sam", CHOSEN, **SAM)


@asynccontextmanager
async def serving(folder: Path, realm: Realm, **more: object) -> AsyncIterator[Service]:
    """The service, knowing the realm; it writes German where it is wanted."""
    env = environment(**realm.settings(**more))
    async with running(folder, env) as service:
        yield service


_ACCOUNT_DISABLED = '''
from usher import Context, Event, on


@on("user.disabled")
async def account_disabled(event: Event, ctx: Context) -> None:
    """Write to a user whose account was disabled."""
    await ctx.email("account_disabled", to=event.user)
'''


def subjects(folder: Path) -> Counter[tuple[str, str]]:
    """How many mails there are, by recipient and subject."""
    mails = [
        email.message_from_bytes(path.read_bytes(), policy=email.policy.default)
        for path in (folder / "outbox").glob("*.eml")
    ]
    return Counter((str(mail["To"]), str(mail["Subject"])) for mail in mails)


def outbox(folder: Path) -> Counter[tuple[str, str]]:
    """How many mails there are, by recipient and subject."""
    found: Counter[tuple[str, str]] = Counter()
    for path in (folder / "outbox").glob("*.eml"):
        mail = email.message_from_bytes(path.read_bytes(), policy=email.policy.default)
        kind = "welcome_email" if _is_welcome(str(mail["Subject"])) else "reset_instructions"
        found[str(mail["To"]), kind] += 1
    return found


def _is_welcome(subject: str) -> bool:
    return any(word in subject for word in ("Your account", "Ihr Konto"))


def stored(folder: Path) -> list[Event]:
    """The events in the log's topic."""
    with closing(sqlite3.connect(f"file:{folder / 'usher.db'}?mode=ro", uri=True)) as database:
        rows = database.execute('SELECT value FROM records WHERE topic = ? ORDER BY "offset"', ("identity.events",))
        return [decode(value) for (value,) in rows]


def has(folder: Path, raw_type: str) -> Callable[[], bool]:
    return lambda: any(event.raw_type == raw_type for event in stored(folder))


def nothing_of(secrets: tuple[str, ...], folder: Path, service: Service) -> bool:
    """Whether no file of the log and no line that was logged holds any of them."""
    files = [path.read_bytes() for path in folder.glob("usher.db*")] + [json.dumps(service.lines).encode()]
    return not any(secret.encode() in file for secret in secrets for file in files)


async def test_the_webhook_brings_the_right_mails(keycloak: Server, tmp_path: Path) -> None:
    """By p2-inc's extension: a user that an admin made, reset or made to change gets one mail each; one who registered gets none."""
    async with keycloak.realm() as realm, serving(tmp_path, realm, webhook_secret=SECRET) as service:
        await realm.add_webhook(f"{service.url}/ingest/keycloak", SECRET)
        await a_day_at_the_office(realm)

        await until(lambda: outbox(tmp_path) >= Counter(WANTED) and has(tmp_path, "access.REGISTER")())
        await until(has(tmp_path, "access.UPDATE_PASSWORD"))
        assert outbox(tmp_path) == WANTED
        assert nothing_of(CREDENTIALS, tmp_path, service)
        by_raw = {event.raw_type: event for event in stored(tmp_path)}
        assert {event.tenant for event in by_raw.values()} == {realm.name}
        assert by_raw["access.REGISTER"].type == "user.created"
        assert by_raw["access.REGISTER"].context.triggered_by == "user"
        assert by_raw["access.UPDATE_PASSWORD"].type == "password.changed"
        code, out, _ = await usher(
            "explain", "-", cwd=tmp_path, env=environment(), stdin=dump(canonical_document(by_raw["access.REGISTER"]))
        )
        assert code == 0
        assert "triggered by user (user event: the user did it)" in out


async def test_the_poller_brings_the_right_mails_without_an_extension(keycloak: Server, tmp_path: Path) -> None:
    """From the built-in admin events alone come the same mails; a self-registration is not among them."""
    async with (
        keycloak.realm(eventsListeners=[]) as realm,
        serving(tmp_path, realm, poll="true", poll_every="200ms") as service,
    ):
        await service.line("polling")
        await looked(service)
        await a_day_at_the_office(realm)

        await until(lambda: outbox(tmp_path) >= Counter(WANTED))
        await realm.delete_user(await realm.create_user("last", email="last@example.org"))
        await until(has(tmp_path, "admin.USER-DELETE"))
        assert outbox(tmp_path) - Counter({("last@example.org", "welcome_email"): 1}) == WANTED
        assert {event.context.triggered_by for event in stored(tmp_path)} == {"admin_api"}
        assert nothing_of(CREDENTIALS, tmp_path, service)


@pytest.mark.parametrize("way", ["webhook", "poller"])
async def test_each_way_of_an_administrator_is_recognised(keycloak: Server, tmp_path: Path, way: str) -> None:
    """Imports, slashes at the end, accounts that are disabled, enabled again and deleted: who should hear of it does, once."""
    settings = {"poll": "true", "poll_every": "200ms"} if way == "poller" else {"webhook_secret": SECRET}
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "account_disabled.py").write_text(_ACCOUNT_DISABLED)
    (tmp_path / "mine" / "templates" / "account_disabled").mkdir(parents=True)
    (tmp_path / "mine" / "templates" / "account_disabled" / "en.txt").write_text("Subject: Disabled\n\nIt is.\n")
    async with (
        keycloak.realm() as realm,
        running(tmp_path, environment(handlers_dir="mine", **realm.settings(**settings))) as service,
    ):
        if way == "poller":
            await looked(service)
        else:
            await realm.add_webhook(f"{service.url}/ingest/keycloak", SECRET)
        await realm.import_users(
            {"username": "ida", "email": "ida@example.org", "enabled": True},
            {"username": "off", "email": "off@example.org", "enabled": False},
        )
        lee = await realm.post_user("users/", {"username": "lee", "email": "lee@example.org", "enabled": True})
        await realm.set_password(f"{lee}/", TEMPORARY, temporary=True)
        await realm.update_user(lee, enabled=False)
        await realm.update_user(f"{lee}/", enabled=True)
        await realm.delete_user(lee)
        ann = await realm.create_user("ann", email="ann@example.org")
        for enabled in (True, False, False, True, True):  # as the admin console writes them
            await realm.update_user(ann, username="ann", email="ann@example.org", enabled=enabled)
        password = {"type": "password", "value": CHOSEN, "temporary": False}
        await realm.update_user(ann, email="ann@example.org", credentials=[password])
        await until(has(tmp_path, "admin.USER-DELETE"))
        await realm.create_user("last", email="last@example.org")
        await until(lambda: ("last@example.org", "Your account on our service") in subjects(tmp_path))
        await until(lambda: ("ann@example.org", "Your password for our service was changed") in subjects(tmp_path))
        await until(lambda: ("ann@example.org", "Disabled") in subjects(tmp_path))

    by_type = Counter(event.type for event in stored(tmp_path) if event.user.username != "service-account-usher")
    assert by_type["user.created"] == 5
    assert [by_type[type_] for type_ in ("user.disabled", "user.reenabled", "user.deleted")] == [2, 2, 1]
    assert by_type["password.reset"] == 2
    sent = subjects(tmp_path)
    assert sent["ida@example.org", "Your account on our service"] == 1
    assert sent["ann@example.org", "Disabled"] == 1
    assert sent["ann@example.org", "Your password for our service was changed"] == 1
    assert not any(to == "off@example.org" for to, _ in sent)


async def test_webhook_and_poller_together_are_one_message(keycloak: Server, tmp_path: Path) -> None:
    """Both report one fact under one id: each mail is sent once, and the log holds each event once where the webhook was first."""
    async with (
        keycloak.realm() as realm,
        serving(tmp_path, realm, webhook_secret=SECRET, poll="true", poll_every="1s") as service,
    ):
        await looked(service)
        await realm.add_webhook(f"{service.url}/ingest/keycloak", SECRET)
        await a_day_at_the_office(realm)

        await until(lambda: outbox(tmp_path) >= Counter(WANTED))
        known = [event["id"] for event in await realm.admin_events() if event["resourceType"] == "USER"]
        await until(lambda: set(known) <= {event.id for event in stored(tmp_path)})
        await looked(service, times=2)
        assert outbox(tmp_path) == WANTED


async def test_events_of_the_time_when_usher_was_down_are_polled(keycloak: Server, tmp_path: Path) -> None:
    """What was done while Usher was stopped leads to messages once it runs again; no message is sent a second time."""
    settings = {"poll": "true", "poll_every": "200ms"}
    async with keycloak.realm(eventsListeners=[]) as realm:
        await realm.create_user("before", email="before@example.org")
        async with serving(tmp_path, realm, **settings) as service:
            await looked(service)
            await realm.create_user("kim", **KIM)
            await until(lambda: len(outbox(tmp_path)) == 1)
            await looked(service, times=2)
        await realm.create_user("lee", **LEE)
        async with serving(tmp_path, realm, **settings) as service:
            await until(lambda: len(outbox(tmp_path)) == 2)
            await looked(service, times=2)

        assert outbox(tmp_path) == {
            ("kim.berg@example.org", "welcome_email"): 1,
            ("lee.other@example.org", "welcome_email"): 1,
        }


async def test_check_proves_credentials_rights_and_what_the_realm_keeps(keycloak: Server, tmp_path: Path) -> None:
    """`usher check` says that the API takes us; with a wrong secret, or nothing to poll, it says what to look at."""

    async def checked(realm: Realm, **more: object) -> tuple[int, str]:
        code, out, _ = await usher("check", "--json", cwd=tmp_path, env=environment(**realm.settings(**more)))
        (line,) = [row for row in json.loads(out) if row["what"] == "keycloak: API"]
        return code, f"{line['status']}: {line['text']}"

    async with keycloak.realm() as realm, keycloak.realm(adminEventsEnabled=False) as forgetful:
        assert await checked(realm, poll="true") == (
            0,
            f"ok: realm {realm.name} takes our credentials, and keeps admin events",
        )
        code, text = await checked(realm, client_secret="wrong")
        assert (code, text) == (1, text)
        assert "refuses our credentials (401); see USHER_KEYCLOAK__URL" in text
        code, text = await checked(forgetful, poll="true")
        assert "keeps no admin events" in text


async def test_actions_do_in_keycloak_what_they_say(keycloak: Server) -> None:
    """The required action is added beside others and taken back; Keycloak mails its link; and our own update is marked as ours."""
    mails: list[str] = []
    async with (
        _mail_server(mails) as port,
        keycloak.realm(smtpServer={"host": "127.0.0.1", "port": str(port), "from": "id@example.org"}) as realm,
        aiohttp.ClientSession() as session,
    ):
        attributes = {"mobile": ["+447400123456"], "locale": ["de"]}
        kim = await realm.create_user("kim", **{**KIM, "attributes": attributes})
        await realm.update_user(kim, requiredActions=["VERIFY_EMAIL"])
        source = KeycloakSource(realm=realm.name)
        api, event = _api(realm, session, source), an_event("user.created", user_id=kim)

        found = await api.user(event)
        assert found == User(
            id=kim,
            username="kim",
            email=str(KIM["email"]),
            phone="+447400123456",
            name="Kim Berg",
            locale="de",
            disabled=False,
        )
        for _ in range(2):
            await api.require_password_change(event)
            assert set((await realm.user(kim))["requiredActions"]) == {"VERIFY_EMAIL", "UPDATE_PASSWORD"}
        (ours,) = [event for event in await _read(realm, source) if event.type == "password.expired"]
        assert ours.context.already_notified_by
        await api.clear_password_change(event)
        after = await realm.user(kim)
        assert (after["requiredActions"], after["attributes"]) == (["VERIFY_EMAIL"], attributes)
        await api.send_password_reset(event)
        assert mails == [KIM["email"]]
        sent = (await _read(realm, source))[-1]
        assert (sent.type, sent.context.already_notified_by) == (
            "password.reset_requested",
            ours.context.already_notified_by,
        )
        with pytest.raises(Skip, match="no such user"):
            await api.require_password_change(
                an_event("password.reset", user_id="00000000-0000-0000-0000-000000000000")
            )


@asynccontextmanager
async def _mail_server(mails: list[str]) -> AsyncIterator[int]:
    """A mail server that notes the recipients of its mails; gives its port."""

    class Handler:
        async def handle_DATA(self, server: object, session: object, envelope: Envelope) -> str:  # noqa: N802 - aiosmtpd's
            mails.extend(envelope.rcpt_tos)
            return "250 OK"

    server = await asyncio.get_running_loop().create_server(lambda: SMTP(Handler()), "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


def _api(realm: Realm, session: aiohttp.ClientSession, source: KeycloakSource) -> KeycloakApi:
    given = {name.removeprefix("keycloak__"): value for name, value in realm.settings().items()}
    return KeycloakApi(
        given["url"], realm.name, client_id=given["client_id"], client_secret=given["client_secret"],
        session=lambda: session, source=source,
    )  # fmt: skip


async def _read(realm: Realm, source: KeycloakSource) -> list[Event]:
    """The realm's admin events, as Usher reads them."""
    arrivals = [source.arrival(document) for document in await realm.admin_events()]
    return [arrival.event for arrival in arrivals if arrival.event is not None]


async def looked(service: Service, times: int = 1) -> None:
    """Wait until the poller has looked again, to the end, so many times."""
    for _ in range(times):
        before = await _last_look(service)
        async with asyncio.timeout(30):
            while await _last_look(service) == before:  # noqa: ASYNC110 - a metric announces nothing
                await asyncio.sleep(0.02)


async def _last_look(service: Service) -> float:
    metrics = (await service.get("/metrics"))[1]
    looks = [line for line in metrics.splitlines() if line.startswith("usher_polled_timestamp_seconds{")]
    return max((float(line.rpartition(" ")[2]) for line in looks), default=0.0)
