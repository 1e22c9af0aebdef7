"""How a `Mail` becomes an RFC 5322 message: one recipient, no header that was not meant, the text first.

The head is written here and read back by a parser. The standard library would decode an encoded word (RFC 2047) that a
value holds, and older Pythons then write the line breaks that are in it (CVE-2024-6923).

The Message-ID is made of the idempotency key: a message that went out twice is one message to many mail programs, and to
a person who looks for it in the log of a mail server.
"""

from __future__ import annotations

import hashlib
import re
from datetime import UTC, datetime
from email.header import Header, decode_header
from email.message import EmailMessage
from email.parser import BytesHeaderParser
from email.policy import SMTP, compat32
from email.utils import format_datetime, parseaddr, quote

from usher.addresses import CONTROL
from usher.channels import Mail
from usher.outcome import Reject

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9-]*")
_PHRASE = re.compile(r"[\w!#$%&'*+/=?^`{|}~-]+( [\w!#$%&'*+/=?^`{|}~-]+)*", re.ASCII)
"""A display name that needs neither quotes nor encoding."""
_UNSEEN = re.compile(rf"{CONTROL.pattern}|[\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
"""Control characters, those of the text's direction included, and halves of characters."""
_ENCODED_WORD = "=?"
_LONGEST_LINE, _LONGEST_WORD = 998, 900
_FOLD_AT = 76
_RESERVED = frozenset(
    {
        "from", "sender", "to", "cc", "bcc", "reply-to", "subject", "date", "message-id", "auto-submitted", "received",
        "return-path", "dkim-signature", "mime-version",
    }
)  # fmt: skip
_SAFE_KEY = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]{0,99}")

AUTO_SUBMITTED = ("Auto-Submitted", "auto-generated")
"""Asks for no out-of-office answer (RFC 3834)."""


def build(mail: Mail, date: datetime) -> bytes:
    """The message for *mail*, dated *date* (aware).

    Raises:
        ValueError: a header or an address that would not be one header or one address.
    """
    check(mail)
    body = _body(mail)
    head = [
        ("From", _mailbox(mail.sender.address, mail.sender.name)),
        ("To", mail.to),
        ("Subject", encoded("Subject", mail.subject)),
        ("Date", format_datetime(date)),
        ("Message-ID", f"<{safe_key(mail.idempotency_key)}@{mail.sender.address.rpartition('@')[2]}>"),
        AUTO_SUBMITTED,
        *((name, encoded(name, value)) for name, value in mail.headers),
    ]
    written = "".join(f"{name}: {value}\r\n" for name, value in head).encode() + body.as_bytes()
    _read_back(written, mail, [*(name for name, _ in head), *body.keys()])
    return written


def message(mail: Mail) -> bytes:
    """The message for *mail*, dated now.

    Raises:
        Reject: it would not be one.
    """
    try:
        return build(mail, datetime.now(UTC))
    except ValueError as error:
        raise Reject(f"this mail can't be sent: {error}") from None


def check(mail: Mail) -> None:
    """Whether *mail* is one message to one recipient, with no header that was not meant.

    Raises:
        ValueError: it is not. The text holds no address.
    """
    _check_address(mail.to)
    _check_address(mail.sender.address)
    for name, value in (("Subject", mail.subject), ("From", mail.sender.name), *mail.headers):
        if CONTROL.search(value):
            raise ValueError(f"the header {name!r} holds a line break or another control character")
    for name, _ in mail.headers:
        if not _NAME.fullmatch(name) or name.lower() in _RESERVED or name.lower().startswith("content-"):
            raise ValueError(f"a mail may not set the header {name!r}")


def one_line(text: str) -> str:
    """*text* as a header can hold it: line breaks become blanks, control characters are dropped."""
    return " ".join(_UNSEEN.sub("", " ".join(text.split())).split())


def encoded(name: str, text: str) -> str:
    """The value of the header *name* that is read as *text*, folded. An encoded word in *text* is encoded itself."""
    longest = max(map(len, text.split(" ")))  # it folds at blanks only
    if text.isascii() and _ENCODED_WORD not in text and text == text.strip() and longest < _LONGEST_WORD:
        fold_at = max(_FOLD_AT, len(name) + 2 + longest)  # or the first line would be empty
        return Header(text, "us-ascii", fold_at, name).encode(linesep="\r\n")
    return Header(text, "utf-8", _FOLD_AT, name).encode(linesep="\r\n")


def neutral(text: str) -> str:
    """*text* without encoded words, for one that writes the header itself: it looks the same, an unseen joiner is within."""
    return text.replace(_ENCODED_WORD, "=\u2060?")


def needs_utf8(mail: Mail) -> bool:
    """Whether an address is international, so that the way of the mail has to speak SMTPUTF8."""
    return not (mail.to.isascii() and mail.sender.address.isascii())


def safe_key(idempotency_key: str) -> str:
    """The key itself where it fits a file name and a header, as the service's own do, else a digest of it."""
    if _SAFE_KEY.fullmatch(idempotency_key):
        return idempotency_key
    return hashlib.sha256(idempotency_key.encode()).hexdigest()[:40]


def _body(mail: Mail) -> EmailMessage:
    # 7bit: bodies are encoded, so that a server on the way that can't do 8BITMIME changes nothing.
    body = EmailMessage(policy=SMTP.clone(cte_type="7bit"))
    body.set_content(mail.text)
    if mail.html is not None:
        body.add_alternative(mail.html, subtype="html")
    return body


def _mailbox(address: str, name: str) -> str:
    if not name:
        return address
    if not name.isascii() or _ENCODED_WORD in name or len(name) > _FOLD_AT:
        shown = Header(name, "utf-8", _FOLD_AT, "From").encode(linesep="\r\n")
    else:
        shown = name if _PHRASE.fullmatch(name) else f'"{quote(name)}"'
    return (
        f"{shown}\r\n <{address}>"
        if len(shown) + len(address) > _FOLD_AT - len("From:  <>")
        else f"{shown} <{address}>"
    )


def _check_address(address: str) -> None:
    # Whether it is a good address was decided before; here, that it is one, and stays one in every header.
    plain = re.fullmatch(r"[^\s<>,;:\"()\[\]\\@\x00-\x1f\x7f]+@[^\s<>,;:\"()\\@\x00-\x1f\x7f]+", address)
    if not plain or CONTROL.search(address):
        raise ValueError("an address is not one plain address")
    if _ENCODED_WORD in address:
        raise ValueError("an address holds an encoded word")


def _read_back(written: bytes, mail: Mail, names: list[str]) -> None:
    """See that a reader of *written* finds the headers *names*, and in them what *mail* says.

    Raises:
        ValueError: it would find something else.
    """
    found = [
        (name, re.sub(r"\r?\n", "", value.encode("ascii", "surrogateescape").decode()))
        for name, value in BytesHeaderParser(policy=compat32).parsebytes(written).raw_items()
    ]
    if [name for name, _ in found] != names or max(map(len, written.splitlines())) > _LONGEST_LINE:
        raise ValueError("its head would be read as another one")
    values = dict(found)
    shown, address = parseaddr(values["From"])
    meant = {"Subject": mail.subject, **dict(mail.headers)}
    if (
        (_decoded(shown).strip(), address) != (mail.sender.name.strip(), mail.sender.address)
        or values["To"] != mail.to
        or any(_decoded(values[name]) != value for name, value in meant.items())
    ):
        raise ValueError("its head would be read as another one")


def _decoded(value: str) -> str:
    return "".join(
        part.decode(charset or "ascii") if isinstance(part, bytes) else part for part, charset in decode_header(value)
    )
