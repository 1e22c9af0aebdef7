"""The service in front of real providers of messages: what a stranger's name, an internal address and a refusal of us come to."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from email.header import decode_header
from email.parser import BytesParser
from email.policy import compat32
from pathlib import Path
from typing import Any

import pytest
from aiosmtpd.smtp import SMTP
from tests.service import Service, environment, running, usher

from usher.testing import raw_event
from usher.testing.providers import FakeProviders, answer

SENDER_REFUSED = "550 5.7.60 you may not send as this sender"
HIJACK = "=?utf-8?q?Kim=0D=0AReply-To=3A_evil=40example.net=0D=0A=0D=0AYour_account_is_locked?="


@dataclass
class MailServer:
    """What an SMTP server took, and how it answers MAIL."""

    refusal: str = ""
    port: int = 0
    taken: list[Any] = field(default_factory=list)
    arrived: asyncio.Condition = field(default_factory=asyncio.Condition)

    async def handle_MAIL(  # noqa: N802
        self, _server: Any, _session: Any, envelope: Any, address: str, _options: list[str]
    ) -> str:
        if not self.refusal:
            envelope.mail_from = address
        return self.refusal or "250 OK"

    async def handle_DATA(self, _server: Any, _session: Any, envelope: Any) -> str:  # noqa: N802
        async with self.arrived:
            self.taken.append(envelope)
            self.arrived.notify_all()
        return "250 OK"

    async def wait(self, count: int) -> None:
        async with asyncio.timeout(40), self.arrived:
            await self.arrived.wait_for(lambda: len(self.taken) >= count)


@asynccontextmanager
async def mail_server(refusal: str = "") -> AsyncIterator[MailServer]:
    box = MailServer(refusal)
    server = await asyncio.get_running_loop().create_server(lambda: SMTP(box), "127.0.0.1", 0)
    box.port = server.sockets[0].getsockname()[1]
    async with server:
        yield box


def by_smtp(box: MailServer, **more: object) -> dict[str, str]:
    settings = {"mail_from": "Acme <no-reply@acme.example>", **more}
    return environment(email="smtp", smtp__url=f"smtp://127.0.0.1:{box.port}", handlers="welcome_email", **settings)


def by_twilio(provider: FakeProviders) -> dict[str, str]:
    return environment(
        sms="twilio", twilio__account_sid=provider.twilio_account_sid, twilio__api_key=provider.twilio_api_key,
        twilio__api_key_secret=provider.twilio_api_key_secret, twilio__from=provider.twilio_from,
        twilio__base_url=provider.url, handlers="sms_notice",
    )  # fmt: skip


async def emit(folder: Path, env: dict[str, str], *events: bytes) -> None:
    for event in events:
        code, _, err = await usher("emit", "-", cwd=folder, env=env, stdin=event)
        assert code == 0, err


async def all_held(service: Service, count: int) -> None:
    """Wait until as many deliveries wait for the channel; nothing was given up, and nobody's attempts are counted."""
    await service.line("channel paused", reason="provider-refused")

    def held() -> set[Any]:
        return {line["event_id"] for line in service.lines if line["event"] == "parked" and line["outcome"] == "held"}

    await service.wait(lambda: len(held()) == count)
    assert not [line for line in service.lines if line["event"] == "dead-lettered"]
    assert {line["attempt"] for line in service.lines if line["event"] == "parked"} == {0}


async def test_a_name_makes_no_headers(tmp_path: Path) -> None:
    """An encoded word with line breaks in it, in the subject by a template of one's own: shown as it was written."""
    template = tmp_path / "templates" / "welcome_email" / "en.txt"
    template.parent.mkdir(parents=True)
    template.write_text("Subject: Welcome, {{ user.name }}\n\nThe real text.\n")
    async with mail_server() as box:
        env = by_smtp(box, templates_dir=tmp_path / "templates")
        await emit(tmp_path, env, raw_event(id="01", name=HIJACK))
        async with running(tmp_path, env):
            await box.wait(1)

    message = BytesParser(policy=compat32).parsebytes(box.taken[0].content)
    ((subject, charset),) = decode_header(message["Subject"])
    assert subject.decode(charset) == f"Welcome, {HIJACK}"
    assert message["Reply-To"] is None
    assert [part.get_payload(decode=True) for part in message.walk() if part.get_content_type() == "text/plain"] == [
        b"The real text.\r\n"
    ]


async def test_a_company_mails_within_its_own_network(tmp_path: Path) -> None:
    """Domains that the Internet does not have, from a sender of one of them: the company's server decides."""
    people = ["kim@firma.local", "lee@mail.test", "sam@intranet", "ann@corp.internal"]
    async with mail_server() as box:
        env = by_smtp(box, mail_from="no-reply@firma.local", mail_internal_domains="firma.local,test,intranet")
        await emit(tmp_path, env, *(raw_event(id=person, email=person, user_id=person) for person in people))
        async with running(tmp_path, env) as service:
            await box.wait(len(people))

    assert sorted(person for envelope in box.taken for person in envelope.rcpt_tos) == sorted(people)
    assert {envelope.mail_from for envelope in box.taken} == {"no-reply@firma.local"}
    assert not [person for person in people if person in json.dumps([line.get("error") for line in service.lines])]


async def test_a_sender_that_the_mail_server_refuses_costs_nobody_a_mail(tmp_path: Path) -> None:
    """All wait, none is given up; once the server takes the sender, the probe goes out."""
    people = [f"p{number}@example.org" for number in range(3)]
    async with mail_server(SENDER_REFUSED) as box:
        env = by_smtp(box)
        await emit(tmp_path, env, *(raw_event(id=person, email=person, user_id=person) for person in people))
        async with running(tmp_path, env) as service:
            await all_held(service, len(people))
            line = await service.line("channel paused")
        _, out, _ = await usher("dlq", "list", "--json", cwd=tmp_path, env=env)

    assert "5.7.60" in line["said"]
    assert "USHER_MAIL_FROM" in line["said"]
    assert json.loads(out) == []


@pytest.mark.parametrize(
    ("status", "code", "setting"), [(400, 21606, "USHER_TWILIO__FROM"), (404, 20404, "USHER_TWILIO__ACCOUNT_SID")]
)
async def test_a_set_up_that_twilio_refuses_costs_nobody_an_sms(
    tmp_path: Path, status: int, code: int, setting: str
) -> None:
    """A From that can't send, an account that is not there: for each user alike."""
    body = json.dumps({"code": code, "message": "no", "status": status}).encode()
    numbers = [f"+4474001234{number}0" for number in range(3)]
    async with FakeProviders(rule=lambda _request: answer(status, body=body)) as provider:
        env = by_twilio(provider)
        await emit(
            tmp_path, env, *(raw_event(id=number, email=None, phone=number, user_id=number) for number in numbers)
        )
        async with running(tmp_path, env) as service:
            await all_held(service, len(numbers))
            line = await service.line("channel paused")
        _, out, _ = await usher("dlq", "list", "--json", cwd=tmp_path, env=env)

    assert setting in line["said"]
    assert json.loads(out) == []
    assert len(provider.seen) < len(numbers) * 2


async def test_an_sms_goes_out_by_an_api_key_and_is_of_no_use_after_it_expires(tmp_path: Path) -> None:
    """The key logs in for the account, and Twilio is to drop the message when the handler's time is over."""
    async with FakeProviders() as provider:
        env = by_twilio(provider)
        await emit(tmp_path, env, raw_event(email=None, phone="+447400123450"))
        async with running(tmp_path, env):
            await provider.wait_seen(1)

    (request,) = provider.accepted
    assert 1 <= int(request.payload["ValidityPeriod"]) <= 36_000
