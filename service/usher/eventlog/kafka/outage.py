"""Outages of Kafka: noticed while nothing is read or written, said with their cause, and ended without a restart if that is possible.

A client knows its brokers from the first start on. It asks for new ones only those that it knows. So where all of them have
come back under other addresses it never finds them, and has to be built anew. The same holds where a certificate or a
password was renewed: what a client was built with stays.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Collection
from datetime import UTC, datetime
from typing import Any, Final

import structlog
from aiokafka.client import AIOKafkaClient
from aiokafka.errors import KafkaError

from usher.eventlog.errors import LogMisconfigured
from usher.eventlog.kafka.client import Clients, bounded
from usher.redact import Ours

_logger = structlog.get_logger(__name__)
_EVERY: Final = 5.0
_SAY_AGAIN: Final = 60.0
_PATIENCE: Final = 60.0
"""Seconds of an outage that can't heal, after which only a new process could help."""
_ATTEMPTS: Final = 3
"""How often the clients are built anew in one outage before that counts as no help."""


class Outages:
    """Watches the clients *in_use*, and calls *rebuild* where they reach no broker although the servers in the settings answer."""

    def __init__(
        self,
        clients: Clients,
        in_use: Callable[[], Collection[AIOKafkaClient]],
        rebuild: Callable[[], Awaitable[None]],
    ) -> None:
        self._clients = clients
        self._in_use = in_use
        self._rebuild = rebuild
        self._began: float | None = None
        self._said: float | None = None
        self._rebuilt = 0
        self._refused = ""

    def needs_restart(self) -> str:
        """As `EventLog.needs_restart`."""
        if self._began is None or _now() - self._began < _PATIENCE:
            return ""
        if self._refused:
            return self._refused
        return "no broker is reached by clients that were built anew" if self._rebuilt >= _ATTEMPTS else ""

    async def watch(self) -> None:
        """Look at the clients every few seconds, until cancelled."""
        while True:
            await asyncio.sleep(_EVERY)
            if await self._reached():
                if self._began is not None:
                    _logger.info(
                        "kafka is reached again", servers=self._clients.servers, after=round(_now() - self._began)
                    )
                self._began = self._said = None
                self._rebuilt, self._refused = 0, ""
            else:
                self._began = _now() if self._began is None else self._began
                await self._heal()

    async def _reached(self) -> bool:
        """Return whether each client reaches a broker. It may be about to reconnect: it is asked twice."""
        for _ in range(2):
            clients = list(self._in_use())
            answers = await asyncio.gather(*(self._reaches_one(client) for client in clients))
            current = self._in_use()  # one that was replaced meanwhile does not count
            if all(good or client not in current for client, good in zip(clients, answers, strict=True)):
                return True
        return False

    async def _reaches_one(self, client: AIOKafkaClient) -> bool:
        """Return whether *client* has a connection, or can make one. A question to a broker that hangs closes its connection."""
        if any(connection.connected() for connection in client._conns.values()):
            return True
        brokers = list(client.cluster.brokers())
        for broker in brokers:
            with contextlib.suppress(KafkaError, TimeoutError):
                async with asyncio.timeout(self._clients.timeout / 2):
                    if await client.ready(broker.nodeId):
                        return True
        return not brokers  # it has not begun yet

    async def _heal(self) -> None:
        if await self._servers_answer():
            self._rebuilt += 1
            _logger.warning(
                "kafka clients are built anew",
                servers=self._clients.servers,
                reason="the servers answer, and the brokers that the clients know do not",
            )
            try:
                await self._rebuild()
            except (KafkaError, TimeoutError):
                self._said = None  # it is over again: say why, at once
            return
        try:
            reason, self._refused = await self._clients.diagnose(), ""
        except LogMisconfigured as refusal:
            reason = self._refused = str(refusal)
        self._say(reason)

    async def _servers_answer(self) -> bool:
        admin = self._clients.admin()
        try:
            async with asyncio.timeout(self._clients.timeout):
                await admin.start()
        except (KafkaError, TimeoutError, OSError):
            return False
        else:
            return True
        finally:
            await bounded(admin.close())

    def _say(self, reason: str) -> None:
        now = _now()
        if self._said is None or now - self._said >= _SAY_AGAIN:
            self._said = now
            began = datetime.fromtimestamp(time.time() - (now - (self._began or now)), UTC)
            _logger.warning(
                "kafka can't be reached",
                servers=self._clients.servers,
                reason=Ours(reason),
                since=began.isoformat(timespec="seconds"),
            )


def _now() -> float:
    return asyncio.get_running_loop().time()


def client_of(owner: Any) -> AIOKafkaClient:
    """Return the connections of a consumer, a producer or an admin client of aiokafka."""
    found: AIOKafkaClient = owner.client if hasattr(owner, "client") else owner._client
    return found
