"""Mail by SMTP, against a server that speaks it and says no at every step."""

from __future__ import annotations

import asyncio
import datetime as dt
import email
import email.policy
import ipaddress
import logging
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from aiosmtpd.smtp import SMTP, AuthResult
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from usher.addresses import MailSender, SmtpServer
from usher.channels import PROVIDER_ID, Mail, ProviderRefused
from usher.channels.smtp import Smtp
from usher.context import SendState
from usher.outcome import Reject, Retry, Unknown

MAIL = Mail(
    to="noor.haddad@example.com",
    sender=MailSender("accounts@example.org", "Example Accounts"),
    subject="Your account",
    text="Grüße, Noor",
    html="<p>Grüße, Noor</p>",
    idempotency_key="welcome_email-0123456789abcdef",
)
USER, PASSWORD = "usher", "p@ss/wörd"


@dataclass
class Progress:
    state: SendState = "new"
    provider_id: str = ""


@dataclass
class Mailbox:
    """What the server does: answers by step, and the envelopes it took."""

    answers: dict[str, str] = field(default_factory=dict)
    hang: bool = False
    abort: bool = False
    taken: list[Any] = field(default_factory=list)
    reached: asyncio.Event = field(default_factory=asyncio.Event)
    closing: asyncio.Event = field(default_factory=asyncio.Event)

    async def handle_MAIL(  # noqa: N802
        self, server: Any, session: Any, envelope: Any, address: str, options: list[str]
    ) -> str:
        if "MAIL" not in self.answers:
            envelope.mail_from = address
            envelope.mail_options.extend(options)
        return self.answers.get("MAIL", "250 OK")

    async def handle_RCPT(  # noqa: N802
        self, server: Any, session: Any, envelope: Any, address: str, options: list[str]
    ) -> str:
        if "RCPT" not in self.answers:
            envelope.rcpt_tos.append(address)
        return self.answers.get("RCPT", "250 OK")

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:  # noqa: N802
        self.reached.set()
        if self.hang:
            await self.closing.wait()
        if self.abort:
            server.transport.abort()
        if "DATA" not in self.answers:
            self.taken.append((session.ssl is not None, envelope))
        return self.answers.get("DATA", "250 OK")


@asynccontextmanager
async def serving(box: Mailbox, **options: Any) -> AsyncIterator[int]:
    """The port of a server in front of *box*."""
    loop = asyncio.get_running_loop()
    implicit = options.pop("ssl", None)
    smtputf8 = options.pop("smtputf8", True)
    sessions: list[Any] = []

    def session() -> Any:
        sessions.append(SMTP(box, enable_SMTPUTF8=smtputf8, hostname="mail.test", loop=loop, **options))
        return sessions[-1]

    server = await loop.create_server(session, "127.0.0.1", 0, ssl=implicit)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        box.closing.set()
        server.close()
        await server.wait_closed()
        handlers = [one._handler_coroutine for one in sessions if one._handler_coroutine is not None]
        for handler in handlers:
            handler.cancel()
        for one in sessions:
            if one.transport is not None:
                one.transport.abort()
        await asyncio.gather(*handlers, asyncio.sleep(0), return_exceptions=True)


@pytest.fixture
def box() -> Mailbox:
    return Mailbox()


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """(the server's context, a client's that trusts it)."""
    folder: Path = tmp_path_factory.mktemp("tls")
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = dt.datetime.now(dt.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(hours=1))
        .not_valid_after(now + dt.timedelta(hours=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]),
            critical=False,
        )
        .sign(key, hashes.SHA256())
    )
    path = folder / "server.pem"
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path.write_bytes(private + certificate.public_bytes(serialization.Encoding.PEM))
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(path)
    return server, ssl.create_default_context(cafile=str(path))


def authenticate(server: Any, session: Any, envelope: Any, mechanism: str, data: Any) -> AuthResult:
    right = data.login == USER.encode() and data.password == PASSWORD.encode()
    return AuthResult(success=right, handled=False)


async def test_a_mail_arrives_as_one_message_to_one_recipient(box: Mailbox) -> None:
    """The envelope holds one recipient; the message says who, when, and that no human wrote it; the text is first."""
    progress = Progress()
    async with serving(box) as port:
        await Smtp(SmtpServer("127.0.0.1", port)).send(MAIL, progress)

    ((_, envelope),) = box.taken
    message: Any = email.message_from_bytes(envelope.content, policy=email.policy.default)
    assert (progress.state, progress.provider_id) == ("sent", "OK")
    assert (envelope.mail_from, envelope.rcpt_tos) == ("accounts@example.org", ["noor.haddad@example.com"])
    assert message["From"] == "Example Accounts <accounts@example.org>"
    assert message["To"] == "noor.haddad@example.com"
    assert message["Message-ID"] == "<welcome_email-0123456789abcdef@example.org>"
    assert message["Auto-Submitted"] == "auto-generated"
    assert message["Date"].datetime is not None
    assert message.get_content_type() == "multipart/alternative"
    assert [part.get_content_type() for part in message.iter_parts()] == ["text/plain", "text/html"]
    assert envelope.content.isascii()
    assert "Grüße, Noor" in message.get_body(("plain",)).get_content()


async def test_what_the_server_calls_the_message_is_kept_without_the_recipient(box: Mailbox) -> None:
    """On one line, and no longer than an id: some servers quote the address in whatever case, or write a paragraph."""
    box.answers["DATA"] = f"250-2.0.0 Ok for NOOR.HADDAD@example.com:\r\n250 queued as 4F5 {'x' * 300}"
    progress = Progress()
    async with serving(box) as port:
        await Smtp(SmtpServer("127.0.0.1", port)).send(MAIL, progress)

    assert progress.provider_id.startswith("2.0.0 Ok for <email>: queued as 4F5 xxx")
    assert len(progress.provider_id) == PROVIDER_ID


async def test_starttls_is_used_where_it_is_offered(box: Mailbox, tls: tuple[ssl.SSLContext, ssl.SSLContext]) -> None:
    """The log-in, with characters that a URL has to encode, comes after TLS."""
    server, client = tls
    async with serving(
        box, tls_context=server, require_starttls=True, auth_required=True, authenticator=authenticate
    ) as port:
        await Smtp(SmtpServer.parse(f"smtp://usher:p%40ss%2Fw%C3%B6rd@127.0.0.1:{port}"), context=client).send(
            MAIL, Progress()
        )

    ((encrypted, _),) = box.taken
    assert encrypted


async def test_smtps_is_tls_from_the_first_byte(box: Mailbox, tls: tuple[ssl.SSLContext, ssl.SSLContext]) -> None:
    """No STARTTLS is looked for."""
    server, client = tls
    async with serving(box, ssl=server) as port:
        await Smtp(SmtpServer("127.0.0.1", port, tls=True), context=client).send(MAIL, Progress())

    assert len(box.taken) == 1


async def test_a_certificate_that_is_not_trusted_gets_no_mail(
    box: Mailbox, tls: tuple[ssl.SSLContext, ssl.SSLContext]
) -> None:
    """It is a connection that failed: tried again, and nothing has left."""
    progress = Progress()
    async with serving(box, tls_context=tls[0]) as port:
        with pytest.raises(Retry):
            await Smtp(SmtpServer("127.0.0.1", port)).send(MAIL, progress)

    assert progress.state == "new"
    assert box.taken == []


async def test_a_wrong_password_is_the_operators(box: Mailbox, tls: tuple[ssl.SSLContext, ssl.SSLContext]) -> None:
    """No mail would get through: the channel stops."""
    server, client = tls
    async with serving(box, tls_context=server, authenticator=authenticate) as port:
        with pytest.raises(ProviderRefused, match=r"535.*USHER_SMTP__URL"):
            await Smtp(SmtpServer("127.0.0.1", port, user="usher", password="wrong"), context=client).send(
                MAIL, Progress()
            )


async def test_a_password_is_not_sent_in_the_clear(box: Mailbox) -> None:
    """Where no TLS is offered, and the server is not on this machine (spelt here so that it does not look so)."""
    async with serving(box, authenticator=authenticate, auth_require_tls=False) as port:
        with pytest.raises(ProviderRefused, match="offers no TLS"):
            await Smtp(SmtpServer("127.1", port, user="usher", password="secret")).send(MAIL, Progress())


async def test_a_server_that_takes_no_log_in_is_the_operators(box: Mailbox) -> None:
    """The URL has a user, the server does not know what that is."""
    async with serving(box) as port:
        with pytest.raises(ProviderRefused, match="USHER_SMTP__URL"):
            await Smtp(SmtpServer("127.0.0.1", port, user="usher", password="secret")).send(MAIL, Progress())


@pytest.mark.parametrize(("greeting", "ending"), [(b"554 go away\r\n", ProviderRefused), (b"421 busy\r\n", Retry)])
async def test_a_server_that_does_not_greet(greeting: bytes, ending: type[Exception]) -> None:
    """Turned away for good at the door: that is about us, not about the message."""

    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(greeting)
        await reader.read()
        writer.close()
        await writer.wait_closed()
        gone.set()

    gone = asyncio.Event()
    server = await asyncio.start_server(greet, "127.0.0.1", 0)
    async with server:
        with pytest.raises(ending):
            await Smtp(SmtpServer("127.0.0.1", server.sockets[0].getsockname()[1])).send(MAIL, Progress())
        await gone.wait()


async def test_a_missing_log_in_is_the_operators(box: Mailbox, tls: tuple[ssl.SSLContext, ssl.SSLContext]) -> None:
    """A server that wants a log-in says so at MAIL, for every mail."""
    server, client = tls
    async with serving(box, tls_context=server, auth_required=True, authenticator=authenticate) as port:
        with pytest.raises(ProviderRefused, match="530"):
            await Smtp(SmtpServer("127.0.0.1", port), context=client).send(MAIL, Progress())


@pytest.mark.parametrize(
    ("step", "code", "ending"),
    [
        *((step, code, Retry) for step in ("MAIL", "RCPT", "DATA") for code in (450, 421)),
        ("MAIL", 550, ProviderRefused), ("RCPT", 550, Reject), ("DATA", 550, Reject),
    ],
)  # fmt: skip
async def test_a_refusal_at_any_step(box: Mailbox, step: str, code: int, ending: type[Exception]) -> None:
    """4xx is for later, 5xx is for good, of the sender at MAIL; the text shows no address, and nothing was taken."""
    box.answers[step] = f"{code} <noor.haddad@example.com>: not here"
    progress = Progress()
    async with serving(box) as port:
        with pytest.raises(ending, match=str(code)) as raised:
            await Smtp(SmtpServer("127.0.0.1", port)).send(MAIL, progress)

    assert "noor" not in str(raised.value)
    assert progress.state == "back"
    assert box.taken == []


@pytest.mark.parametrize(
    ("step", "reply"),
    [
        ("MAIL", "550 5.7.60 you may not send as this sender"),
        ("RCPT", "553 5.7.1 <accounts@example.org>: Sender address rejected: not owned by user usher"),
        ("DATA", "550 5.4.5 Daily user sending limit exceeded"),
        ("DATA", "454 Throttling failure: Daily message quota exceeded."),
    ],
)
async def test_what_is_about_the_sender_is_the_operators_at_any_step(box: Mailbox, step: str, reply: str) -> None:
    """The server says it when it likes, for now or for good: the message is known not to be taken."""
    box.answers[step] = reply
    progress = Progress()
    async with serving(box) as port:
        with pytest.raises(ProviderRefused, match=r"check|quota|account"):
            await Smtp(SmtpServer("127.0.0.1", port)).send(MAIL, progress)

    assert (progress.state, box.taken) == ("back", [])


async def test_a_refused_international_recipient_may_be_the_reason_at_mail(box: Mailbox) -> None:
    """MAIL is refused for what one recipient needs, and no table knows all the words: so it is in doubt."""
    box.answers["MAIL"] = "550 5.5.4 no"
    async with serving(box) as port:
        with pytest.raises(ProviderRefused) as plain:
            await Smtp(SmtpServer("127.0.0.1", port)).send(MAIL, Progress())
        with pytest.raises(ProviderRefused) as international:
            await Smtp(SmtpServer("127.0.0.1", port)).send(replace(MAIL, to="nöör@example.com"), Progress())

    assert (plain.value.doubtful, international.value.doubtful) == (False, True)


async def test_an_address_of_one_label_is_not_quoted(box: Mailbox) -> None:
    """The server repeats it, the reason does not."""
    box.answers["RCPT"] = "550 5.1.1 <Sam@intranet>: Recipient address rejected"
    async with serving(box) as port:
        with pytest.raises(Reject, match="<email>") as raised:
            await Smtp(SmtpServer("127.0.0.1", port)).send(replace(MAIL, to="sam@intranet"), Progress())

    assert "sam" not in str(raised.value).lower()


@pytest.mark.parametrize(("after", "ending"), [(b"RCPT", Retry), (b".", Unknown)], ids=["before DATA", "after DATA"])
async def test_an_answer_that_is_no_smtp_is_none(after: bytes, ending: type[Exception]) -> None:
    """As for a connection that is lost: what had left may be on its way."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 mail.test\r\n")
        async for line in reader:
            verb = line.split()[0] if line.split() else b""
            if verb == after:
                writer.write(b"HTTP/1.1 400 Bad Request\r\n")
            elif verb in {b"EHLO", b"MAIL", b"RCPT", b"QUIT"}:
                writer.write(b"250 ok\r\n")
            elif verb == b"DATA":
                writer.write(b"354 go on\r\n")
        writer.close()
        gone.set()

    gone = asyncio.Event()
    server = await asyncio.start_server(talk, "127.0.0.1", 0)
    async with server:
        with pytest.raises(ending):
            await Smtp(SmtpServer("127.0.0.1", server.sockets[0].getsockname()[1])).send(MAIL, Progress())
        await gone.wait()


async def test_no_answer_to_the_data_is_unknown(box: Mailbox) -> None:
    """The message had left: it may be on its way."""
    box.hang = True
    progress = Progress()
    async with serving(box) as port:
        with pytest.raises(Unknown) as raised:
            await Smtp(SmtpServer("127.0.0.1", port), timeout=1.0).send(MAIL, progress)

    assert raised.value.otherwise == "resend"
    assert progress.state == "left"


async def test_a_connection_lost_after_the_data_is_unknown(box: Mailbox) -> None:
    """As for a timeout."""
    box.abort = True
    progress = Progress()
    async with serving(box) as port:
        with pytest.raises(Unknown):
            await Smtp(SmtpServer("127.0.0.1", port)).send(MAIL, progress)

    assert progress.state == "left"


async def test_a_send_that_takes_too_long_in_all_is_unknown_too(box: Mailbox) -> None:
    """The limit for the whole message is distinguished from a connection that failed."""
    box.hang = True
    async with serving(box) as port:
        with pytest.raises(Unknown):
            await Smtp(SmtpServer("127.0.0.1", port), total=1.0).send(MAIL, Progress())


async def test_a_cancelled_send_has_left(box: Mailbox) -> None:
    """The handler's timeout cancels: the message stays where it was, on its way."""
    box.hang = True
    progress = Progress()
    async with serving(box) as port:
        sending = asyncio.create_task(Smtp(SmtpServer("127.0.0.1", port)).send(MAIL, progress))
        await box.reached.wait()
        sending.cancel()
        with pytest.raises(asyncio.CancelledError):
            await sending

    assert progress.state == "left"


async def test_who_can_not_be_reached_has_nothing() -> None:
    """A refused connection is a retry, and the message never left."""
    progress = Progress()
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        with pytest.raises(Retry, match="could not be reached"):
            await Smtp(SmtpServer("127.0.0.1", unused.getsockname()[1])).send(MAIL, progress)

    assert progress.state == "new"


async def test_an_international_address_goes_by_smtputf8(box: Mailbox) -> None:
    """Where the server speaks it, the address stands in the envelope and the header as it is."""
    async with serving(box) as port:
        await Smtp(SmtpServer("127.0.0.1", port)).send(replace(MAIL, to="nöör@example.com"), Progress())

    ((_, envelope),) = box.taken
    assert envelope.rcpt_tos == ["nöör@example.com"]
    assert "To: nöör@example.com".encode() in envelope.content


async def test_an_international_address_is_rejected_where_it_can_not_go(box: Mailbox) -> None:
    """A server without SMTPUTF8 will never take it: no retry can help."""
    async with serving(box, smtputf8=False) as port:
        with pytest.raises(Reject, match="SMTPUTF8"):
            await Smtp(SmtpServer("127.0.0.1", port)).send(replace(MAIL, to="nöör@example.com"), Progress())

    assert box.taken == []


async def test_what_is_not_one_mail_is_rejected_before_any_connection() -> None:
    """A second recipient in the address does not become a second recipient of the mail."""
    progress = Progress()

    with pytest.raises(Reject, match="can't be sent"):
        await Smtp(SmtpServer("127.0.0.1", 1)).send(replace(MAIL, to="a@example.com, b@example.com"), progress)

    assert progress.state == "new"


async def test_nothing_personal_and_no_secret_is_logged(
    box: Mailbox, tls: tuple[ssl.SSLContext, ssl.SSLContext], caplog: pytest.LogCaptureFixture
) -> None:
    """At DEBUG, of our side: no password, no recipient."""
    caplog.set_level(logging.DEBUG)
    caplog.set_level(logging.CRITICAL, logger="mail.log")  # the test's own server
    server, client = tls
    async with serving(box, tls_context=server, authenticator=authenticate) as port:
        smtp = Smtp(SmtpServer.parse(f"smtp://usher:p%40ss%2Fw%C3%B6rd@127.0.0.1:{port}"), context=client)
        await smtp.send(MAIL, Progress())
        box.answers["RCPT"] = "550 <noor.haddad@example.com> unknown"
        with pytest.raises(Reject) as raised:
            await smtp.send(MAIL, Progress())
        logging.getLogger("a handler").debug("failed", exc_info=raised.value)

    assert box.taken
    for secret in (PASSWORD, "p%40ss", MAIL.to):
        assert secret not in caplog.text
