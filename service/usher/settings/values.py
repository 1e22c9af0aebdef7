"""From the text of an environment variable to a checked value: hides how each kind of setting is written.

Each parser takes the text (or an already typed value, from a flag or a test) and raises ValueError with the way out. The
error never quotes the value: the one place that reports errors knows whether it is a secret.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, NamedTuple, TypeVar
from urllib.parse import urlsplit

from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from pydantic import BeforeValidator, Field, PlainValidator, SecretStr

from usher.addresses import (
    CONTROL,
    Address,
    LogAddress,
    SmtpServer,
    SqliteAddress,
    TwilioSender,
    host_name,
    log_address,
)
from usher.kafka_options import KafkaOptions, kafka_options
from usher.outcome import LONGEST_WAIT, seconds
from usher.proxies import Proxies
from usher.registry import SYSTEMS

_T = TypeVar("_T")
SECRETS = (SecretStr, SmtpServer, RSAPrivateKey, Proxies)
"""The types whose values are never shown: all of one, or a part of it, is a secret."""
_LAST_MOMENT = datetime(9999, 1, 1, tzinfo=UTC).timestamp()
_MOST = 10**9
_DAY = 86_400.0
_TOPIC = re.compile(r"[A-Za-z0-9._-]{1,200}")
_DOMAIN = re.compile(r"[a-z0-9-]{1,63}(\.[a-z0-9-]{1,63})+")


class SourceTopic(NamedTuple):
    """A topic to read. Where *source* is named its records are that system's own, of the *tenant* with this name in the settings."""

    name: str
    source: str = ""
    tenant: str = ""

    def __str__(self) -> str:
        tenant = f"/{self.tenant}" if self.tenant else ""
        return f"{self.name}={self.source}{tenant}" if self.source else self.name


def split(value: Any) -> Any:
    """A comma-separated text as a tuple, without blanks and empty parts; anything else as it is."""
    if not isinstance(value, str):
        return value
    return tuple(part for part in (part.strip() for part in value.split(",")) if part)


def _duration(value: Any) -> float:
    try:
        duration = seconds(value)
    except ValueError:
        raise ValueError("should be a number and a unit: 500ms, 10s, 1m, 2h, 1d") from None
    if duration > LONGEST_WAIT:
        raise ValueError(f"should be {LONGEST_WAIT / _DAY:g}d at most")
    return duration


def _pause(value: Any) -> float:
    if not (duration := _duration(value)):
        raise ValueError("should be greater than 0")
    return duration


def _grace(value: Any) -> float:
    if (duration := _duration(value)) > _DAY:
        raise ValueError("should be 1d at most: nobody waits longer for a worker that stops")
    return duration


def _delays(value: Any) -> tuple[float, ...]:
    delays = split(value)
    return () if delays == ("none",) else tuple(_duration(delay) for delay in delays)


def _start(value: Any) -> str | float:
    if value in {"latest", "earliest"}:
        return str(value)
    moment = _unix_seconds(value)
    if moment is None or not 0 <= moment < _LAST_MOMENT:
        raise ValueError("should be latest, earliest, a time such as 2026-05-01T00:00:00Z, or Unix seconds")
    return moment


def _unix_seconds(value: Any) -> float | None:
    try:
        return float(value)
    except (TypeError, ValueError):
        pass
    try:
        moment = datetime.fromisoformat(value)
    except (TypeError, ValueError):
        return None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def _address(value: Any) -> Address:
    if isinstance(value, Address):
        return value
    try:
        return Address.parse(str(value))
    except ValueError:
        raise ValueError("should be host:port, as in 127.0.0.1:8080; port 0 takes a free one") from None


def _topic(value: Any) -> str:
    if not isinstance(value, str) or not _TOPIC.fullmatch(value) or value in {".", ".."}:
        raise ValueError("should be letters, digits, '.', '_' and '-', at most 200: topics are named with it")
    return value


def _source_topic(value: Any) -> SourceTopic:
    if isinstance(value, SourceTopic):
        return value
    topic, named, rest = str(value).partition("=")
    source, _, tenant = rest.partition("/")
    if named and source not in SYSTEMS:
        raise ValueError(
            f"should name a source after '=', one of {', '.join(SYSTEMS)}, as in keycloak-admin=keycloak; a tenant may "
            "follow, as in keycloak-admin=keycloak/shop"
        )
    return SourceTopic(_topic(topic), source, tenant)


def _topics(value: Any) -> tuple[SourceTopic, ...]:
    topics = tuple(_source_topic(name) for name in split(value))
    if not topics or len({topic.name for topic in topics}) < len(topics):
        raise ValueError("should name one topic or more, comma separated, each once")
    return topics


def _triggers(value: Any) -> tuple[str, ...]:
    names: tuple[str, ...] = tuple(split(value))
    if not names:
        raise ValueError(
            "should name at least one value of triggered_by, as in admin_api; without any no handler would run"
        )
    if "unknown" in names:
        raise ValueError(
            "can't name unknown, which means that nobody knows; a handler may, with @on(..., triggered_by='unknown')"
        )
    return names


def _log(value: Any) -> LogAddress:
    address = value if isinstance(value, LogAddress) else log_address(str(value))
    if isinstance(address, SqliteAddress):
        _new_file(address.path)
    return address


def _new_file(path: Path) -> None:
    """See that there could be a file at *path*: a folder that is missing is not made, for it may be one that is not mounted."""
    if _is(path, Path.is_dir):
        raise ValueError("should name a file: there is a folder of that name, write sqlite:///folder/usher.db")
    if not path.parent.is_dir():
        raise ValueError(f"should lie in a folder that exists: there is no {path.parent}; create it or mount it")


def _kafka(value: Any) -> KafkaOptions:
    return value if isinstance(value, KafkaOptions) else kafka_options(value)


def _url(value: Any) -> str:
    text = str(value)
    try:
        parts = urlsplit(text)
        host_name(parts.hostname or "")
        valid = parts.scheme in {"http", "https"} and parts.port != 0
    except ValueError:
        valid = False
    if not valid or not text.isprintable() or set(text) & set(" \\"):
        raise ValueError("should be a URL, as in https://id.example.com/login")
    return text


def _api_url(value: Any) -> str:
    text = _url(value).rstrip("/")
    if set(text) & set("?#"):
        raise ValueError("should be a URL without a query, as in https://id.example.com/auth")
    if "@" in urlsplit(text).netloc:
        raise ValueError("should be a URL without a user and password: what proves us has settings of its own")
    return text


def _base_url(value: Any) -> str:
    text = _api_url(value)
    if urlsplit(text).path:
        raise ValueError("should be a URL without a path, as in https://api.example.com: the path is the provider's")
    return text


def _header_safe(value: Any) -> str:
    text = (value.get_secret_value() if isinstance(value, SecretStr) else str(value)).strip()
    if not text or not (text.isascii() and text.isprintable()) or " " in text:
        raise ValueError(
            "should be letters, digits and signs of ASCII without blanks between: it is sent in a header; copy it anew"
        )
    return text


def _domain(value: Any) -> str:
    text = str(value).lower()
    if not _DOMAIN.fullmatch(text):
        raise ValueError("should be a domain alone, as in acme.eu.auth0.com: no https://, no path")
    return text


def _once(kind: type[_T], parse: Callable[[str], _T]) -> PlainValidator:
    """Reads a text with *parse*; what is a *kind* already stays."""
    return PlainValidator(lambda value: value if isinstance(value, kind) else parse(str(value)))


def _folder(value: Any) -> Path:
    if not _is(Path(value), Path.is_dir):
        raise ValueError("should be a folder that exists; create it or mount it")
    return Path(value)


def _new_folder(value: Any) -> Path:
    path = Path(value)
    if _is(path, Path.exists) and not path.is_dir():
        raise ValueError("should be a folder, which is made where it is missing; a file of that name is in the way")
    return path


def _is(path: Path, state: Callable[[Path], bool]) -> bool:
    """What *state* says of a path; a path that can't even be looked at is refused."""
    try:
        return state(path)
    except OSError as error:
        raise ValueError(f"can't be looked at: {error.strerror}; correct the path, or its folder's rights") from None


def _line(value: Any) -> str:
    if not str(value) or CONTROL.search(str(value)):
        raise ValueError("should be a text on one line, without control characters")
    return str(value)


def _count(value: Any) -> int:
    try:
        number = int(value)
    except (TypeError, ValueError):
        number = 0
    if not 1 <= number <= _MOST:
        raise ValueError(f"should be a whole number from 1 to {_MOST}")
    return number


Duration = Annotated[float, BeforeValidator(_duration)]
Pause = Annotated[float, BeforeValidator(_pause)]
Grace = Annotated[float, BeforeValidator(_grace)]
Delays = Annotated[tuple[float, ...], BeforeValidator(_delays)]
StartFrom = Annotated[str | float, BeforeValidator(_start)]
HostPort = Annotated[Address, PlainValidator(_address)]
Names = Annotated[tuple[str, ...], BeforeValidator(split)]
Topic = Annotated[str, BeforeValidator(_topic)]
Topics = Annotated[tuple[SourceTopic, ...], BeforeValidator(_topics)]
Triggers = Annotated[tuple[str, ...], BeforeValidator(_triggers)]
LogUrl = Annotated[LogAddress, PlainValidator(_log)]
Kafka = Annotated[KafkaOptions, PlainValidator(_kafka)]
Url = Annotated[str, BeforeValidator(_url)]
ApiUrl = Annotated[str, BeforeValidator(_api_url)]
BaseUrl = Annotated[str, BeforeValidator(_base_url)]
Domain = Annotated[str, BeforeValidator(_domain)]
Smtp = Annotated[SmtpServer, _once(SmtpServer, SmtpServer.parse)]
HeaderSafe = Annotated[str, BeforeValidator(_header_safe)]
Credential = Annotated[SecretStr, BeforeValidator(_header_safe)]
TwilioFrom = Annotated[TwilioSender, _once(TwilioSender, TwilioSender.parse)]
Secrets = Annotated[tuple[Annotated[SecretStr, Field(min_length=1)], ...], BeforeValidator(split)]
Folder = Annotated[Path, BeforeValidator(_folder)]
NewFolder = Annotated[Path, BeforeValidator(_new_folder)]
Line = Annotated[str, BeforeValidator(_line)]
Count = Annotated[int, BeforeValidator(_count)]
