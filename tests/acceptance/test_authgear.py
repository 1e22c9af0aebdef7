"""A team with Authgear and nothing else: the service as a process, its webhook, and an Admin API on loopback."""

from __future__ import annotations

import hashlib
import hmac
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from tests.engine import until
from tests.fakes.authgear import FakeAuthgear
from tests.service import Service, environment, running, usher

from usher.testing import raw_event
from usher.testing.providers import answer

SECRET = "whsec-of-the-test"
PASSWORD, CODE = "Initial-Password-7", "739152"


class Scene:
    """A folder for the service, and the Authgear that it is set up for."""

    def __init__(self, fake: FakeAuthgear, folder: Path) -> None:
        self.fake, self.folder = fake, folder

    def env(self, **more: object) -> dict[str, str]:
        (self.folder / "key.pem").write_text(self.fake.private_key)
        return environment(
            authgear__webhook_secret=SECRET,
            authgear__endpoint=self.fake.url,
            authgear__app_id=self.fake.app_id,
            authgear__key_id=self.fake.key_id,
            authgear__private_key_file=self.folder / "key.pem",
            authgear__poll="true",
            authgear__poll_every="100ms",
            retry_delays="100ms,200ms",
            log_level="debug",
            **more,
        )

    def event(self, type_: str, user: str, **details: Any) -> bytes:
        details = {"email": f"{user}@example.org", **details}
        id_ = hashlib.sha256(f"{type_}{user}".encode()).hexdigest()[:16]
        return raw_event(type_, id=id_, user_id=user, tenant=self.fake.app_id, timestamp=int(time.time()), **details)

    def mails(self) -> list[str]:
        """The recipients of mail, with how many mails each has."""
        texts = [path.read_text() for path in (self.folder / "outbox").glob("*.eml")]
        return sorted(
            line.removeprefix("To: ") for text in texts for line in text.splitlines() if line.startswith("To: ")
        )

    async def looked(self, times: int = 3) -> None:
        """Return once the audit log has been read so many times more: what it held before is in the log of events."""
        await self.fake.wait_answered(len(self.fake.answered) + times)


@asynccontextmanager
async def scene(folder: Path) -> AsyncIterator[Scene]:
    async with FakeAuthgear(app_id="harbour") as fake:
        yield Scene(fake, folder)


async def hook(service: Service, body: bytes, secret: str = SECRET, path: str = "/ingest/authgear") -> int:
    signature = hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()
    return await service.post(path, body, {"x-authgear-body-signature": signature})


async def polling(service: Service, it: Scene) -> None:
    await service.line("polling")
    await it.looked(2)


async def test_webhook_and_audit_log_together_are_one_message_each(tmp_path: Path) -> None:
    """An admin's new user is welcomed once, the reset of the password is one message, and a self-signup none."""
    async with scene(tmp_path) as it, running(tmp_path, it.env()) as service:
        await polling(service, it)
        created, signup = it.event("user.created", "ann"), it.event("user.created", "sue", triggered_by="user")
        for body in (created, created, signup):
            assert await hook(service, body) == 200
        assert await hook(service, it.event("user.created", "eve"), secret="wrong") == 401
        for known in (created, signup):
            it.fake.happens(known)
        it.fake.happens(it.event("password.reset", "bob"))
        it.fake.happens(it.event("password.reset_requested", "cat", payload={"login_id": "cat@example.org"}))
        it.fake.happens(it.event("admin_api.mutation.create_user.executed", "ann"))
        await until(lambda: len(it.mails()) == 2)
        await it.looked()
        assert it.mails() == ["ann@example.org", "bob@example.org"]
        metrics = (await service.get("/metrics"))[1]

    feed = "authgear/harbour/audit-log"
    assert f'usher_polled_total{{feed="{feed}",outcome="stored"}} 3.0' in metrics


async def test_what_the_webhook_missed_while_usher_was_down_is_brought(tmp_path: Path) -> None:
    """Authgear sends a webhook once and forgets it: the audit log remembers. A failing API is only waited for."""
    async with scene(tmp_path) as it:
        async with running(tmp_path, it.env()) as service:
            await polling(service, it)
            assert await hook(service, it.event("user.created", "ann")) == 200
            await service.line("message sent")
        it.fake.happens(it.event("user.created", "ann"))
        it.fake.happens(it.event("user.created", "bob"))
        it.fake.happens(it.event("password.expired", "cat"))
        it.fake.script(answer(503, headers=[("Retry-After", "1")]), answer(429, headers=[("Retry-After", "1")]))
        async with running(tmp_path, it.env()) as service:
            await until(lambda: len(it.mails()) == 3)
            await it.looked()
            assert it.mails() == ["ann@example.org", "bob@example.org", "cat@example.org"]


async def test_each_project_has_a_path_and_secrets_of_its_own(tmp_path: Path) -> None:
    """What one project signs is not taken at another's path; the same id in both is two events."""
    async with scene(tmp_path) as it:
        env = environment(authgear__webhook_secret=SECRET, authgear__shop__webhook_secret="whsec-of-the-shop")
        ours = it.event("user.created", "ann")
        theirs = ours.replace(b'"harbour"', b'"shop"').replace(b"ann@example.org", b"bob@example.org")
        async with running(tmp_path, env) as service:
            assert await hook(service, ours) == 200
            assert await hook(service, theirs, path="/ingest/authgear/shop") == 401
            assert await hook(service, theirs, "whsec-of-the-shop", path="/ingest/authgear/shop") == 200
            assert await hook(service, theirs, path="/ingest/authgear/other") == 404
            await until(lambda: len(it.mails()) == 2)
    assert it.mails() == ["ann@example.org", "bob@example.org"]


async def test_a_project_cannot_speak_for_another(tmp_path: Path) -> None:
    """The secret of one project can't speak for users of the other: such an event ends as a dead letter that says why."""
    async with scene(tmp_path) as it:
        env = environment(
            authgear__webhook_secret=SECRET,
            authgear__app_id="harbour",
            authgear__shop__webhook_secret="whsec-of-the-shop",
            authgear__shop__app_id="shop",
        )
        ours = it.event("user.created", "ann")
        async with running(tmp_path, env) as service:
            assert await hook(service, ours, "whsec-of-the-shop", path="/ingest/authgear/shop") == 202
            assert "harbour" in (await service.line("dead-lettered"))["error"]
            assert await hook(service, ours) == 200
            await until(lambda: len(it.mails()) == 1)
    assert it.mails() == ["ann@example.org"]


async def test_an_event_without_an_address_is_looked_up(tmp_path: Path) -> None:
    """The audit log may name the user alone; who is gone is not written to, and nothing is retried for it."""
    async with scene(tmp_path) as it, running(tmp_path, it.env()) as service:
        it.fake.users["ann"] = {"email": "ann@example.org", "locale": "de"}
        await polling(service, it)
        for user in ("ann", "gone"):
            it.fake.happens(it.event("password.reset", user, email=None, name=None, language=None))
        await until(lambda: len(it.mails()) == 1)
        await service.line("nothing sent")
        assert it.mails() == ["ann@example.org"]
        assert "reset_instructions" in (await service.line("message sent"))["handler"]


async def test_a_change_that_usher_forces_has_no_message_but_the_welcome(tmp_path: Path) -> None:
    """The expiry comes back from the audit log as an administrator's, and is known as our own."""
    handlers = "welcome_email,reset_instructions,force_password_change"
    async with scene(tmp_path) as it, running(tmp_path, it.env(handlers=handlers)) as service:
        it.fake.users["ann"] = {"email": "ann@example.org"}
        await polling(service, it)
        assert await hook(service, it.event("user.created", "ann")) == 200
        await until(lambda: it.fake.expired == {"ann": True})
        line = await service.line("nothing sent", handler="reset_instructions")
        assert "Usher itself" in line["reason"]
        assert it.mails() == ["ann@example.org"]


async def test_who_hears_of_it_from_authgear_is_not_written_to(tmp_path: Path) -> None:
    """Where the back office has Authgear mail the password, the settings say so, and so does `explain`."""
    async with scene(tmp_path) as it:
        env = it.env(authgear__sends_password="created")
        event = it.event("user.created", "ann")
        async with running(tmp_path, env) as service:
            assert await hook(service, event) == 200
            line = await service.line("nothing sent", handler="welcome_email")
            assert "USHER_AUTHGEAR__SENDS_PASSWORD" in line["reason"]
        (tmp_path / "event.json").write_bytes(event)
        _, out, _ = await usher("explain", "event.json", "--json", cwd=tmp_path, env=env)
        (tmp_path / "event.json").write_bytes(it.event("user.created", "sue", triggered_by="user"))
        _, self_made, _ = await usher("explain", "event.json", cwd=tmp_path, env=env)

    assert "Authgear mails the password itself" in out
    assert it.mails() == []
    assert "context.triggered_by is 'user', not 'admin_api'" in self_made
    assert "triggered by user (native)" in self_made


async def test_check_tries_the_credentials(tmp_path: Path) -> None:
    """Good ones are said to be good; refused ones are a problem that names the settings."""
    async with scene(tmp_path) as it:
        code, good, _ = await usher("check", "--json", cwd=tmp_path, env=it.env())
        assert code == 0
        assert "takes our key" in good
        it.fake.key_id = "another-key"
        code, bad, _ = await usher(
            "check", "--json", cwd=tmp_path, env={**it.env(), "USHER_AUTHGEAR__KEY_ID": "fake-key"}
        )
        assert code == 1
        assert "refuses our credentials (403); see USHER_AUTHGEAR__APP_ID" in bad
        code, none, _ = await usher(
            "check", "--json", cwd=tmp_path, env={**it.env(), "USHER_AUTHGEAR__PRIVATE_KEY_FILE": str(tmp_path / "x")}
        )
        assert code == 2
        assert "USHER_AUTHGEAR__PRIVATE_KEY_FILE" in none


async def test_no_credential_is_found_in_what_is_kept(tmp_path: Path) -> None:
    """Neither in the log's file and what lies beside it, nor in the lines, metrics, dead letters or messages."""
    async with scene(tmp_path) as it:
        env = it.env()
        bodies = [
            it.event("user.created", "ann", payload={"password": PASSWORD, "user": {"id": "ann", "otp": CODE}}),
            it.event("password.reset", "bob", payload={"newPassword": PASSWORD, "reset_link": f"https://a/{CODE}"}),
            json.dumps(
                {"to": "+41440000017", "body": f"{CODE} is your code", "template_variables": {"code": CODE}}
            ).encode(),
            json.dumps({"password": PASSWORD, "list": [{"code": CODE}]}).encode(),
        ]
        async with running(tmp_path, env) as service:
            await polling(service, it)
            for body in bodies:
                assert await hook(service, body) in {200, 202}
            it.fake.happens(it.event("password.expired", "cat", payload={"token": CODE, "password": PASSWORD}))
            await until(lambda: len(it.mails()) == 3)
            await service.wait(lambda: [line["event"] for line in service.lines].count("dead-lettered") == 2)
            metrics = (await service.get("/metrics"))[1]
            token = it.fake.tokens[-1]
        _, dead_letters, _ = await usher("dlq", "list", "--json", cwd=tmp_path, env=env)
        _, checked, _ = await usher("check", "--json", cwd=tmp_path, env=env)

    kept = _kept(tmp_path)
    assert any(name.startswith("usher.db") for name in kept)
    said = "\n".join([json.dumps(line) for line in service.lines] + [metrics, dead_letters, checked]).encode()
    key = "".join(it.fake.private_key.splitlines()[1:-1])
    for secret in (PASSWORD, CODE, SECRET, key[:40], token.split(".")[2]):
        assert [name for name, content in kept.items() if secret.encode() in content] == []
        assert secret.encode() not in said


def _kept(folder: Path) -> dict[str, bytes]:
    """What the service has written, by file."""
    return {path.name: path.read_bytes() for path in folder.rglob("*") if path.is_file() and path.suffix != ".pem"}
