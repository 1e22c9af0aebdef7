"""The clients of aiokafka. Hides how they are set up: which settings an operator may give, which are ours, what errors mean."""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Awaitable, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any, Final

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.conn import collect_hosts, create_conn
from aiokafka.coordinator.assignors.abstract import AbstractPartitionAssignor
from aiokafka.coordinator.assignors.range import RangePartitionAssignor
from aiokafka.errors import KafkaError

from usher.eventlog.errors import LogMisconfigured, LogUnavailable
from usher.eventlog.kafka.errors import SILENT, brief, obstacle, refusal

COMMIT_TIMEOUT: Final = 5.0
CLOSE_TIMEOUT: Final = 5.0
MAX_BATCH: Final = 16_384
_JOIN_MARGIN: Final = 15.0

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
_KNOWN: Final = (*_CHOICES, *_MILLISECONDS, *_TEXTS)
_OURS: Final = {
    "bootstrap_servers": "USHER_EVENT_LOG names the brokers",
    "group_id": "USHER_GROUP names the group",
    "group_instance_id": "a worker that is replaced would keep its partitions until its session ends",
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


@dataclass(frozen=True, slots=True)
class ClientOptions:
    """Checked settings: *common* for every client, *consumer* and *producer* for those.

    *request_timeout* is in seconds. *certified*: the client has a certificate of its own.
    """

    common: Mapping[str, Any]
    consumer: Mapping[str, Any]
    producer: Mapping[str, Any] = field(default_factory=dict)
    request_timeout: float = 10.0
    certified: bool = False


def check_options(options: Mapping[str, object]) -> ClientOptions:
    """Check the client settings, named as aiokafka names them (values may be text), and load the certificates.

    Raises:
        LogMisconfigured: names the setting and what it may be, never its value: that may be a secret.
    """
    checked = {name.lower(): _checked(name.lower(), value) for name, value in options.items()}
    protocol = checked.get("security_protocol", "PLAINTEXT")
    _check_together(checked, protocol)
    timeout_ms = checked.get("request_timeout_ms", 10_000)
    # When a worker is killed, Kafka notices at the end of its session. With 10 s, another worker has as much again to join
    # and to load, within the 20 s in which a worker must be ready.
    session_ms = checked.get("session_timeout_ms", 10_000)
    common: dict[str, Any] = {
        "client_id": checked.get("client_id", "usher"),
        "security_protocol": protocol,
        "ssl_context": _ssl_context(checked) if protocol.endswith("SSL") else None,
        "metadata_max_age_ms": checked.get("metadata_max_age_ms", 60_000),
    }
    if protocol.startswith("SASL"):
        common |= {name: checked[name] for name in ("sasl_mechanism", "sasl_plain_username", "sasl_plain_password")}
    consumer = {
        "session_timeout_ms": session_ms,
        "heartbeat_interval_ms": checked.get("heartbeat_interval_ms", max(100, session_ms // 5)),
        "max_poll_interval_ms": checked.get("max_poll_interval_ms", 300_000),
        "client_rack": checked.get("client_rack"),
    }
    if consumer["heartbeat_interval_ms"] * 2 > session_ms:
        raise _wrong("heartbeat_interval_ms", f"must be at most half of session_timeout_ms ({session_ms})")
    compression = checked.get("compression_type", "none")
    producer = {"compression_type": None if compression == "none" else compression}
    return ClientOptions(common, consumer, producer, timeout_ms / 1_000, certified="ssl_certfile" in checked)


def _wrong(name: str, why: str) -> LogMisconfigured:
    return LogMisconfigured(f"USHER_KAFKA__{name.upper()} {why}")


def _checked(name: str, value: object) -> Any:
    if name in _OURS:
        raise _wrong(name, f"can't be set: {_OURS[name]}")
    if name in _CHOICES:
        text = str(value).lower() if name == "compression_type" else str(value).upper()
        if text not in _CHOICES[name]:
            raise _wrong(name, f"is {value!r}; it may be {', '.join(_CHOICES[name])}")
        return text
    if name in _MILLISECONDS:
        low, high = _MILLISECONDS[name]
        if not str(value).isdecimal() or not low <= int(str(value)) <= high:
            raise _wrong(name, f"is {value!r}; it must be a whole number of milliseconds from {low} to {high}")
        return int(str(value))
    if name in _TEXTS:
        if not str(value):
            raise _wrong(name, "is empty")
        return str(value)
    near = get_close_matches(name, _KNOWN, n=1)
    hint = f"did you mean USHER_KAFKA__{near[0].upper()}?" if near else f"known are {', '.join(sorted(_KNOWN))}"
    raise _wrong(name, f"is not a setting; {hint}")


def _check_together(checked: Mapping[str, Any], protocol: str) -> None:
    sasl = {"sasl_mechanism", "sasl_plain_username", "sasl_plain_password"}
    if protocol.startswith("SASL"):
        for name in sorted(sasl - checked.keys()):
            raise _wrong(name, f"is missing: security_protocol is {protocol}")
    else:
        for name in sorted(sasl & checked.keys()):
            raise _wrong(name, f"is of no use: security_protocol is {protocol}, not SASL_SSL or SASL_PLAINTEXT")
    tls = {name for name in checked if name.startswith("ssl_")}
    if tls and not protocol.endswith("SSL"):
        raise _wrong(min(tls), f"is of no use: security_protocol is {protocol}, not SSL or SASL_SSL")
    if "ssl_keyfile" in tls and "ssl_certfile" not in tls:
        raise _wrong("ssl_certfile", "is missing: ssl_keyfile is given")


def _ssl_context(checked: Mapping[str, Any]) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=checked.get("ssl_cafile"))
    except OSError as error:
        raise _wrong("ssl_cafile", f"can't be loaded from {checked['ssl_cafile']}: {error}") from None
    if certificate := checked.get("ssl_certfile"):
        try:
            # Pass a password even where there is none: without one OpenSSL would ask at the terminal.
            context.load_cert_chain(certificate, checked.get("ssl_keyfile"), checked.get("ssl_password", ""))
        except OSError as error:
            hint = "see also USHER_KAFKA__SSL_KEYFILE and USHER_KAFKA__SSL_PASSWORD"
            raise _wrong("ssl_certfile", f"can't be loaded from {certificate} with its key ({error}); {hint}") from None
    return context


class Clients:
    """Makes the clients of one event log. They are not started."""

    def __init__(self, servers: str, options: ClientOptions) -> None:
        self.servers = servers
        self.timeout = options.request_timeout
        self._options = options
        self._common = {**options.common, "bootstrap_servers": servers.split(",")}
        _quiet()

    def _timed(self, seconds: float) -> dict[str, Any]:
        return {**self._common, "request_timeout_ms": int(seconds * 1_000)}

    @property
    def session(self) -> float:
        """Seconds after which a group puts out a member that sends no heartbeat."""
        return float(self._options.consumer["session_timeout_ms"]) / 1_000

    def member(
        self, group: str, drain: float, assignor: type[AbstractPartitionAssignor] = RangePartitionAssignor
    ) -> AIOKafkaConsumer:
        """Make a consumer that joins *group*. While it releases its partitions, others wait for *drain* seconds and a margin."""
        rebalance = drain + COMMIT_TIMEOUT + _JOIN_MARGIN
        # A join is answered when all members have joined: a request that gives up before would join a second time.
        return AIOKafkaConsumer(
            **self._timed(max(self.timeout, rebalance + 5)),
            **self._options.consumer,
            **_READING,
            group_id=group,
            rebalance_timeout_ms=int(rebalance * 1_000),
            partition_assignment_strategy=(assignor,),
        )

    def committer(self, group: str) -> AIOKafkaConsumer:
        """Make a consumer that can commit for *group* while the group has no members."""
        return AIOKafkaConsumer(**self._timed(self.timeout), **_READING, group_id=group)

    def reader(self) -> AIOKafkaConsumer:
        """Make a consumer without a group."""
        rack = self._options.consumer["client_rack"]
        return AIOKafkaConsumer(**self._timed(self.timeout), **_READING, client_rack=rack)

    def producer(self, max_size: int) -> AIOKafkaProducer:
        """Make a producer whose writes are durable and in order. *max_size* is the largest batch that any topic takes."""
        return AIOKafkaProducer(
            **self._timed(self.timeout),
            **self._options.producer,
            enable_idempotence=True,
            acks="all",
            linger_ms=5,
            max_batch_size=min(MAX_BATCH, max_size),
            max_request_size=max_size,
        )

    def admin(self) -> AIOKafkaAdminClient:
        return AIOKafkaAdminClient(**self._timed(self.timeout))

    def unavailable(self, error: BaseException, doing: str) -> LogUnavailable:
        """Return the error to raise where *doing* something failed."""
        return LogUnavailable(f"Kafka at {self.servers} could not {doing}: {brief(error)}")

    async def diagnose(self) -> str:
        """Say in words why no broker can be reached: aiokafka writes that to its own log only.

        Raises:
            LogMisconfigured: a broker was reached, but it or the client does not trust the other.
        """
        reasons = []
        arguments = {k: v for k, v in self._common.items() if k not in ("bootstrap_servers", "metadata_max_age_ms")}
        for host, port, _ in collect_hosts(self._common["bootstrap_servers"], randomize=False):
            server = f"{host}:{port}"
            try:
                connection = await create_conn(host, port, request_timeout_ms=int(self.timeout * 1_000), **arguments)
            except (OSError, KafkaError, TimeoutError) as error:
                if refused := refusal(error, arguments, certified=self._options.certified):
                    raise LogMisconfigured(f"Kafka at {server} {refused}") from None
                reasons.append(f"{server}: {obstacle(error)}")
            else:
                connection.close()
                reasons.append(f"{server}: {SILENT}")
        return "; ".join(reasons)


_READING: Final[Mapping[str, Any]] = {
    "enable_auto_commit": False,
    "auto_offset_reset": "none",
    "isolation_level": "read_committed",
    "fetch_max_wait_ms": 100,
    # Fetches are small: otherwise the megabytes of one partition would delay all others of its broker.
    "max_partition_fetch_bytes": 262_144,
}


async def bounded(closing: Awaitable[object], seconds: float = CLOSE_TIMEOUT) -> bool:
    """Await the end of a client for a limited time: with a dead broker it may never come. Returns whether it ended well."""
    task = asyncio.ensure_future(closing)
    done, _ = await asyncio.wait({task}, timeout=seconds)
    if not done:
        task.cancel()
    return bool(done) and not task.cancelled() and task.exception() is None


async def stop(consumer: AIOKafkaConsumer) -> None:
    """Stop a consumer, and also the tasks that its own stop leaves running where it fails or hangs."""
    stopped = await bounded(consumer.stop())
    for name in ("_coordination_task", "_heartbeat_task", "_commit_refresh_task"):
        task: asyncio.Task[None] | None = getattr(consumer._coordinator, name, None)
        if task is not None and not task.cancel() and not task.cancelled():
            task.exception()  # it is known already: asyncio must not report it as never retrieved
    if not stopped:
        if consumer._fetcher is not None:
            await bounded(consumer._fetcher.close())
        await bounded(consumer._client.close())


def _quiet() -> None:
    """Silence aiokafka: it logs keys and values at debug, and an outage ten times a second. We get what matters as exceptions."""
    logger = logging.getLogger("aiokafka")
    if logger.level == logging.NOTSET:
        logger.setLevel(logging.CRITICAL)
