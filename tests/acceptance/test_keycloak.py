"""A team with Keycloak and nothing else: webhook, poller and topic in, the right mails out, each once, and no credential anywhere."""

from __future__ import annotations

import json
from email import message_from_bytes
from email.policy import default
from pathlib import Path
from typing import Any

from tests.engine import until
from tests.fakes.keycloak import ACCOUNT, FakeKeycloak
from tests.service import Service, environment, running, usher

from usher.testing.providers import answer

SECRET = "whsec-of-keycloak"
INITIAL = "an-initial-password"
CREDENTIALS = (SECRET, INITIAL, "fake-client-secret")


def env(fake: FakeKeycloak, **more: object) -> dict[str, str]:
    settings: dict[str, object] = {
        "keycloak__webhook_secret": SECRET,
        "keycloak__url": fake.url,
        "keycloak__realm": fake.realm,
        "keycloak__client_id": fake.client_id,
        "keycloak__client_secret": fake.client_secret,
        "retry_delays": "100ms,200ms",
        "log_level": "debug",
    }
    return environment(**{**settings, **more})


async def send(service: Service, fake: FakeKeycloak, event: dict[str, Any], secret: str = SECRET) -> int:
    return await service.post("/ingest/keycloak", *fake.webhook(event, secret))


def outbox(folder: Path) -> list[str]:
    """The messages: address and subject of each; of an SMS the number."""
    messages = [message_from_bytes(path.read_bytes(), policy=default) for path in (folder / "outbox").glob("[!.]*")]
    return sorted(f"{message['To']} {message['Subject'] or 'SMS'}" for message in messages)


async def test_the_right_people_hear_of_it_once(tmp_path: Path) -> None:
    """Whom an admin made, reset or made to change is written to; not who registered, nor by a forgery, nor twice for what comes twice."""
    async with FakeKeycloak() as fake:
        settings = env(fake, keycloak__poll="true", keycloak__poll_every="100ms")
        async with running(tmp_path, settings) as service:
            await fake.wait_answered(len(fake.answered) + 3)  # a token, the first look, and the next
            ann = fake.create_user("ann", email="ann@example.org", credentials=[{"type": "password", "value": INITIAL}])
            reset = fake.reset_password("ann")
            fake.script(answer(503))  # the look-up of Ann is tried again
            for event in (ann, reset, ann, reset):
                assert await send(service, fake, event) == 200
            fake.create_user("bob", phone="", attributes={"phoneNumber": ["+447400123456"], "locale": ["de"]})
            fake.users["bob"]["email"] = "bob@example.org"
            required = fake.happens(
                "UPDATE", "users/bob", {"requiredActions": ["UPDATE_PASSWORD"]}
            )  # no webhook reports it
            assert await send(service, fake, required, "guessed") == 401
            assert await send(service, fake, {**ann, "id": "failed", "error": "User exists"}) == 200
            registered = {"id": "r-1", "type": "REGISTER", "userId": "sam", "details": {"email": "sam@example.org"}}
            assert await service.post("/ingest/keycloak", *_signed(fake, registered)) == 200
            await until(lambda: len(outbox(tmp_path)) >= 4)
            assert await send(service, fake, fake.create_user("last", email="last@example.org")) == 200
            await until(lambda: len(outbox(tmp_path)) >= 5)
            looks = len(fake.answered)
            await fake.wait_answered(looks + 3)
        code, dead_letters, _ = await usher("dlq", "list", "--json", cwd=tmp_path, env=settings)
        assert code == 0
        kept = b"".join([dead_letters.encode(), json.dumps(service.lines).encode(), *_files(tmp_path)])

    assert outbox(tmp_path) == [
        "+447400123456 SMS",
        "ann@example.org Your account on our service",
        "ann@example.org Your password for our service was changed",
        "bob@example.org Ihr Passwort für our service ist abgelaufen",
        "last@example.org Your account on our service",
    ]
    assert [name for name in CREDENTIALS if name.encode() in kept] == []
    assert json.loads(dead_letters) == []


async def test_a_new_password_is_required_of_an_admins_new_user_and_that_is_no_second_message(tmp_path: Path) -> None:
    """`force_password_change` sets the required action; the admin event of that is Usher's own, and no message is sent about it."""
    async with FakeKeycloak() as fake:
        settings = env(fake, keycloak__poll="true", keycloak__poll_every="100ms", handlers="+force_password_change")
        async with running(tmp_path, settings) as service:
            await fake.wait_answered(len(fake.answered) + 3)  # a token, the first look, and the next
            fake.create_user("ann", email="ann@example.org")
            await until(lambda: fake.users["ann"]["requiredActions"] == ["UPDATE_PASSWORD"])
            ours = fake.admin_events[-1]["id"]
            await service.line("nothing sent", event_id=ours, handler="reset_instructions")

        assert outbox(tmp_path) == ["ann@example.org Your account on our service"]


async def test_a_listener_that_is_quicker_than_the_commit_loses_nothing(tmp_path: Path) -> None:
    """The user is not there at the first look-up: the delivery is parked, and the second one finds the user."""
    async with FakeKeycloak() as fake:
        made = fake.create_user("ann", attributes={})
        ann = fake.users.pop("ann")
        settings = env(fake, handlers="+force_password_change", retry_delays="1s,10s")
        async with running(tmp_path, settings) as service:
            assert await send(service, fake, made) == 200
            await fake.wait(lambda: fake.answered.count(404) >= 2)
            fake.users["ann"] = {**ann, "email": "ann@example.org"}  # the commit
            await service.line("message sent", handler="welcome_email")
            await until(
                lambda: ann["requiredActions"] == [] and fake.users["ann"]["requiredActions"] == ["UPDATE_PASSWORD"]
            )

        assert outbox(tmp_path) == ["ann@example.org Your account on our service"]


async def test_a_mail_that_keycloak_sends_for_us_is_not_answered_with_another(tmp_path: Path) -> None:
    """Each request of Keycloak's own mail is an admin event: one of ours asks for no further mail, by webhook or poller."""
    async with FakeKeycloak() as fake:
        own = {"reset_instructions__sending": "system", "reset_instructions__also_after_request": "true"}
        fake.create_user("ann", email="ann@example.org")
        ours = fake.happens("ACTION", "users/ann/execute-actions-email", by=ACCOUNT)
        async with running(tmp_path, env(fake, **own)) as service:  # that has never asked Keycloak for anything
            assert await send(service, fake, ours) == 200
            await service.line("nothing sent", event_id=ours["id"], handler="reset_instructions")
        assert fake.sent == []
        async with running(tmp_path, env(fake, keycloak__poll="true", keycloak__poll_every="100ms", **own)) as service:
            await fake.wait_answered(len(fake.answered) + 3)
            fake.reset_password("ann")
            await until(lambda: fake.sent == ["ann"])
            ours = fake.admin_events[-1]
            await service.line("nothing sent", event_id=ours["id"], handler="reset_instructions")
            again = fake.happens("ACTION", "users/ann/execute-actions-email", by=ACCOUNT)
            fake.admin_events.remove(again)  # this one comes by webhook
            assert await send(service, fake, again) == 200
            await service.line("nothing sent", event_id=again["id"], handler="reset_instructions")

        assert fake.sent == ["ann"]


async def test_the_events_of_a_kafka_listener_are_read_from_their_topic(tmp_path: Path) -> None:
    """A topic may name its source: what is on it is verified by nobody but the broker, and read as the webhook's is."""
    async with FakeKeycloak() as fake:
        settings = env(fake, topics="identity.events,keycloak-admin=keycloak")
        async with running(tmp_path, settings) as service:
            fake.create_user("ann", email="ann@example.org")
            event = {
                **fake.reset_password("ann"),
                "realmName": fake.realm,
                "resourceTypeAsString": "USER",
                "error": None,
            }
            producer = env(fake, topics="keycloak-admin")
            given = json.dumps(event).encode()
            code, _, err = await usher("emit", "-", "--force", cwd=tmp_path, env=producer, stdin=given)
            assert code == 0, err
            await service.line("message sent", handler="reset_instructions")

        assert outbox(tmp_path) == ["ann@example.org Your password for our service was changed"]


async def test_explain_says_who_did_it(tmp_path: Path) -> None:
    """Of a body that one has: the rule that decided, and what would be sent."""
    fake = FakeKeycloak()
    body, _ = fake.webhook(fake.create_user("ann", email="ann@example.org"), SECRET)
    code, out, _ = await usher("explain", "-", "--source", "keycloak", cwd=tmp_path, env=environment(), stdin=body)

    assert code == 0
    assert "triggered by admin_api (admin event: written for calls of the admin API only)" in out


def _signed(fake: FakeKeycloak, event: dict[str, Any]) -> tuple[bytes, dict[str, str]]:
    return fake.webhook({**event, "resourceType": "", "operationType": None}, SECRET)


def _files(folder: Path) -> list[bytes]:
    return [path.read_bytes() for path in folder.rglob("*") if path.is_file()]
