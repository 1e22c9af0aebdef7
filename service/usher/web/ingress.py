"""The webhook ingress: verify a body and append its events to the event log, or answer why not.

Some systems never repeat a call, so no answer may lose an event: success is answered only once the event log has
acknowledged all of a body, and a body that can't be decoded leaves a record too, which ends where an operator sees it.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from aiohttp import ClientError, web
from aiohttp.http_exceptions import HttpProcessingError

from usher.delivery import Headers
from usher.event import EventUid, Undecodable
from usher.eventlog.errors import LogError, TooLarge
from usher.eventlog.port import TopicPartition
from usher.metrics import Metrics
from usher.outcome import Outcome
from usher.redact import scrub
from usher.systems.source import Arrival, Source, event_key, own, too_large, undecoded
from usher.systems.system import BODY_LIMIT
from usher.web.bounds import Crowded
from usher.web.connections import connection_of

if TYPE_CHECKING:
    from structlog.typing import FilteringBoundLogger

_RETRY_AFTER = "5"
_WARN_EVERY = 60.0
_AHEAD = 300.0
"""Seconds that a signed event may be ahead of our clock: one from the future never expires, however often it is sent again."""
_MOST_HALF_STORED = 10_000

Enrich = Callable[[Arrival], Awaitable[Arrival]]
"""Asks the identity system for what an event lacks and routing needs. Raises `usher.outcome.Outcome` if it can't now."""


class Sink(Protocol):
    """Where events are appended: `usher.eventlog.port.EventLog` is a sink."""

    async def append(self, topic: str, key: bytes | None, value: bytes, headers: Headers = ()) -> TopicPartition: ...


class _Refused(Exception):
    """An answer other than success. *outcome* is the label of the metric, *message* goes to the sender."""

    def __init__(self, status: int, outcome: str, message: str) -> None:
        super().__init__(message)
        self.status, self.outcome, self.message = status, outcome, message


@dataclass(slots=True)
class Ingress:
    """Answers ``POST /ingest/<source>`` for one tenant.

    Args:
        sink: takes the events; when its ``append`` returns, it has acknowledged.
        topic: the topic that they are appended to.
        source: verifies a body, and reads it.
        others: tenants with a webhook or poller of their own. This webhook's secret must not be enough to report events of their users.
        enrich: fills in what the source can't know.
        limit: the largest body that is accepted, in bytes.
        body_timeout: seconds for a body to arrive.
        patience: seconds for the event log to acknowledge, and for the identity system to be asked.
    """

    sink: Sink
    topic: str
    source: Source
    metrics: Metrics
    logger: FilteringBoundLogger
    others: Collection[str] = ()
    enrich: Enrich | None = None
    limit: int = BODY_LIMIT
    body_timeout: float = 30.0
    patience: float = 30.0
    clock: Callable[[], float] = time.monotonic
    now: Callable[[], float] = time.time
    _unsaid: dict[str, int] = field(init=False, default_factory=dict)
    _said_at: dict[str, float] = field(init=False, default_factory=dict)
    _half_stored: OrderedDict[EventUid, None] = field(init=False, default_factory=OrderedDict)
    """Events of batches that were stored in part and then refused: the sender repeats the batch, and these are stored already."""

    async def handle(self, request: web.Request) -> web.Response:
        """Answer one call: 200 stored, 202 stored undecoded, 400, 401, 408, 413, 503. There is no other answer."""
        try:
            headers = {name.lower(): value for name, value in request.headers.items()}
            arrivals = await (self._signed if self.source.signs_body else self._announced)(request, headers)
        except Crowded:
            self._count("crowded")
            return _answer(503, "too many calls; send it again")
        except _Refused as refusal:
            self._count(refusal.outcome)
            return _answer(refusal.status, refusal.message)
        outcomes = ["undecodable" if arrival.event is None else "stored" for arrival in arrivals]
        for outcome in outcomes or ["nothing"]:
            self._count(outcome)
        if outcomes and "stored" not in outcomes:
            return _answer(202, "undecodable")
        return _answer(200, "stored" if outcomes else "nothing to store")

    async def _signed(self, request: web.Request, headers: dict[str, str]) -> Sequence[Arrival]:
        """Take a call whose proof is over its body."""
        body = await self._body(request, proven=False)
        self._verify(headers, body)
        with connection_of(request).proven():
            return await self._take(body, headers)

    async def _announced(self, request: web.Request, headers: dict[str, str]) -> Sequence[Arrival]:
        """Take a call whose proof is a header: of a stranger's not even the body is read."""
        self._verify(headers, b"")
        with connection_of(request).proven():
            return await self._take(await self._body(request, proven=True), headers)

    async def _take(self, body: bytes, headers: dict[str, str]) -> Sequence[Arrival]:
        arrivals = await self._read(body, headers)
        await self._store(arrivals)
        return arrivals

    async def _body(self, request: web.Request, *, proven: bool) -> bytes:
        """Read the raw body, as it was signed; stop as soon as it is too large.

        Raises:
            Crowded
        """
        too_large = _Refused(413, "too-large", f"the body is larger than {self.limit} bytes")
        if (request.content_length or 0) > self.limit:
            raise too_large
        try:
            bodies = connection_of(request).bodies
            body = await bodies.read(request.content, self.limit, self.body_timeout, proven=proven)
        except TimeoutError:
            raise _Refused(408, "incomplete", f"the body did not arrive within {self.body_timeout:g} s") from None
        except (web.RequestPayloadError, ClientError, HttpProcessingError):
            raise _Refused(400, "incomplete", "the body ended early, or is not encoded as its headers say") from None
        if body is None:
            raise too_large
        return body

    def _verify(self, headers: dict[str, str], body: bytes) -> None:
        if not self.source.verified(headers, body):
            self._warn("webhook refused: bad signature")
            raise _Refused(401, "bad-signature", self.source.refusal)

    async def _read(self, body: bytes, headers: dict[str, str]) -> Sequence[Arrival]:
        try:
            arrivals = [self._own(arrival) for arrival in self.source.arrivals(body, headers, self.now())]
        except Undecodable as refusal:
            raise _Refused(400, "not-json", str(refusal)) from None
        if self.source.signs_body and any(self._is_ahead(arrival) for arrival in arrivals):
            self._warn("webhook refused: dated ahead of our clock")
            raise _Refused(401, "dated-ahead", f"the event is dated more than {_AHEAD:.0f} s ahead of our clock")
        if self.enrich is None:
            return arrivals
        try:
            async with asyncio.timeout(self.patience):
                return [arrival if arrival.event is None else await self.enrich(arrival) for arrival in arrivals]
        except (Outcome, TimeoutError) as trouble:
            self._log_refusal("webhook refused: the identity system did not answer", trouble)
            raise _Refused(503, "lookup-failed", "the identity system could not be asked; send it again") from None

    def _is_ahead(self, arrival: Arrival) -> bool:
        event = arrival.event
        return event is not None and (event.context.timestamp or 0.0) > self.now() + _AHEAD

    def _own(self, arrival: Arrival) -> Arrival:
        """Return *arrival*, or a stub if this webhook can't speak for its tenant."""
        arrival = own(self.source, arrival)
        event = arrival.event
        if event is None or event.tenant not in self.others:
            return arrival
        reason = (
            f"an event of {event.tenant} came by another tenant's webhook; {event.tenant} has its own webhook or poller"
        )
        return undecoded(event.source, event.tenant, arrival.value, reason)

    async def _store(self, arrivals: Sequence[Arrival]) -> None:
        """Append all arrivals, except those that an earlier, half stored call with the same batch has appended."""
        stored: list[EventUid] = []
        try:
            async with asyncio.timeout(self.patience):
                for arrival in arrivals:
                    uid = arrival.event.uid if arrival.event else None
                    if uid not in self._half_stored:
                        await self._append(arrival, alone=len(arrivals) == 1)
                    if uid is not None:
                        self._half_stored.pop(uid, None)
                        stored.append(uid)
        except TooLarge:
            self._remember(stored)
            raise _Refused(413, "too-large", "the event log takes no record of this size") from None
        except (LogError, OSError, TimeoutError) as trouble:
            self._remember(stored)
            self._log_refusal("webhook refused: event log down", trouble)
            raise _Refused(503, "event-log-down", "the event log can't be written now; send it again") from None

    async def _append(self, arrival: Arrival, *, alone: bool) -> None:
        """Append one arrival. If it is too large and part of a batch, append a stub: a refusal would repeat the batch for ever."""
        key = event_key(arrival.event) if arrival.event else None
        try:
            topic_partition = await self.sink.append(self.topic, key, arrival.value)
        except TooLarge:
            if alone:
                raise
            arrival = too_large(arrival)
            topic_partition = await self.sink.append(self.topic, None, arrival.value)
        self.logger.debug(
            "webhook stored",
            topic=topic_partition.topic,
            partition=topic_partition.partition,
            bytes=len(arrival.value),
            reason=arrival.reason,
        )

    def _remember(self, stored: Sequence[EventUid]) -> None:
        self._half_stored.update(dict.fromkeys(stored))
        while len(self._half_stored) > _MOST_HALF_STORED:
            self._half_stored.popitem(last=False)

    def _log_refusal(self, what: str, trouble: BaseException) -> None:
        self.logger.warning(
            what, source=self.source.name, topic=self.topic, error=scrub(trouble) or type(trouble).__name__
        )

    def _count(self, outcome: str) -> None:
        self.metrics.ingested.labels(source=self.source.name, outcome=outcome).inc()

    def _warn(self, what: str) -> None:
        """Log at most one line a minute: a flood of such calls must not become a flood of lines."""
        count, now = self._unsaid.pop(what, 0) + 1, self.clock()
        if now - self._said_at.get(what, float("-inf")) < _WARN_EVERY:
            self._unsaid[what] = count
        else:
            self._said_at[what] = now
            self.logger.warning(what, source=self.source.name, count=count)


def _answer(status: int, message: str) -> web.Response:
    response = web.json_response({"status" if status < 400 else "error": message}, status=status)
    if status == 503:
        response.headers["Retry-After"] = _RETRY_AFTER
    if status in (408, 413):
        response.force_close()
    return response
