"""Addresses of the log, of servers and of senders: checked values, which the settings give and the parts take.

Hides how each is written. A text becomes a value here and nowhere else: code that has a value need not check it again. An
error says what should be written and never quotes the text, which may hold a password.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Collection
from dataclasses import dataclass, field
from email.utils import unquote as without_quotes
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote, urlsplit

from email_validator import EmailNotValidError, validate_email

_LONGEST_MAIL_ADDRESS = 320
_NAME = re.compile(r"[\w-]+(\.[\w-]+)*\.?")
CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
"""Line breaks and other control characters."""
_ON_THE_INTERNET = ".example.com"
"""Behind a name of the own network it makes a name that the validator of addresses takes: that has no setting for these."""
_PLAIN_LOCAL_PART = re.compile(r"[a-z0-9_+-]+(\.[a-z0-9_+-]+)*", re.ASCII)
"""What stands before the @ of most addresses: the validator takes it, and leaves it as it is."""
_LONGEST_PLAIN = 60
"""Characters; far from every limit of the validator."""
_MAIL_SENDER = re.compile(r"(?P<name>.*?) ?<(?P<address>[^<>]*)>")
_SERVICE = re.compile(r"MG[0-9a-fA-F]{32}")
_SMS_SENDER = re.compile(r"\+[1-9][0-9]{6,14}|[0-9]{3,8}|(?=.*[A-Za-z])[A-Za-z0-9 &+_-]{1,11}")
"""A number in E.164, a short code, or an alphanumeric sender."""


class Address(NamedTuple):
    """Where a server listens. Port 0: the system chooses."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @classmethod
    def parse(cls, text: str) -> Address:
        """``host:port``; the host is a name, an IPv4 address, or an IPv6 address in brackets.

        Raises:
            ValueError: it is none of these. Says nothing more: what is expected differs.
        """
        host, _, port = text.rpartition(":")
        if not port.isdecimal() or int(port) > 65535:
            raise ValueError("no port")
        return cls(host_name(host.removeprefix("[").removesuffix("]")), int(port))


@dataclass(frozen=True, slots=True)
class SqliteAddress:
    """The embedded log: one SQLite file."""

    path: Path

    def __str__(self) -> str:
        return f"sqlite:///{self.path}"


@dataclass(frozen=True, slots=True)
class KafkaAddress:
    """A log on Kafka: the brokers to begin with, each ``host:port``."""

    servers: tuple[str, ...]

    def __str__(self) -> str:
        return f"kafka://{','.join(self.servers)}"


LogAddress = SqliteAddress | KafkaAddress
"""Where events are kept."""


def log_address(text: str) -> LogAddress:
    """The log that ``sqlite:///usher.db`` or ``kafka://host:port,host:port`` names.

    Raises:
        ValueError
    """
    kind, found, rest = text.partition("://")
    if found and kind == "sqlite" and rest.startswith("/") and text.isprintable():
        path = rest.removeprefix("/")
        if not path or path.endswith("/") or path == ":memory:" or set(path) & set("?#"):
            raise ValueError("should name a file, as in sqlite:///usher.db (an absolute path has four slashes)")
        return SqliteAddress(Path(path))
    if found and kind == "kafka":
        try:
            servers = [Address.parse(server.strip()) for server in rest.split(",")]
        except ValueError:
            servers = []
        if servers and all(server.port for server in servers):
            return KafkaAddress(tuple(str(server) for server in servers))
    raise ValueError(
        "should be sqlite:///usher.db (an absolute path has four slashes) or kafka://host:9092,host:9092; "
        "Kafka's credentials go into USHER_KAFKA__…"
    )


@dataclass(frozen=True, slots=True)
class SmtpServer:
    """An SMTP server and its account; *user* is empty where there is no log-in.

    *tls*: from the first byte. Otherwise STARTTLS is used where the server offers it.
    """

    host: str
    port: int
    tls: bool = False
    user: str = ""
    password: str = field(default="", repr=False)

    @classmethod
    def parse(cls, text: str) -> SmtpServer:
        """``smtp://user:password@host:587`` or ``smtps://…:465``; user and password may be left out, and are %-encoded.

        Raises:
            ValueError
        """
        try:
            parts = urlsplit(text := text.strip())
            tls, port = parts.scheme == "smtps", parts.port
            host = host_name(parts.hostname or "")
            user, password = (unquote(part or "", errors="strict") for part in (parts.username, parts.password))
        except ValueError:
            raise ValueError(_NO_SMTP) from None
        if parts.scheme not in {"smtp", "smtps"} or port == 0 or not text.isprintable() or " " in text:
            raise ValueError(_NO_SMTP)
        if parts.path.strip("/") or set(text) & set("?#"):
            raise ValueError(f"has something after the server; it {_NO_SMTP}")
        if CONTROL.search(user + password):
            raise ValueError(f"has a control character in its user or password; it {_NO_SMTP}")
        if bool(user) != bool(password):
            raise ValueError(f"has a user without a password, or a password without a user; it {_NO_SMTP}")
        return cls(host, port or (465 if tls else 587), tls, user, password)


_NO_SMTP = (
    "should be smtp://user:password@host:587 (STARTTLS) or smtps://user:password@host:465; in user and password "
    "/ # ? [ ] @ : % are written %2F %23 %3F %5B %5D %40 %3A %25"
)


@dataclass(frozen=True, slots=True)
class MailSender:
    """The From of mails: an address, and the name that is shown with it."""

    address: str
    name: str = ""

    def __str__(self) -> str:
        quoted = self.name.replace("\\", "\\\\").replace('"', '\\"')
        return f'"{quoted}" <{self.address}>' if self.name else self.address

    @classmethod
    def parse(cls, text: str, internal: Collection[str] = ()) -> MailSender:
        """``address`` or ``Name <address>``; the name may stand in quotes. *internal* as in `mail_address`.

        Raises:
            ValueError
        """
        if CONTROL.search(text):
            raise ValueError("should be on one line, without control characters")
        text = " ".join(text.split())
        match = _MAIL_SENDER.fullmatch(text)
        try:
            address = mail_address(match["address"] if match else text, internal)
        except ValueError as rule:
            raise ValueError(
                f"should be an address, as in no-reply@example.com or Example <no-reply@example.com> ({rule})"
            ) from None
        return cls(address, without_quotes(match["name"]) if match else "")


@dataclass(frozen=True, slots=True)
class TwilioSender:
    """The sender of SMS: a number, a short code, an alphanumeric name, or a messaging service, which chooses a number itself."""

    text: str

    def __str__(self) -> str:
        return self.text

    @property
    def is_service(self) -> bool:
        return bool(_SERVICE.fullmatch(self.text))

    @classmethod
    def parse(cls, text: str) -> TwilioSender:
        """As in ``+15005550006``, ``MG…``, ``12345`` or ``ACME``.

        Raises:
            ValueError
        """
        text = text.strip()
        if not (_SERVICE.fullmatch(text) or _SMS_SENDER.fullmatch(text)):
            raise ValueError(
                "should be a number as in +15005550006, the SID of a messaging service (MG and 32 hexadecimal digits), a "
                "short code, or a name of at most 11 letters and digits"
            )
        return cls(text)


def mail_address(text: str, internal: Collection[str] = ()) -> str:
    """The normalised form of a bare mail address: domain in lower case and, where the local part is ASCII, in Punycode.

    *internal* are the mail domains of the own network (as `mail_domain` gives them): there and below, any name will do.

    Raises:
        ValueError: it can't be an address, or its domain is reserved (``.local``, ``.invalid``, …): says which rule was
            broken, and never quotes the address.
    """
    if len(text) > _LONGEST_MAIL_ADDRESS:  # the work grows faster than the text
        raise ValueError("it is longer than an address can be")
    if quick := _plain_address(text.strip()):
        return quick
    try:
        found = validate_email(text.strip(), check_deliverability=False)
    except EmailNotValidError as error:
        # What follows a colon or parenthesis is left out: there the validator quotes the address.
        rule = re.split(r"\s*[:(]", str(error), maxsplit=1)[0].rstrip(".")
    else:
        return found.ascii_email or found.normalized
    try:
        found = validate_email(text.strip() + _ON_THE_INTERNET, check_deliverability=False)
    except EmailNotValidError:
        raise ValueError(rule) from None
    if not any(f".{found.ascii_domain}".endswith(f".{name}{_ON_THE_INTERNET}") for name in internal):
        raise ValueError(f"{rule}; if it is of your own network, name it in USHER_MAIL_INTERNAL_DOMAINS")
    return (found.ascii_email or found.normalized).removesuffix(_ON_THE_INTERNET)


def _plain_address(text: str) -> str:
    """What `mail_address` gives for a plain address; empty where only the validator can say. It costs a tenth of that."""
    local, _, domain = text.rpartition("@")
    if len(text) > _LONGEST_PLAIN or not _PLAIN_LOCAL_PART.fullmatch(local):
        return ""
    return f"{local}@{checked}" if (checked := _checked_domain(domain)) else ""


@lru_cache(1024)
def _checked_domain(domain: str) -> str:
    """*domain* as the validator writes it in ASCII, empty where it refuses it. Many users share few domains."""
    try:
        return validate_email(f"a@{domain}", check_deliverability=False).ascii_domain
    except EmailNotValidError:
        return ""


def mail_domain(text: str) -> str:
    """A mail domain in lower case and Punycode; a dot before it, or ``*.``, says nothing more.

    Raises:
        ValueError
    """
    name = text.strip().removeprefix("*").removeprefix(".").lower()
    try:
        found = validate_email(f"a@{name}{_ON_THE_INTERNET}", check_deliverability=False)
    except EmailNotValidError:
        raise ValueError(
            "should be mail domains, comma separated, as in firma.local,intranet: no address, no port"
        ) from None
    return found.ascii_domain.removesuffix(_ON_THE_INTERNET)


def host_name(text: str) -> str:
    """*text* itself, where it is a host's name or its IP address, without brackets.

    Raises:
        ValueError
    """
    if ":" in text:
        ipaddress.IPv6Address(text)
    elif not _NAME.fullmatch(text) or len(text.encode("idna")) > 253:
        raise ValueError("no host")
    return text
