"""The outbox, and the one message builder behind everything that writes a mail."""

from __future__ import annotations

import asyncio
import email
import email.policy
import os
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from usher.addresses import MailSender
from usher.channels import Mail, SmsMessage
from usher.channels.mime import build
from usher.channels.outbox import MailOutbox, SmsOutbox, prepare
from usher.channels.transport import Transport
from usher.context import SendState
from usher.outcome import Reject, Retry
from usher.parts import open_channels
from usher.settings import Settings

MAIL = Mail(
    to="noor.haddad@example.com",
    sender=MailSender("accounts@example.org", "Example Accounts"),
    subject="Willkommen, Zoë",
    text="Hello",
    html=None,
    idempotency_key="welcome_email-0123456789abcdef",
)
TEXT = SmsMessage(to="+447700900123", body="Hello, £0", idempotency_key="sms_notice-0123456789abcdef")
DATE = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)


@dataclass
class Progress:
    state: SendState = "new"
    provider_id: str = ""


def files(folder: Path) -> list[Path]:
    return sorted(folder.iterdir())


async def test_a_mail_is_a_file_that_a_mail_program_opens(tmp_path: Path) -> None:
    """Named by the idempotency key, complete, and nothing beside it."""
    progress = Progress()

    await MailOutbox(tmp_path / "outbox").send(MAIL, progress)

    (path,) = files(tmp_path / "outbox")
    message = email.message_from_bytes(path.read_bytes(), policy=email.policy.default)
    assert (progress.state, progress.provider_id) == ("sent", path.name)
    assert path.name == "welcome_email-0123456789abcdef.eml"
    assert message["Subject"] == "Willkommen, Zoë"
    assert message["To"] == "noor.haddad@example.com"


async def test_an_sms_is_a_text_file(tmp_path: Path) -> None:
    """Whom to, an empty line, what."""
    await SmsOutbox(tmp_path).send(TEXT, Progress())

    assert (tmp_path / "sms_notice-0123456789abcdef.txt").read_text() == "To: +447700900123\n\nHello, £0\n"


async def test_a_repeat_overwrites(tmp_path: Path) -> None:
    """The same delivery sent twice is one message in the outbox, the later one."""
    outbox = SmsOutbox(tmp_path)

    await asyncio.gather(*(outbox.send(TEXT, Progress()) for _ in range(5)))
    await outbox.send(replace(TEXT, body="Later"), Progress())

    (path,) = files(tmp_path)
    assert path.read_text().endswith("\nLater\n")


async def test_a_key_that_is_no_file_name_leads_nowhere_else(tmp_path: Path) -> None:
    """A path in the key does not leave the folder."""
    await SmsOutbox(tmp_path / "outbox").send(replace(TEXT, idempotency_key="../../x"), Progress())

    assert [path.name for path in files(tmp_path)] == ["outbox"]
    assert len(files(tmp_path / "outbox")) == 1


async def test_a_folder_that_can_not_be_written_is_a_retry(tmp_path: Path) -> None:
    """As for a full disk: the message is not there, and nothing of it is left."""
    (tmp_path / "outbox").write_text("a file is in the way")
    progress = Progress()

    with pytest.raises(Retry, match="outbox can't be written"):
        await MailOutbox(tmp_path / "outbox").send(MAIL, progress)

    assert progress.state == "back"
    assert prepare(tmp_path / "outbox").startswith("USHER_OUTBOX_DIR: the folder")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_check_says_that_a_folder_is_read_only(tmp_path: Path) -> None:
    """Before the first message finds out."""
    tmp_path.chmod(0o500)

    assert prepare(tmp_path) == f"USHER_OUTBOX_DIR: the folder {tmp_path} is not writable"


def test_check_makes_the_folder(tmp_path: Path) -> None:
    """A start without a message leaves an outbox to look into."""
    assert prepare(tmp_path / "a" / "outbox") == ""
    assert (tmp_path / "a" / "outbox").is_dir()


async def test_a_mail_that_is_not_one_mail_is_rejected(tmp_path: Path) -> None:
    """The outbox is as strict as the providers that it stands for."""
    with pytest.raises(Reject, match="can't be sent"):
        await MailOutbox(tmp_path).send(replace(MAIL, to="a@example.com, b@example.com"), Progress())

    assert files(tmp_path) == []


@given(
    to=st.text(max_size=20).map(lambda text: f"{text}@example.com"),
    name=st.text(max_size=20),
    subject=st.text(max_size=40),
    header=st.tuples(st.text(max_size=10).map(lambda text: f"X{text}"), st.text(max_size=20)),
)
def test_nothing_adds_a_recipient_or_a_header(to: str, name: str, subject: str, header: tuple[str, str]) -> None:
    """Whatever stands in the parts: either it is refused, or the message has the headers that were meant, and one recipient."""
    try:
        sender = MailSender.parse(f"{name} <accounts@example.org>")
        mail = replace(MAIL, to=to, sender=sender, subject=subject, headers=(header,))
        raw = build(mail, DATE)
    except ValueError:
        return

    message = email.message_from_bytes(raw, policy=email.policy.default)
    expected = {
        "From", "To", "Subject", "Date", "Message-ID", "Auto-Submitted", header[0],
        "Content-Type", "Content-Transfer-Encoding", "MIME-Version",
    }  # fmt: skip
    assert {key.lower() for key in message} == {key.lower() for key in expected}
    assert len(message["To"].addresses) == 1
    assert len(message["From"].addresses) == 1
    assert message["From"].addresses[0].addr_spec == "accounts@example.org"


def test_each_word_of_the_setting_names_a_provider() -> None:
    """`USHER_EMAIL` and `USHER_SMS` choose; the provider is called by that word."""
    account = {
        "USHER_MAIL_FROM": "no-reply@example.org",
        "USHER_SENDGRID__API_KEY": "SG.key",
        "USHER_SMTP__URL": "smtp://mail.example.org",
        "USHER_TWILIO__ACCOUNT_SID": "AC" + "0" * 32,
        "USHER_TWILIO__AUTH_TOKEN": "token",
        "USHER_TWILIO__FROM": "+15005550006",
    }
    for words in (("outbox", "outbox"), ("sendgrid", "twilio"), ("smtp", "twilio")):
        chosen = {**account, "USHER_EMAIL": words[0], "USHER_SMS": words[1]}
        email, sms = open_channels(Settings.load(chosen, env_file=None), Transport())
        assert (email.name, sms.name) == words
