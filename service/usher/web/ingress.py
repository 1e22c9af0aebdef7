"""The webhook ingress: a signed body becomes a record of the log, or an answer that says why not.

Authgear never sends again, so the answers are chosen for what is lost by them: success only once the log has acknowledged,
and a signed document that nobody can decode is stored all the same, to end where an operator sees it.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from aiohttp import ClientError, web
from aiohttp.http_exceptions import HttpProcessingError

from usher import sources
from usher.delivery import Headers
from usher.engine.port import LogError, Place, TooLarge
from usher.event import Undecodable
from usher.metrics import Metrics
from usher.redact import scrub

if TYPE_CHECKING:
    from structlog.typing import FilteringBoundLogger

SOURCE = "authgear"
PATH = f"/ingest/{SOURCE}"
SIGNATURE = "x-authgear-body-signature"
DEFAULT_LIMIT = 512 * 1024
"""Bytes of a body that are read: a stored event with its headers must fit into a Kafka record of 1 MiB, twice over."""

_RETRY_AFTER = "5"
_WARN_EVERY = 60.0


class Sink(Protocol):
    """Where events go: `usher.engine.port.EventLog` is one."""

    async def append(self, topic: str, key: bytes | None, value: bytes, headers: Headers = ()) -> Place: ...


class _Refused(Exception):
    """An answer other than success: *outcome* is the metric's label, *message* goes to the sender."""

    def __init__(self, status: int, outcome: str, message: str) -> None:
        super().__init__(message)
        self.status, self.outcome, self.message = status, outcome, message


@dataclass(slots=True)
class Ingress:
    """What answers ``POST /ingest/authgear``.

    Args:
        sink: takes the events; it has acknowledged when its ``append`` returns.
        topic: the topic they are appended to.
        secrets: the signing secrets, at least one; more than one while they are rotated.
        limit: the largest body taken, in bytes.
        patience: seconds for a body to arrive, and again for the log to acknowledge.
    """

    sink: Sink
    topic: str
    secrets: Sequence[str] = field(repr=False)
    metrics: Metrics
    log: FilteringBoundLogger
    limit: int = DEFAULT_LIMIT
    patience: float = 30.0
    clock: Callable[[], float] = time.monotonic
    _forged: int = field(init=False, default=0)
    _warned_at: float = field(init=False, default=float("-inf"))

    def __post_init__(self) -> None:
        if isinstance(self.secrets, str) or not self.secrets or not all(self.secrets):
            raise ValueError("secrets: at least one is needed and none may be empty; an empty key signs for anybody")

    async def handle(self, request: web.Request) -> web.Response:
        """Answer one call: 200 stored, 202 stored undecoded, 400, 401, 408, 413, 503. Never anything else."""
        try:
            body = await self._body(request)
            self._verify(body, request.headers.get(SIGNATURE, ""))
            outcome = await self._store(body)
        except _Refused as refusal:
            self._count(refusal.outcome)
            return _answer(refusal.status, refusal.message)
        self._count(outcome)
        return _answer(200 if outcome == "stored" else 202, outcome)

    async def _body(self, request: web.Request) -> bytes:
        """The raw body, as it was signed; reading ends as soon as it is too large."""
        too_large = _Refused(413, "too-large", f"the body is larger than {self.limit} bytes")
        if (request.content_length or 0) > self.limit:
            raise too_large
        body = bytearray()
        try:
            async with asyncio.timeout(self.patience):
                while chunk := await request.content.readany():
                    body += chunk
                    if len(body) > self.limit:
                        raise too_large
        except TimeoutError:
            raise _Refused(408, "incomplete", f"the body did not arrive within {self.patience:g} s") from None
        except (web.RequestPayloadError, ClientError, HttpProcessingError):
            raise _Refused(400, "incomplete", "the body ended early, or is not encoded as its headers say") from None
        return bytes(body)

    def _verify(self, body: bytes, given: str) -> None:
        """Compare with what each secret would sign; all are tried, so that the time tells nothing."""
        signature = given.strip().lower().encode("utf-8", "surrogateescape")
        matches = [
            hmac.compare_digest(hmac.new(secret.encode(), body, hashlib.sha256).hexdigest().encode(), signature)
            for secret in self.secrets
        ]
        if not any(matches):
            self._warn()
            raise _Refused(
                401, "bad-signature", f"{SIGNATURE} is missing, or was not made from this body by a known secret"
            )

    async def _store(self, body: bytes) -> str:
        """Append the body, less credentials; the outcome is ``stored`` or ``undecodable``."""
        key, value, reason = _record(body)
        try:
            async with asyncio.timeout(self.patience):
                place = await self.sink.append(self.topic, key, value)
        except TooLarge:
            raise _Refused(413, "too-large", "the log takes no record of this size") from None
        except (LogError, OSError, TimeoutError) as trouble:
            self.log.warning(
                "webhook refused: log down", topic=self.topic, error=scrub(trouble) or type(trouble).__name__
            )
            raise _Refused(503, "log-down", "the log can't be written now; send it again") from None
        self.log.debug("webhook stored", topic=place.topic, partition=place.partition, bytes=len(value), reason=reason)
        return "undecodable" if reason else "stored"

    def _count(self, outcome: str) -> None:
        self.metrics.ingested.labels(source=SOURCE, outcome=outcome).inc()

    def _warn(self) -> None:
        """One line a minute however many there are: a flood of forgeries must not become a flood of lines."""
        self._forged += 1
        now = self.clock()
        if now - self._warned_at >= _WARN_EVERY:
            self.log.warning("webhook refused: bad signature", source=SOURCE, count=self._forged)
            self._forged, self._warned_at = 0, now


def _record(body: bytes) -> tuple[bytes | None, bytes, str]:
    """Key and value to store, and why it is no event where it is none: such a value must get past the prefilter.

    What can't be parsed can't be stripped either, and is stored as it came.
    """
    try:
        document = sources.parse(body)
    except sources.NotJson as refusal:
        raise _Refused(400, "not-json", str(refusal)) from None
    except Undecodable as refusal:
        return None, sources.never_filtered(body), str(refusal)
    kept = sources.strip(document)
    value = body if kept is document else sources.dump(kept)
    try:
        return sources.event_key(sources.decode(value)), value, ""
    except Undecodable as refusal:
        return None, sources.never_filtered(value), str(refusal)


def _answer(status: int, message: str) -> web.Response:
    response = web.json_response({"status" if status < 400 else "error": message}, status=status)
    if status == 503:
        response.headers["Retry-After"] = _RETRY_AFTER
    if status in (408, 413):
        response.force_close()
    return response
