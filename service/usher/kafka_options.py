"""The options of the Kafka client: which an operator may give, which are ours, and what they have to be."""

from __future__ import annotations

import re
import ssl
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Final

from usher.redact import know

_CHOICES: Final = {
    "security_protocol": ("PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"),
    "sasl_mechanism": ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"),
    "compression_type": ("none", "gzip", "snappy", "lz4", "zstd"),
}
_MILLISECONDS: Final = {
    "request_timeout_ms": (1_000, 300_000),
    "session_timeout_ms": (1_000, 300_000),
    "heartbeat_interval_ms": (100, 100_000),
    "max_poll_interval_ms": (10_000, 3_600_000),
    "metadata_max_age_ms": (500, 3_600_000),
}
_TEXTS: Final = (
    "client_id",
    "client_rack",
    "sasl_plain_username",
    "sasl_plain_password",
    "ssl_cafile",
    "ssl_certfile",
    "ssl_keyfile",
    "ssl_password",
)
_SASL: Final = ("sasl_mechanism", "sasl_plain_username", "sasl_plain_password")
_KNOWN: Final = (*_CHOICES, *_MILLISECONDS, *_TEXTS)
_OURS: Final = {
    "bootstrap_servers": "USHER_EVENT_LOG names the brokers",
    "group_id": "USHER_GROUP names the group",
    "group_instance_id": "a worker that is replaced would hold its partitions until its session ends",
    "enable_auto_commit": "an offset is committed only when its deliveries are settled",
    "auto_offset_reset": "USHER_START_FROM says where to start; a lost offset must not be skipped silently",
    "isolation_level": "records of aborted transactions are not delivered",
    "acks": "a write counts when all replicas have it",
    "enable_idempotence": "a write that is repeated must not appear twice",
    "transactional_id": "writes are not transactional",
    "partition_assignment_strategy": "all members must agree on one",
    "rebalance_timeout_ms": "it follows from USHER_SHUTDOWN_GRACE",
    "key_deserializer": "bytes are decoded where an error is one record's",
    "value_deserializer": "bytes are decoded where an error is one record's",
    "api_version": "it is negotiated",
    "check_crcs": "a damaged record must not be delivered",
}


class SecretFile(str):
    """The content of a file that holds a secret. *read* reads it again."""

    __slots__ = ("path", "read")
    path: str
    read: Callable[[], str]

    def __new__(cls, path: str, read: Callable[[], str]) -> SecretFile:
        content = super().__new__(cls, read())
        content.path, content.read = path, read
        return content


@dataclass(frozen=True, slots=True)
class KafkaOptions:
    """Options that were checked. *common* goes to every client, *consumer* and *producer* to those.

    *request_timeout* is in seconds. *certified*: the client has a certificate of its own. *given* is what the operator
    wrote, by lower-case name; it may hold secrets. *files* are those that certificates and secrets were read from, each with
    its state at that time.
    """

    common: Mapping[str, Any] = field(repr=False)
    consumer: Mapping[str, Any]
    producer: Mapping[str, Any]
    request_timeout: float
    certified: bool
    given: Mapping[str, str] = field(repr=False)
    files: Mapping[str, tuple[int, ...]] = field(default_factory=dict, repr=False)

    @property
    def metadata_age(self) -> float:
        """Seconds for which what brokers say about topics is believed."""
        return float(self.common["metadata_max_age_ms"]) / 1_000

    def renewed(self) -> KafkaOptions:
        """Return the options as the files are now: certificates and secrets are renewed while a worker runs.

        Raises:
            ValueError: what is there now can't be used.
        """
        if all(_state_of(path) == state for path, state in self.files.items()):
            return self
        fresh = {
            name: SecretFile(value.path, value.read) if isinstance(value, SecretFile) else value
            for name, value in self.given.items()
        }
        know("kafka's files", (value for value in fresh.values() if isinstance(value, SecretFile)))
        return kafka_options(fresh)


def _state_of(path: str) -> tuple[int, ...]:
    try:
        state = Path(path).stat()
    except OSError:
        return ()
    return state.st_ino, state.st_size, state.st_mtime_ns


def _files(checked: Mapping[str, Any], given: Mapping[str, object]) -> dict[str, tuple[int, ...]]:
    """Return the files that the options come from, each with its state: asked before it is read, or a change could be missed."""
    paths = [checked[name] for name in ("ssl_cafile", "ssl_certfile", "ssl_keyfile") if name in checked]
    paths += [value.path for value in given.values() if isinstance(value, SecretFile)]
    return {path: _state_of(path) for path in paths}


def kafka_options(given: Mapping[str, object]) -> KafkaOptions:
    """Check the options in *given*, named as aiokafka names them (values may be text), and load the certificates.

    Raises:
        ValueError: one line for each mistake: the setting's name, its value unless it may be a secret, what it may be.
    """
    checked: dict[str, Any] = {}
    problems: list[str] = []
    for name, value in given.items():
        try:
            checked[name.lower()] = _checked(name.lower(), value)
        except ValueError as error:
            problems.append(str(error))
    if not problems:
        problems += _together(checked)
    if problems:
        raise ValueError("\n".join(problems))
    protocol, files = _protocol(checked), _files(checked, given)
    common: dict[str, Any] = {
        "client_id": checked.get("client_id", "usher"),
        "security_protocol": protocol,
        "ssl_context": _ssl_context(checked) if protocol.endswith("SSL") else None,
        "metadata_max_age_ms": checked.get("metadata_max_age_ms", 60_000),
    }
    if protocol.startswith("SASL"):
        common |= {name: checked[name] for name in _SASL}
    compression = checked.get("compression_type", "none")
    return KafkaOptions(
        common=common,
        consumer=_consumer(checked),
        producer={"compression_type": None if compression == "none" else compression},
        request_timeout=checked.get("request_timeout_ms", 10_000) / 1_000,
        certified="ssl_certfile" in checked,
        given={name.lower(): value if isinstance(value, str) else str(value) for name, value in given.items()},
        files=files,
    )


def _consumer(checked: Mapping[str, Any]) -> Mapping[str, Any]:
    session = _session_ms(checked)
    return {
        "session_timeout_ms": session,
        "heartbeat_interval_ms": checked.get("heartbeat_interval_ms", max(100, session // 5)),
        "max_poll_interval_ms": checked.get("max_poll_interval_ms", 300_000),
        "client_rack": checked.get("client_rack"),
    }


def _name(option: str) -> str:
    return f"USHER_KAFKA__{option.upper()}"


def _protocol(checked: Mapping[str, Any]) -> str:
    return str(checked.get("security_protocol", "PLAINTEXT"))


def _session_ms(checked: Mapping[str, Any]) -> int:
    # A worker that is killed is missed when its session ends: 10 s leave another one as much again to join and load
    # within the 20 s in which a worker must be ready.
    return int(checked.get("session_timeout_ms", 10_000))


def _checked(name: str, value: object) -> Any:
    if name in _OURS:
        raise ValueError(f"{_name(name)}: can't be set: {_OURS[name]}; remove it")
    if name in _CHOICES:
        text = str(value).lower() if name == "compression_type" else str(value).upper()
        if text not in _CHOICES[name]:
            raise ValueError(f"{_name(name)}={str(value)!r}: should be one of {', '.join(_CHOICES[name])}")
        return text
    if name in _MILLISECONDS:
        low, high = _MILLISECONDS[name]
        if not re.fullmatch(r"[0-9]{1,9}", str(value)) or not low <= int(str(value)) <= high:
            raise ValueError(
                f"{_name(name)}={str(value)!r}: should be a whole number of milliseconds from {low} to {high}"
            )
        return int(str(value))
    if name in _TEXTS:
        if not str(value):
            raise ValueError(f"{_name(name)}: is empty; set or remove it")
        return str(value)
    near = get_close_matches(name, _KNOWN, n=1)
    known = f"did you mean {_name(near[0])!r}?" if near else f"known are {', '.join(sorted(_KNOWN))}"
    raise ValueError(f"{_name(name)}: there is no such setting ({known}); correct or remove it")


def _together(checked: Mapping[str, Any]) -> Iterator[str]:
    """The rules between options that are good by themselves."""
    protocol = _protocol(checked)
    said = f"{_name('security_protocol')} is {protocol}"
    if protocol.startswith("SASL"):
        yield from (f"{_name(name)}: is needed where {said}; set it" for name in _SASL if name not in checked)
    else:
        yield from (
            f"{_name(name)}: is of no use where {said}, not SASL_SSL or SASL_PLAINTEXT; correct one of the two"
            for name in _SASL
            if name in checked
        )
    tls = sorted(name for name in checked if name.startswith("ssl_"))
    if not protocol.endswith("SSL"):
        yield from (
            f"{_name(name)}: is of no use where {said}, not SSL or SASL_SSL; correct one of the two" for name in tls
        )
    if "ssl_keyfile" in tls and "ssl_certfile" not in tls:
        yield f"{_name('ssl_certfile')}: is needed beside {_name('ssl_keyfile')}; set it"
    session = _session_ms(checked)
    if checked.get("heartbeat_interval_ms", 0) * 2 > session:
        yield (
            f"{_name('heartbeat_interval_ms')}={str(checked['heartbeat_interval_ms'])!r}: should be at most half of "
            f"{_name('session_timeout_ms')}, which is {session}"
        )


def _ssl_context(checked: Mapping[str, Any]) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=checked.get("ssl_cafile"))
    except OSError as error:
        raise _unloaded(checked, "ssl_cafile", f"can't be loaded: {error}; correct the path, or the file") from None
    if certificate := checked.get("ssl_certfile"):
        try:
            # A password is given even where there is none: without one OpenSSL would ask the terminal.
            context.load_cert_chain(certificate, checked.get("ssl_keyfile"), checked.get("ssl_password", ""))
        except (OSError, ValueError) as error:
            hint = f"see also {_name('ssl_keyfile')} and {_name('ssl_password')}"
            raise _unloaded(checked, "ssl_certfile", f"can't be loaded with its key: {error}; {hint}") from None
    return context


def _unloaded(checked: Mapping[str, Any], name: str, why: str) -> ValueError:
    return ValueError(f"{_name(name)}={checked[name]!r}: {why}")


NO_OPTIONS: Final = kafka_options({})
"""Nothing was given: all is as it comes."""
