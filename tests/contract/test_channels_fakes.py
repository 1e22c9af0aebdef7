"""The fake providers as a process, as the demo runs them: what they say, keep and refuse."""

from __future__ import annotations

import asyncio
import contextlib
import email
import email.policy
import json
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from usher.addresses import MailSender, TwilioSender
from usher.channels import Mail, SmsMessage
from usher.channels.sendgrid import SendGrid
from usher.channels.transport import Transport
from usher.channels.twilio import Twilio
from usher.context import SendState
from usher.outcome import Reject, Retry

MAIL = Mail(
    to="noor.haddad@example.com",
    sender=MailSender("accounts@example.org", "Example, Inc. Accounts"),
    subject="Willkommen, Zoë",
    text="Grüße\n",
    html="<p>Grüße</p>\n",
    idempotency_key="welcome_email-0123456789abcdef",
)
TEXT = SmsMessage(to="+447700900123", body="Hello, £0", idempotency_key="sms_notice-0123456789abcdef")


@dataclass
class Progress:
    state: SendState = "new"
    provider_id: str = ""


@dataclass
class Child:
    """The process, and providers that point at it."""

    url: str
    transport: Transport
    sendgrid: SendGrid
    twilio: Twilio


@asynccontextmanager
async def child(*options: str) -> AsyncIterator[Child]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "usher.testing.providers", *options, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    try:
        access = json.loads(await process.stdout.readline())
        async with Transport() as transport:
            mail = SendGrid(transport, api_key=access["sendgrid_api_key"], base_url=access["url"])
            sms = Twilio(
                transport,
                account_sid=access["twilio_account_sid"],
                user=access["twilio_account_sid"],
                password=access["twilio_auth_token"],
                sender=TwilioSender(access["twilio_from"]),
                base_url=access["url"],
            )
            yield Child(access["url"], transport, mail, sms)
        process.send_signal(signal.SIGTERM)
        assert await process.wait() == 0
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def test_what_is_accepted_lies_in_the_outbox(tmp_path: Path) -> None:
    """Mail to be opened in a mail program, SMS as text; what went out twice is there twice."""
    async with child("--outbox", str(tmp_path)) as fake:
        await fake.sendgrid.send(MAIL, Progress())
        await fake.sendgrid.send(MAIL, Progress())
        await fake.twilio.send(TEXT, Progress())

    mails, texts = files(tmp_path, ".eml"), files(tmp_path, ".txt")
    assert [path.name for path in mails] == [
        "welcome_email-0123456789abcdef-2.eml",
        "welcome_email-0123456789abcdef.eml",
    ]
    message = email.message_from_bytes(mails[1].read_bytes(), policy=email.policy.default)
    assert message["From"] == str(MAIL.sender)
    assert (message["To"], message["Subject"]) == (MAIL.to, MAIL.subject)
    plain, html = (part.get_content().replace("\r\n", "\n") for part in message.iter_parts())
    assert (plain, html) == (MAIL.text, MAIL.html)
    assert [path.read_text() for path in texts] == ["To: +447700900123\n\nHello, £0\n"]


async def test_requests_can_fail() -> None:
    """The first, as many as are asked for, and every nth, whichever provider they are for."""
    states = [Progress() for _ in range(9)]
    async with child("--fail-first", "2", "--fail-every", "4") as fake:
        with pytest.raises(Retry, match="503"):
            await fake.twilio.send(TEXT, states[0])
        with pytest.raises(Retry, match="503"):
            await fake.sendgrid.send(MAIL, states[1])
        for state in states[2:]:
            with contextlib.suppress(Retry):
                await fake.sendgrid.send(MAIL, state)

    assert [state.state for state in states] == ["back", "back", "sent", "back", "sent", "sent", "sent", "back", "sent"]


async def test_a_recipient_is_refused_until_the_refusal_is_lifted() -> None:
    """By number and by address; the list of what was seen has every request."""
    async with child("--refuse", MAIL.to, "--refuse", TEXT.to) as fake:
        with pytest.raises(Reject, match="400"):
            await fake.sendgrid.send(MAIL, Progress())
        with pytest.raises(Reject, match="21211"):
            await fake.twilio.send(TEXT, Progress())
        for address in (MAIL.to, TEXT.to):
            async with fake.transport.session.delete(f"{fake.url}/_/refused/{address}") as lifted:
                assert lifted.status == 204

        await fake.sendgrid.send(MAIL, Progress())
        await fake.twilio.send(TEXT, Progress())

        async with fake.transport.session.get(f"{fake.url}/_/seen") as answer:
            seen = await answer.json()
    assert [(one["provider"], one["answered"], one["accepted"]) for one in seen] == [
        ("sendgrid", 400, False),
        ("twilio", 400, False),
        ("sendgrid", 202, True),
        ("twilio", 201, True),
    ]


def files(folder: Path, suffix: str) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.suffix == suffix)
