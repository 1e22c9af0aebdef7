"""The clients of aiokafka. Hides how they are set up, and what their errors mean."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Mapping
from typing import Any, Final

import structlog
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.conn import collect_hosts, create_conn
from aiokafka.coordinator.assignors.abstract import AbstractPartitionAssignor
from aiokafka.coordinator.assignors.range import RangePartitionAssignor
from aiokafka.errors import KafkaError

from usher.addresses import KafkaAddress
from usher.eventlog.errors import LogMisconfigured, LogUnavailable
from usher.eventlog.kafka.errors import SILENT, brief, obstacle, refusal
from usher.eventlog.kafka.sieve import Sieve, install
from usher.eventlog.kafka.topic_ids import never_create
from usher.kafka_options import KafkaOptions
from usher.redact import scrub

_logger = structlog.get_logger(__name__)
COMMIT_TIMEOUT: Final = 5.0
CLOSE_TIMEOUT: Final = 5.0
MAX_BATCH: Final = 16_384
_JOIN_MARGIN: Final = 15.0


class Clients:
    """Makes the clients of one event log. They are not started."""

    def __init__(self, address: KafkaAddress, options: KafkaOptions) -> None:
        self.servers = ",".join(address.servers)
        self.timeout = options.request_timeout
        self.generation = 0
        """How often all clients have been built anew: one of an earlier generation has to go."""
        self._options = options
        self._servers = list(address.servers)
        _quiet()
        install()

    @property
    def _common(self) -> dict[str, Any]:
        """What every client is made with. Certificates and secrets are those that are in their files now."""
        try:
            self._options = self._options.renewed()
        except ValueError as error:  # one of two files may be there already: the next client finds both
            _logger.warning("kafka's certificates or secrets can't be read again", error=scrub(error))
        return {**self._options.common, "bootstrap_servers": self._servers}

    def _timed(self, seconds: float) -> dict[str, Any]:
        return {**self._common, "request_timeout_ms": int(seconds * 1_000)}

    @property
    def session(self) -> float:
        """Seconds after which a group puts out a member that sends no heartbeat."""
        return float(self._options.consumer["session_timeout_ms"]) / 1_000

    def member(
        self,
        group: str,
        drain: float,
        assignor: type[AbstractPartitionAssignor] = RangePartitionAssignor,
        sieve: Sieve | None = None,
    ) -> AIOKafkaConsumer:
        """Make a consumer that joins *group*. While it releases its partitions, others wait for *drain* seconds and a margin."""
        rebalance = drain + COMMIT_TIMEOUT + _JOIN_MARGIN
        # A join is answered when all members have joined: a request that gives up before would join a second time.
        return _consumer(
            **self._timed(max(self.timeout, rebalance + 5)),
            **self._options.consumer,
            **_READING,
            group_id=group,
            value_deserializer=sieve,
            rebalance_timeout_ms=int(rebalance * 1_000),
            partition_assignment_strategy=(assignor,),
        )

    def committer(self, group: str) -> AIOKafkaConsumer:
        """Make a consumer that can commit for *group* while the group has no members."""
        return _consumer(**self._timed(self.timeout), **_READING, group_id=group)

    def reader(self, *, committed: bool = True) -> AIOKafkaConsumer:
        """Make a consumer without a group. Not *committed*: it also sees the records of transactions that are open, or aborted."""
        rack = self._options.consumer["client_rack"]
        reading = _READING if committed else {**_READING, "isolation_level": "read_uncommitted"}
        return _consumer(**self._timed(self.timeout), **reading, client_rack=rack)

    @contextlib.asynccontextmanager
    async def reading(self, what: str, *, committed: bool = True) -> AsyncIterator[AIOKafkaConsumer]:
        """Give a `reader` that has started, to read *what*, and stop it.

        Raises:
            LogUnavailable: in place of what the client raises within.
        """
        consumer = self.reader(committed=committed)
        try:
            await consumer.start()
            yield consumer
        except (KafkaError, TimeoutError) as error:
            raise self.unavailable(error, f"read {what}") from error
        finally:
            await stop(consumer)

    def producer(self, max_size: int) -> AIOKafkaProducer:
        """Make a producer whose writes are durable and in order. *max_size* is the largest batch that any topic takes."""
        producer = AIOKafkaProducer(
            **self._timed(self.timeout),
            **self._options.producer,
            enable_idempotence=True,
            acks="all",
            linger_ms=5,
            max_batch_size=min(MAX_BATCH, max_size),
            max_request_size=max_size,
        )
        never_create(producer.client)
        return producer

    def admin(self) -> AIOKafkaAdminClient:
        admin = AIOKafkaAdminClient(**self._timed(self.timeout))
        never_create(admin._client)
        return admin

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
        for host, port, _ in collect_hosts(self._servers, randomize=False):
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
    # Fetches are small: otherwise the megabytes of one partition would delay all others of its broker. Twice as much gave no
    # difference that could be measured and took 10 MB of memory; four times as much saved 10 % of the CPU and took 25 MB.
    "max_partition_fetch_bytes": 262_144,
}


def _consumer(**options: Any) -> AIOKafkaConsumer:
    """Make a consumer that creates no topic by asking for it."""
    consumer = AIOKafkaConsumer(**options)
    never_create(consumer._client)
    return consumer


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
