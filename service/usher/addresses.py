"""Addresses: where things are and who speaks, checked, as the settings give them and the parts take them.

Hides how each is written. A text becomes a value here and nowhere else, so that who has one need not look at it again. A
refusal says the way out and never quotes the text, which may hold a password.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

_NAME = re.compile(r"[\w-]+(\.[\w-]+)*\.?")


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
