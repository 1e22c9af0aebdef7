"""Mail by SMTP, one connection a message: what a server's codes mean at each step, and when a message has left.

A message has left once DATA is sent: before that a lost connection costs a retry, after that the outcome is unknown.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import ssl
from collections.abc import Mapping
from dataclasses import replace

import aiosmtplib
from aiosmtplib import (
    SMTPDataError,
    SMTPException,
    SMTPRecipientRefused,
    SMTPResponseException,
    SMTPSenderRefused,
)

from usher.addresses import SmtpServer
from usher.channels import PROVIDER_ID, Mail, Progress, ProviderRefused
from usher.channels.answers import Finding, NoAnswer, settle, sort_failure, sort_smtp
from usher.channels.faults import SmtpStep
from usher.channels.mime import message, needs_utf8, one_line
from usher.outcome import Reject

_SETTING = "USHER_SMTP__URL"
_FIRST_REFUSAL = 400
_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
_STEPS: Mapping[type[SMTPResponseException], SmtpStep] = {
    SMTPSenderRefused: "MAIL",
    SMTPRecipientRefused: "RCPT",
    SMTPDataError: "DATA",
}


class Smtp:
    """A `MailProvider`. *timeout* is for each step, *total* for a message, in seconds; *context* replaces the default trust."""

    name = "smtp"

    def __init__(
        self, server: SmtpServer, *, timeout: float = 15.0, total: float = 40.0, context: ssl.SSLContext | None = None
    ) -> None:
        self._server = server
        self._timeout = timeout
        self._total = total
        self._context = context

    def prepare(self, mail: Mail) -> bytes:
        return message(mail)

    async def send(self, mail: Mail, progress: Progress) -> None:
        settle(await self._attempt(mail, self.prepare(mail), progress), otherwise="resend")

    async def _attempt(self, mail: Mail, message: bytes, progress: Progress) -> Finding:
        client = aiosmtplib.SMTP(
            hostname=self._server.host,
            port=self._server.port,
            timeout=self._timeout,
            use_tls=self._server.tls,
            tls_context=self._context,
        )
        try:
            async with asyncio.timeout(self._total):
                await client.connect()
                await _log_in(client, self._server)
                await _transmit(client, mail, message, progress)
            with contextlib.suppress(SMTPException, OSError):  # it has the message; manners change nothing
                await client.quit(timeout=1.0)
        except SMTPResponseException as error:
            if error.code < _FIRST_REFUSAL:  # what came is no SMTP
                return _sort_failure(error, left=progress.state == "left")
            progress.state = "back"
            return _sort(error, mail)
        except (TimeoutError, OSError, SMTPException, ValueError) as error:
            return _sort_failure(error, left=progress.state == "left")
        finally:
            client.close()
        return Finding("done", "")


async def _log_in(client: aiosmtplib.SMTP, server: SmtpServer) -> None:
    if not server.user:
        return
    if client.get_transport_info("sslcontext") is None and server.host not in _LOOPBACK:
        raise ProviderRefused(f"the SMTP server offers no TLS, and a password is not sent without: check {_SETTING}")
    try:
        await client.login(server.user, server.password)
    except SMTPResponseException:
        raise
    except SMTPException as error:
        if isinstance(error, OSError):  # disconnected, timed out
            raise
        raise ProviderRefused(f"the SMTP server takes no log-in that we know: check {_SETTING}") from None


async def _transmit(client: aiosmtplib.SMTP, mail: Mail, message: bytes, progress: Progress) -> None:
    utf8 = needs_utf8(mail)
    if utf8 and not client.supports_extension("smtputf8"):
        raise Reject("the SMTP server takes no international addresses (SMTPUTF8)")
    encoding = "utf-8" if utf8 else "ascii"
    await client.mail(mail.sender.address, options=["SMTPUTF8"] if utf8 else [], encoding=encoding)
    await client.rcpt(mail.to, encoding=encoding)
    progress.state = "left"
    accepted = await client.data(message)
    progress.state, progress.provider_id = "sent", _without(mail.to, one_line(accepted.message))[:PROVIDER_ID]


def _sort(error: SMTPResponseException, mail: Mail) -> Finding:
    text = _without(mail.to, error.message)
    step = _STEPS.get(type(error), "session")
    finding = sort_smtp(step, error.code, text)
    # What MAIL says of an international recipient: that it needs SMTPUTF8.
    return replace(finding, doubtful=True) if step == "MAIL" and not mail.to.isascii() else finding


def _without(address: str, text: str) -> str:
    """Return what a server said without the recipient, which it may quote in any case; `scrub` knows no ``kim@intranet``."""
    return re.sub(re.escape(address), "<email>", text, flags=re.IGNORECASE)


def _sort_failure(error: Exception, *, left: bool) -> Finding:
    kind = "timeout" if isinstance(error, TimeoutError) else "broken" if left else "connect"
    detail = type(error).__name__
    return sort_failure("smtp", NoAnswer(kind, left=left, detail=detail))  # type: ignore[arg-type]
