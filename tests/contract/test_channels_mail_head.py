"""The head of a mail, as an SMTP server gets it: whatever stands in names and subjects, it is the headers that were meant."""

from __future__ import annotations

import asyncio
import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from email.header import decode_header
from email.parser import BytesParser
from email.policy import compat32
from email.utils import parseaddr
from typing import Any

import pytest
from aiosmtpd.smtp import SMTP
from hypothesis import example, given
from hypothesis import strategies as st

from usher.addresses import MailSender, SmtpServer
from usher.channels import Mail
from usher.channels.mime import build, one_line
from usher.channels.sendgrid import payload
from usher.channels.smtp import Smtp
from usher.context import SendState
from usher.outcome import Reject

MAIL = Mail(
    to="noor.haddad@example.com",
    sender=MailSender("accounts@example.org", "Example Accounts"),
    subject="Your account",
    text="The real text.\n",
    html=None,
    idempotency_key="welcome_email-0123456789abcdef",
)
HIJACK = (
    "=?utf-8?q?Kim=0D=0AReply-To=3A_evil=40example.net=0D=0AContent-Type=3A_text/plain=0D=0A=0D=0A"
    "Your_account_is_locked=0D=0A?="
)
ENCODED_WORDS = [
    HIJACK,
    "=?utf-8?b?S2ltDQpCY2M6IGV2aWxAZXhhbXBsZS5uZXQ=?=",
    "=?us-ascii?Q?a=0AX-Evil:_1?= =?us-ascii?Q?b=0AX-Evil:_2?=",
    "=?=?utf-8?q?a=0Ab?=",
    '"=?iso-8859-1?q?=0D=0ABcc:_evil=40example.net?="',
]


@dataclass
class Progress:
    state: SendState = "new"
    provider_id: str = ""


@dataclass
class Inbox:
    """A real SMTP server in a thread, and the last message that it took."""

    loop: asyncio.AbstractEventLoop
    port: int = 0
    taken: list[bytes] = field(default_factory=list)

    async def handle_DATA(self, _server: Any, _session: Any, envelope: Any) -> str:  # noqa: N802
        self.taken.append(envelope.content)
        return "250 OK"

    def receive(self, mail: Mail) -> bytes:
        """Send *mail* to this server, and return what it got."""
        sending = Smtp(SmtpServer("127.0.0.1", self.port)).send(mail, Progress())
        asyncio.run_coroutine_threadsafe(sending, self.loop).result(30)
        return self.taken.pop()


@pytest.fixture(scope="module")
def inbox() -> Iterator[Inbox]:
    box = Inbox(asyncio.new_event_loop())
    thread = threading.Thread(target=box.loop.run_forever)
    thread.start()
    starting = box.loop.create_server(lambda: SMTP(box, loop=box.loop), "127.0.0.1", 0)

    async def start() -> asyncio.Server:
        return await starting

    server = asyncio.run_coroutine_threadsafe(start(), box.loop).result(30)
    box.port = server.sockets[0].getsockname()[1]
    yield box
    server.close()
    box.loop.call_soon_threadsafe(box.loop.stop)
    thread.join()
    box.loop.close()


def parsed(content: bytes) -> Any:
    """The message as a mail program takes it apart."""
    return BytesParser(policy=compat32).parsebytes(content)


def decoded(value: str) -> str:
    """A header as a person reads it."""
    parts = decode_header(re.sub(r"\r?\n", "", value))
    return "".join(part.decode(charset or "ascii") if isinstance(part, bytes) else part for part, charset in parts)


NAMES = [
    "from", "to", "subject", "date", "message-id", "auto-submitted", "list-id", "content-type",
    "content-transfer-encoding", "mime-version",
]  # fmt: skip
BITS = ["=?", "?=", "utf-8", "?q?", "?b?", "=0D=0A", "\r\n", "Bcc: e@x.org", " ", "ü", "\x1b"]
LINES = st.one_of(
    st.text(max_size=60), st.sampled_from(ENCODED_WORDS), st.lists(st.sampled_from(BITS), max_size=9).map("".join)
).map(one_line)


@given(subject=LINES, name=LINES, list_id=LINES)
@example(subject=f"Welcome, {HIJACK}", name="", list_id="")
@example(subject="x", name=HIJACK, list_id=HIJACK)
@example(subject="x" * 3000, name="y" * 3000, list_id=f"<https://example.org/{'z' * 300}>")
@example(subject="word " * 60 + "ü", name="Bücher, Inc. " * 12, list_id="<a@example.org>")
def test_nothing_in_a_header_makes_another_one(inbox: Inbox, subject: str, name: str, list_id: str) -> None:
    """On the wire stand the headers that were meant, each once, and each reads as it was written; the text is ours."""
    mail = replace(
        MAIL, subject=subject, sender=MailSender("accounts@example.org", name), headers=(("List-Id", list_id),)
    )

    message = parsed(inbox.receive(mail))

    assert [header.lower() for header in message] == NAMES
    assert decoded(message["Subject"]) == subject
    assert decoded(message["List-Id"]) == list_id
    shown, address = parseaddr(message["From"])
    assert (decoded(shown), address) == (name, "accounts@example.org")
    assert message.get_payload(decode=True) == b"The real text.\r\n"


@pytest.mark.parametrize("word", ENCODED_WORDS)
@pytest.mark.parametrize(
    "subject", ["{}", "Welcome, {}", "Grüße, {}, und willkommen bei unserem Dienst, der sehr lang heißt"]
)
def test_an_encoded_word_is_shown_as_it_was_written(inbox: Inbox, word: str, subject: str) -> None:
    """One subject, which shows the name; no line of the head begins with what was hidden in it."""
    content = inbox.receive(replace(MAIL, subject=subject.format(word)))

    head = content.replace(b"\r\n", b"\n").partition(b"\n\n")[0]
    assert decoded(parsed(content)["Subject"]) == subject.format(word)
    assert not re.search(rb"(?mi)^(reply-to|bcc|x-evil)", head)


@pytest.mark.parametrize(
    "change",
    [
        {"to": "=?utf-8?q?a=0D=0ABcc=3Aevil?=@example.com"},
        {"sender": MailSender("=?utf-8?q?a=0A?=@example.org")},
        {"subject": "a\r\nBcc: evil@example.net"},
        {"subject": "a\x9bb"},
        {"sender": MailSender("accounts@example.org", "a\nBcc: evil@example.net")},
        {"headers": (("List-Id", "a\nBcc: evil@example.net"),)},
    ],
)
def test_what_can_not_be_one_header_is_refused(change: dict[str, Any]) -> None:
    """An address can't be encoded, and a control character has no place in a header."""
    with pytest.raises(ValueError, match=r"header|address|head"):
        build(replace(MAIL, **change), datetime.now(UTC))


@pytest.mark.parametrize("word", ENCODED_WORDS)
def test_sendgrid_gets_no_encoded_word_to_decode(word: str) -> None:
    """SendGrid writes the head itself: an unseen joiner breaks the word, and a header of ours goes encoded."""
    document = payload(
        replace(MAIL, subject=f"Hi {word}", sender=MailSender("a@example.org", word), headers=(("List-Id", word),))
    )

    assert "=?" not in document["subject"] + document["from"]["name"]
    assert document["subject"].replace("\u2060", "") == f"Hi {word}"
    ((value, charset),) = decode_header(document["headers"]["List-Id"])
    assert isinstance(value, bytes)
    assert value.decode(charset or "ascii") == word


async def test_a_mail_that_can_not_be_written_is_rejected() -> None:
    """Before any connection: no retry can help."""
    with pytest.raises(Reject, match="can't be sent"):
        await Smtp(SmtpServer("127.0.0.1", 1)).send(replace(MAIL, subject="a\nb"), Progress())


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("Kim\x1b[31m Berg", "Kim[31m Berg"),
        ("a\r\n b\tc\u2028d", "a b c d"),
        ("\u202etxt", "txt"),
        ("a \x00 b\x9b", "a b"),
    ],
)
def test_control_characters_do_not_reach_a_header(text: str, line: str) -> None:
    """Line breaks become blanks, the rest is dropped; what a person can see stays."""
    assert one_line(text) == line
