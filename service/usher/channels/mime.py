"""How a `Mail` becomes an RFC 5322 message: one recipient, no header that was not meant, the text first.

The Message-ID is made of the idempotency key: a message that went out twice is one message to many mail programs, and to
a person who looks for it in the log of a mail server.
"""

from __future__ import annotations

import hashlib
import re
from datetime import datetime
from email.headerregistry import Address
from email.message import EmailMessage
from email.policy import SMTP, SMTPUTF8
from email.utils import format_datetime

from usher.channels import Mail

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9-]*")
_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f\x85\u2028\u2029]")
_RESERVED = frozenset(
    {
        "from", "sender", "to", "cc", "bcc", "reply-to", "subject", "date", "message-id", "auto-submitted", "received",
        "return-path", "dkim-signature", "mime-version",
    }
)  # fmt: skip
_SAFE_KEY = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]{0,99}")

AUTO_SUBMITTED = ("Auto-Submitted", "auto-generated")
"""Asks for no out-of-office answer (RFC 3834)."""


def build(mail: Mail, date: datetime) -> EmailMessage:
    """The message for *mail*, dated *date* (aware).

    Raises:
        ValueError: a header or an address that would not be one header or one address.
    """
    check(mail)
    # 7bit: bodies are encoded, so that a server on the way that can't do 8BITMIME changes nothing.
    message = EmailMessage(policy=(SMTPUTF8 if needs_utf8(mail) else SMTP).clone(cte_type="7bit"))
    message["From"] = _address(mail.sender.address, mail.sender.name)
    message["To"] = _address(mail.to)
    message["Subject"] = mail.subject
    message["Date"] = format_datetime(date)
    message["Message-ID"] = f"<{safe_key(mail.idempotency_key)}@{mail.sender.address.rpartition('@')[2]}>"
    message[AUTO_SUBMITTED[0]] = AUTO_SUBMITTED[1]
    for header, value in mail.headers:
        message[header] = value
    message.set_content(mail.text)
    if mail.html is not None:
        message.add_alternative(mail.html, subtype="html")
    return message


def check(mail: Mail) -> None:
    """Whether *mail* is one message to one recipient, with no header that was not meant.

    Raises:
        ValueError: it is not. The text holds no address.
    """
    _check_address(mail.to)
    for name, value in (("Subject", mail.subject), *mail.headers):
        if _CONTROL.search(value):
            raise ValueError(f"the header {name!r} holds a line break or another control character")
    for name, _ in mail.headers:  # the standard library checks values, and writes any name
        if not _NAME.fullmatch(name) or name.lower() in _RESERVED or name.lower().startswith("content-"):
            raise ValueError(f"a mail may not set the header {name!r}")


def needs_utf8(mail: Mail) -> bool:
    """Whether an address is international, so that the way of the mail has to speak SMTPUTF8."""
    return not (mail.to.isascii() and mail.sender.address.isascii())


def safe_key(idempotency_key: str) -> str:
    """The key itself where it fits a file name and a header, as the service's own do, else a digest of it."""
    if _SAFE_KEY.fullmatch(idempotency_key):
        return idempotency_key
    return hashlib.sha256(idempotency_key.encode()).hexdigest()[:40]


def _address(address: str, name: str = "") -> Address:
    username, _, domain = address.rpartition("@")  # in parts: given as one, an international one is refused
    return Address(name, username, domain)


def _check_address(address: str) -> None:
    # Whether it is a good address was decided before; here, that it is one, and stays one in every header.
    if not re.fullmatch(r"[^\s<>,;:\"()\[\]\\@\x00-\x1f\x7f]+@[^\s<>,;:\"()\\@\x00-\x1f\x7f]+", address):
        raise ValueError("an address is not one plain address")
