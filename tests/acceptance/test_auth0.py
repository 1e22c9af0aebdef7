"""Auth0 with the service as a process: from webhooks and pulled streams to the outbox, once each, and without a credential anywhere."""

from __future__ import annotations

import base64
import email
import email.policy
import json
import time
from datetime import UTC, datetime
from email.message import EmailMessage
from pathlib import Path
from typing import Any

from tests.fakes.auth0 import FakeAuth0
from tests.service import Service, environment, running, usher

from usher.settings import Settings
from usher.storage import browser

SAMPLES = Path(__file__).parents[1] / "samples" / "auth0"
TOKEN = "webhook-token-of-auth0"
BACK_OFFICE = "clBackOffice00000000000000000003"
SECRETS = (
    "pw-Typed-At-Signup-1", "pw-Initial-Eva-1", "pw-Set-By-Admin-2", "pw-Chosen-New-3", "tick-verify-0000000000000000001",
    "tick-by-api-00000000000000002", "tick-reset-000000000000000003", TOKEN,
)  # fmt: skip


def env(**more: object) -> dict[str, str]:
    settings: dict[str, object] = {
        "auth0__webhook_token": TOKEN,
        "auth0__domain": "acme.eu.auth0.com",
        "auth0__admin_clients": BACK_OFFICE,
        "retry_delays": "100ms,200ms",
        **more,
    }
    return environment(**settings)


def api(fake: FakeAuth0) -> dict[str, object]:
    return {
        "auth0__domain": fake.domain,
        "auth0__client_id": fake.client_id,
        "auth0__client_secret": fake.client_secret,
        "auth0__base_url": fake.url,
    }


def sample(name: str) -> Any:
    """A sample of today: what is older than a day would not be sent."""
    document = json.loads((SAMPLES / f"{name}.json").read_bytes())
    now = datetime.now(UTC).isoformat()
    if "log_id" in document:
        document["data"]["date"] = now
    else:
        document["time"] = now
        document.pop("a0purpose", None)
    return document


def created(name: str, client: str | None = BACK_OFFICE) -> Any:
    document = sample("user.created")
    document["id"] = f"evt_{name}"
    document["data"]["object"] |= {"user_id": f"auth0|{name}", "email": f"{name}@example.com"}
    if client:
        document["data"]["context"] = {"client": {"id": client}}
    return document


async def send(service: Service, document: Any, authorization: str = f"Bearer {TOKEN}") -> int:
    body = document if isinstance(document, bytes) else json.dumps(document).encode()
    return await service.post("/ingest/auth0", body, {"authorization": authorization})


def mails(folder: Path) -> dict[str, EmailMessage]:
    """The mails in the outbox, by recipient."""
    found = [
        email.message_from_bytes(path.read_bytes(), policy=email.policy.default)
        for path in (folder / "outbox").glob("*.eml")
    ]
    assert len({mail["To"] for mail in found}) == len(found)
    return {mail["To"]: mail for mail in found}


def stored_in(folder: Path) -> bytes:
    """All that the embedded log has on disk."""
    return b"".join(path.read_bytes() for path in folder.glob("usher.db*"))


async def test_an_event_stream_welcomes_users_that_an_administrator_made(tmp_path: Path) -> None:
    """One mail for a repeated delivery; none for a self-signup, of which explain says why; 401 for a wrong secret."""
    async with running(tmp_path, env()) as service:
        assert await send(service, created("eva")) == 200
        assert await send(service, created("eva")) == 200
        assert await send(service, created("self", client="clPortal")) == 200
        assert await send(service, created("none", client=None)) == 200
        assert await send(service, created("forged"), "Bearer wrong") == 401
        assert await send(service, created("last"), "Basic " + base64.b64encode(TOKEN.encode()).decode()) == 200
        await service.wait(lambda: [line["event"] for line in service.lines].count("message sent") == 2)
    (tmp_path / "self.json").write_text(json.dumps(created("self", client="clPortal")))
    _, said, _ = await usher("explain", "self.json", "--source", "auth0", cwd=tmp_path, env=env())

    (tmp_path / "eva.json").write_text(json.dumps(created("eva")))
    linked = env(welcome_email__sending="link")
    _, would, _ = await usher("explain", "eva.json", "--source", "auth0", cwd=tmp_path, env=linked)

    assert "the application is not in USHER_AUTH0__ADMIN_CLIENTS" in " ".join(said.split())
    assert "needs the API of auth0" in " ".join(would.split())
    assert set(mails(tmp_path)) == {"eva@example.com", "last@example.com"}


async def test_the_logs_report_passwords_and_leave_no_credential(tmp_path: Path) -> None:
    """All samples in each format of a log stream; a grep of log, log lines and dead letters finds none of their secrets."""
    logs = [sample(path.stem) for path in sorted(SAMPLES.glob("log.*.json"))]
    lines = "\n".join(json.dumps(entry) for entry in logs).encode()
    many = [
        {"log_id": f"{number}", "data": {**sample("log.fn")["data"], "log_id": "", "pad": "x" * 2000}}
        for number in range(400)
    ]
    async with running(tmp_path, env(log_level="debug", auth0__created_from="logs")) as service:
        assert await send(service, logs) == 200
        assert await send(service, lines) == 200
        assert await send(service, {"logs": logs}) == 200
        assert await send(service, lines + b'\n{"half": "pw-Chosen-New-3') == 200
        assert await send(service, b"pw-Chosen-New-3") == 400
        assert await send(service, many) == 200
        await service.line("message sent", template="welcome_email")
        await service.wait(lambda: [line["event"] for line in service.lines].count("message sent") == 3)
        await service.line("dead-lettered")
        metrics = (await service.get("/metrics"))[1]
    code, dead_letters, err = await usher("dlq", "list", "--json", cwd=tmp_path, env=env())

    assert code == 0, err
    stored = stored_in(tmp_path)
    said = json.dumps(service.lines) + metrics + dead_letters
    assert b"eva.lund@example.com" in stored
    assert [secret for secret in SECRETS if secret.encode() in stored or secret in said] == []
    subjects = sorted(
        path.read_text().partition("Subject: ")[2].splitlines()[0] for path in (tmp_path / "outbox").glob("[!.]*")
    )
    assert len(subjects) == 3  # made, reset, expired: one message for each


async def test_what_is_pulled_and_pushed_is_one_message(tmp_path: Path) -> None:
    """Both streams are pulled, the event comes by webhook as well; after a restart what happened meanwhile comes, nothing again."""
    async with FakeAuth0() as fake:
        settings = env(**api(fake), auth0__poll="true", auth0__poll_every="100ms", auth0__admin_markers="created_by")
        async with running(tmp_path, settings) as service:
            await fake.stream.wait_opened(1)
            await fake.wait(lambda: fake.asked.count("GET /api/v2/logs") > 1)
            eva = fake.create_user(email="eva@example.com", app_metadata={"created_by": "hr"})
            event = fake.event_of(eva)
            assert await send(service, event) == 200
            await fake.stream.publish(event)
            fake.set_password(eva["user_id"], "pw-Set-By-Admin-2")
            await service.line("message sent", template="welcome_email")
            await service.line("message sent", template="reset_instructions")
        ida = fake.create_user(email="ida@example.com", app_metadata={"created_by": "hr"})
        await fake.stream.publish(fake.event_of(ida))
        async with running(tmp_path, settings) as service:
            await service.line("message sent", template="welcome_email")
            metrics = (await service.get("/metrics"))[1]

    sent = sorted(path.read_text().partition("To: ")[2].splitlines()[0] for path in (tmp_path / "outbox").glob("[!.]*"))
    assert sent == ["eva@example.com", "eva@example.com", "ida@example.com"]
    assert 'usher_polled_total{feed="auth0/acme.eu.auth0.com/events",outcome="stored"}' in metrics
    assert b"pw-Set-By-Admin-2" not in (tmp_path / "usher.db").read_bytes()


async def test_a_new_password_is_forced_at_the_first_login_and_the_flag_is_cleared(tmp_path: Path) -> None:
    """The flag is set, our mail has a link with its end, the user changes the password, the flag is gone; nobody hears twice."""
    later = [0.0]
    async with FakeAuth0(now=lambda: time.time() + later[0]) as fake:
        settings = env(
            **api(fake),
            auth0__poll="true",
            auth0__feeds="logs",
            auth0__poll_every="100ms",
            auth0__created_from="logs",
            auth0__link_expires_after="1h",
            handlers="+force_password_change,+clear_reset_flag",
            welcome_email__sending="link",
        )
        async with running(tmp_path, settings) as service:
            await fake.wait(lambda: fake.asked.count("GET /api/v2/logs") > 1)
            eva = fake.create_user(email="eva@example.com", password="pw-Initial-Eva-1")
            await service.line("message sent", template="welcome_email")
            user = fake.users[eva["user_id"]]
            await fake.wait(lambda: user.get("app_metadata", {}).get("needsPasswordReset") is True)
            later[0] = 3.0
            fake.change_password(eva["user_id"])
            await fake.wait(lambda: user["app_metadata"]["needsPasswordReset"] is False)
            await fake.wait(lambda: fake.asked.count("GET /api/v2/logs") > 10)
        said = json.dumps(service.lines)

    (ticket,) = fake.tickets
    mail = mails(tmp_path)["eva@example.com"]
    body = mail.get_body(("plain",))
    assert body is not None
    assert ticket["ticket"] in body.get_content()
    assert "This link works until" in body.get_content()
    stored = stored_in(tmp_path).decode("latin-1")
    for secret in (ticket["ticket"], "ticket=fake", "pw-Initial-Eva-1", fake.client_secret):
        assert secret not in stored + said


async def test_check_says_whether_the_api_can_be_used(tmp_path: Path) -> None:
    """Good credentials are ok, wrong ones a problem that names the settings and not the secret."""
    async with FakeAuth0() as fake:
        code, good, _ = await usher("check", "--json", cwd=tmp_path, env=env(**api(fake)))
        wrong = api(fake) | {"auth0__client_secret": "wrong-secret"}
        bad_code, bad, _ = await usher("check", "--json", cwd=tmp_path, env=env(**wrong))

    assert code == 0
    assert "acme.eu.auth0.com takes our credentials" in good
    assert bad_code == 1
    assert "USHER_AUTH0__CLIENT_SECRET" in bad
    assert "wrong-secret" not in bad


async def test_a_topic_of_raw_events_is_read_as_auth0s(tmp_path: Path) -> None:
    """As a bridge wrote them: the event in its CloudEvent, a log entry, and what is neither; whatever is stored anew has no credential."""
    settings = env(topics="identity.events,auth0-raw=auth0")
    log = Settings.load({**settings, "USHER_EVENT_LOG": f"sqlite:///{tmp_path}/usher.db"}, env_file=None)
    async with running(tmp_path, settings) as service:
        async with browser(log, create=True) as raw:
            for document in (created("eva"), sample("log.sapi.set-password"), {"password": "pw-Chosen-New-3"}):
                await raw.append("auth0-raw", None, json.dumps(document).encode(), ())
        await service.line("message sent", template="welcome_email")
        await service.line("message sent", template="reset_instructions")
        await service.line("dead-lettered", reason="undecodable")
    _, dead_letters, _ = await usher("dlq", "list", "--json", cwd=tmp_path, env=settings)

    assert set(mails(tmp_path)) == {"eva@example.com", "eva.lund@example.com"}
    assert "neither an event nor a log entry of Auth0" in dead_letters
    assert "pw-Chosen-New-3" not in dead_letters
