"""A team with GenAuth and nothing else: webhook and audit log in, the right mails out, each once, and no credential anywhere."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.engine import until
from tests.fakes.genauth import FakeGenAuth
from tests.service import Service, environment, running, usher

from usher.settings import Settings
from usher.storage import browser
from usher.testing.providers import answer

SECRET = "whsec-of-genauth"
CREDENTIALS = (
    "hash-of-password",
    "salt-of-hash",
    "encrypted-hash",
    "session-token",
    "set-by-an-admin",
    "fake-access-key-secret",
    SECRET,
)
SELF = {"registerSource": ["basic:email"], "registerMethod": "basic:email"}


def user(user_id: str, **more: Any) -> dict[str, Any]:
    """A user as webhooks write it, with what may not be kept."""
    return {
        "id": user_id,
        "email": f"{user_id}@example.org",
        "password": "hash-of-password",
        "salt": "salt-of-hash",
        "encryptedPassword": "encrypted-hash",
        "token": "session-token",
        **more,
    }


def env(fake: FakeGenAuth, **more: object) -> dict[str, str]:
    settings: dict[str, object] = {
        "genauth__webhook_secret": SECRET,
        "genauth__url": fake.url,
        "genauth__access_key_id": fake.key_id,
        "genauth__access_key_secret": fake.key_secret,
        "genauth__brand": fake.brand,
        "retry_delays": "100ms,200ms",
        "log_level": "debug",
    }
    return environment(**{**settings, **more})


async def send(service: Service, fake: FakeGenAuth, name: str, data: dict[str, Any], secret: str = SECRET) -> int:
    body, headers = fake.webhook(name, data, secret)
    return await service.post("/ingest/genauth", body, headers)


def mails(folder: Path) -> list[str]:
    """The mails: address and subject of each."""
    heads = [path.read_text("utf-8").partition("\n\n")[0].splitlines() for path in (folder / "outbox").glob("*.eml")]
    lines = [dict(line.partition(": ")[::2] for line in head) for head in heads]
    return sorted(f"{line['To']} {line['Subject']}" for line in lines)


async def test_the_right_people_hear_of_it_once(tmp_path: Path) -> None:
    """Whom an administrator made or reset is written to; not who signed up, nor by a forgery, nor twice for what comes twice."""
    async with FakeGenAuth() as fake:
        fake.users = {
            "ann": {"email": "ann@example.org", "userSourceType": "adminCreated"},
            "bob": {"email": "bob@example.org", "userSourceType": "register"},
            "cat": {"email": "cat@example.org"},
            "dan": {"email": "dan@example.org"},
        }
        settings = env(fake, genauth__poll="true", genauth__poll_every="100ms", handlers="+force_password_change")
        async with running(tmp_path, settings) as service:
            await fake.wait_answered(1)
            assert await send(service, fake, "user:created", user("ann", **SELF)) == 200
            assert await send(service, fake, "register", user("ann", **SELF)) == 200
            assert await send(service, fake, "user:created", user("bob", **SELF)) == 200
            assert (
                await send(service, fake, "user:created", user("eve", registerSource=["import:excel"]), "wrong") == 401
            )
            fake.administrator("create", "ann", {"password": "set-by-an-admin"})
            fake.administrator("update", "cat", {"password": "set-by-an-admin"})
            assert await send(service, fake, "user:password-changed", {"userId": "cat"}) == 200
            assert await send(service, fake, "user:password-changed", {"userId": "cat"}) == 200
            assert await send(service, fake, "user:password-changed", {"userId": "bob"}) == 200
            fake.administrator("update", "dan", {"password": "set-by-an-admin"})  # no webhook reports it
            await service.wait(lambda: len(mails(tmp_path)) >= 3)
            await fake.wait_answered(len(fake.answered) + 3)
            await _marker(service, fake)
            forced = list(fake.options)
        kept = await _kept(tmp_path, settings, service)
        why = (await usher("why", "created-bob", cwd=tmp_path, env=settings))[1]

    assert mails(tmp_path) == [
        "ann@example.org Your account on our service",
        "cat@example.org Your password for our service was changed",
        "dan@example.org Your password for our service was changed",
        "marker@example.org Your account on our service",
    ]
    assert forced[0] == ("ann", {"resetPasswordOnFirstLogin": True})
    assert [name for name in CREDENTIALS if name in kept] == []
    assert "triggered by user, not admin_api" in why


async def _marker(service: Service, fake: FakeGenAuth) -> None:
    """One more user, whose mail goes out when all that came before was read."""
    fake.users["marker"] = {}
    assert await send(service, fake, "user:created", user("marker", registerSource=["import:excel"])) == 200
    await service.line("message sent", event_id="created-marker")


async def _kept(folder: Path, settings: dict[str, str], service: Service) -> str:
    """All that a stopped service has left: the log's files, its lines, the dead letters, the outbox."""
    files = _files(folder)
    code, dead_letters, err = await usher("dlq", "list", "--json", cwd=folder, env=settings)
    assert code == 0, err
    return "\n".join([*files, dead_letters, *(json.dumps(line) for line in service.lines)])


def _files(folder: Path) -> list[str]:
    return [path.read_bytes().decode("utf-8", "replace") for path in folder.rglob("*") if path.is_file()]


async def test_the_welcome_says_where_and_with_which_account_to_log_in(tmp_path: Path) -> None:
    """Login address and account, as an invitation does, and no password; a user without a mail address gets an SMS."""
    async with FakeGenAuth() as fake, running(tmp_path, env(fake)) as service:
        imported = user("kim", registerSource=["import:manual"])
        by_phone = {
            **user("lee", registerSource=["import:manual"]),
            "email": None,
            "phone": "07400123456",
            "phoneCountryCode": "+44",
        }
        assert await send(service, fake, "user:created", imported) == 200
        assert await send(service, fake, "user:created", by_phone) == 200
        await service.line("message sent", event_id="created-kim")
        await service.line("message sent", event_id="created-lee")

    (mail,) = (tmp_path / "outbox").glob("*.eml")
    (text,) = (tmp_path / "outbox").glob("*.txt")
    assert "https://login.example.org" in mail.read_text()
    assert "kim@example.org" in mail.read_text().partition("\n\n")[2]
    assert "+447400123456" in text.read_text()


async def test_an_import_is_capped_and_what_is_over_it_is_parked(tmp_path: Path) -> None:
    """Two a minute: the others wait their minute, in the log, without an attempt counted; no user is lost."""
    async with FakeGenAuth() as fake:
        settings = env(fake, genauth__messages_per_minute=2)
        async with running(tmp_path, settings) as service:
            for number in range(5):
                assert (
                    await send(service, fake, "user:created", user(f"u{number}", registerSource=["import:excel"]))
                    == 200
                )
            await service.wait(lambda: [line["event"] for line in service.lines].count("parked") >= 3)
            metrics = (await service.get("/metrics"))[1]
        code, out, err = await usher("why", "created-u4", "--json", cwd=tmp_path, env=settings)

    assert code == 0, err
    waiting = {row["handler"]: row for row in json.loads(out)[0]["deliveries"]}["welcome_email"]
    assert (waiting["state"], waiting["attempts"]) == ("parked", 0)
    assert "genauth has had its 2 messages of this minute" in waiting["reason"]
    assert 'usher_messages_rate_limited_total{system="genauth"} 3.0' in metrics
    assert len(mails(tmp_path)) == 2


async def test_an_api_that_is_down_costs_nothing_that_is_sent_again(tmp_path: Path) -> None:
    """503 while nobody can say who made the user; the repeat is one message."""
    async with FakeGenAuth() as fake:
        fake.users["ann"] = {"userSourceType": "adminCreated"}
        async with running(tmp_path, env(fake)) as service:
            fake.script(answer(429, headers=[("Retry-After", "1")]))
            assert await send(service, fake, "user:created", user("ann", **SELF)) == 503
            assert await send(service, fake, "user:created", user("ann", **SELF)) == 200
            await until(lambda: mails(tmp_path) != [])

    assert mails(tmp_path) == ["ann@example.org Your account on our service"]


async def test_what_genauth_wrote_to_a_topic_of_its_own_is_read_there(tmp_path: Path) -> None:
    """A topic that names its source: the right mail, and a dead letter that holds no credential."""
    async with FakeGenAuth() as fake:
        settings = env(fake, topics="identity.events,genauth-raw=genauth")
        people = [
            user("ann", registerSource=["import:excel"]),
            user("bob", registerSource=["import:excel"], email="no address"),
        ]
        async with browser(
            Settings.load({"USHER_EVENT_LOG": f"sqlite:///{tmp_path}/usher.db"}, env_file=None), create=True
        ) as log:
            for person in people:
                await log.append(
                    "genauth-raw", None, json.dumps({"eventName": "user:created", "data": person}).encode()
                )
        async with running(tmp_path, settings) as service:
            await service.line("message sent", event_id="created-ann")
            await service.line("dead-lettered", event_id="created-bob")
        listed = await usher("dlq", "list", "--json", cwd=tmp_path, env=settings)
        (dead_letter,) = json.loads(listed[1])
        shown = await usher("dlq", "show", dead_letter["id"], "--payload", "--json", cwd=tmp_path, env=settings)

    assert mails(tmp_path) == ["ann@example.org Your account on our service"]
    assert (dead_letter["event_id"], dead_letter["tenant"]) == ("created-bob", fake.user_pool_id)
    assert "import:excel" in shown[1]
    said = "".join((shown[1], *(json.dumps(line) for line in service.lines)))
    assert [name for name in CREDENTIALS if name in said] == []


async def test_check_and_explain_answer_what_a_new_team_asks(tmp_path: Path) -> None:
    """Whether the access key is taken, and why a self-registration gets no message."""
    async with FakeGenAuth() as fake:
        good = await usher("check", cwd=tmp_path, env=env(fake))
        bad = await usher("check", cwd=tmp_path, env=env(fake, genauth__access_key_secret="another"))
        body = json.dumps({"eventName": "user:created", "data": user("bob", **SELF)}).encode()
        explained = await usher("explain", "-", "--source", "genauth", cwd=tmp_path, env=env(fake), stdin=body)

    assert "takes the access key fake-user-pool" in good[1]
    assert (bad[0], "refuses our credentials (401)" in bad[1]) == (1, True)
    assert "triggered by user (registerSource basic:email)" in explained[1]
    assert "hash-of-password" not in explained[1]
