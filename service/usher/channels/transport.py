"""The one HTTP session that carries every request to a provider, and knows whether anything of a request had left.

It hides aiohttp: its pool, its timeouts, and how its tracing shows that the first byte is about to go out.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping
from types import SimpleNamespace
from typing import TYPE_CHECKING, NamedTuple

import aiohttp
from aiohttp import hdrs
from yarl import URL

from usher.channels import Progress
from usher.channels.answers import Failure, NoAnswer, Table, settle, sort, sort_failure
from usher.http import Answer, read_body
from usher.outcome import OnUnknown
from usher.proxies import Proxies

if TYPE_CHECKING:
    from aiohttp.connector import Connection
    from aiohttp.http import RawResponseMessage

_BODY_LIMIT = 64 * 1024
_MOST_HEADS, _HEADS_LIMIT = 32, 64 * 1024
"""Heads of one answer, its interim answers (1xx) included, and the bytes of their headers, all in all."""
_HEADER_LIMIT = 32 * 1024
"""Bytes of one header; what a network before a provider adds may be longer than the 8 kB that aiohttp takes by itself."""
_KEEP_ALIVE = 15.0
"""Seconds an idle connection is kept: shorter than providers and the balancers before them do (60 s and up). A connection
that they close while a request is on its way in makes that request's outcome unknown."""


class TooManyInterimAnswers(aiohttp.ClientPayloadError):
    """A server sends interim answers without an end, or heads without measure."""


class _Response(aiohttp.ClientResponse):
    """A response with a bounded number of heads: read one after the other without an end they would hold the event loop."""

    async def start(self, connection: Connection) -> aiohttp.ClientResponse:
        protocol = connection.protocol
        assert protocol is not None  # noqa: S101 - the connection has just been made
        read, heads, size = protocol.read, 0, 0

        async def read_within_bounds() -> tuple[RawResponseMessage, aiohttp.StreamReader]:
            nonlocal heads, size
            message, payload = await read()
            heads += 1
            size += sum(len(name) + len(value) for name, value in message.raw_headers)
            if heads > _MOST_HEADS or size > _HEADS_LIMIT:
                raise TooManyInterimAnswers
            return message, payload

        protocol.read = read_within_bounds  # type: ignore[method-assign]
        try:
            return await super().start(connection)
        finally:
            del protocol.read  # the connection is used again


class _Ours(NamedTuple):
    """Marks a request of a provider: the session also carries requests of handlers, which have no progress."""

    progress: Progress


class Transport:
    """An async context manager; one for a process.

    Args:
        total: seconds for one request, all in all. Below a handler's timeout, so that the request ends by itself.
        connect: seconds to get a connection, name look-up and TLS included.
        read: seconds without a byte of the answer.
        connections: at most so many at once to one host, so that look-ups of users take no connection from sends.
            0: no limit.
        proxies: by which proxy each URL is reached.
    """

    def __init__(
        self,
        *,
        total: float = 30.0,
        connect: float = 10.0,
        read: float = 20.0,
        connections: int = 0,
        proxies: Proxies | None = None,
    ) -> None:
        self._proxies = proxies or Proxies()
        self._timeout = aiohttp.ClientTimeout(total=total, connect=connect, sock_connect=connect, sock_read=read)
        self._connections = connections
        self._session: aiohttp.ClientSession | None = None

    @property
    def session(self) -> aiohttp.ClientSession:
        """The session itself, for handlers' own requests.

        Raises:
            RuntimeError: outside of ``async with``.
        """
        if self._session is None:
            raise RuntimeError("the transport is closed; use it inside `async with`")
        return self._session

    async def __aenter__(self) -> Transport:
        trace = aiohttp.TraceConfig()
        trace.on_request_headers_sent.append(_about_to_leave)
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, limit_per_host=self._connections, keepalive_timeout=_KEEP_ALIVE),
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=self._timeout,
            trace_configs=[trace],
            response_class=_Response,
            max_field_size=_HEADER_LIMIT,
            middlewares=[self._by_proxy] if self._proxies.by_scheme else (),
            trust_env=False,  # it would also send what ~/.netrc has for a host
        )
        return self

    async def _by_proxy(
        self, request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
    ) -> aiohttp.ClientResponse:
        if request.proxy is None and (proxy := self._proxies.way_to(str(request.url))) is not None:
            account = (
                {hdrs.PROXY_AUTHORIZATION: aiohttp.encode_basic_auth(proxy.user, proxy.password)} if proxy.user else {}
            )
            request.update_proxy(URL(str(proxy)), None, account)
            if not request.is_ssl():  # there is no tunnel: the proxy reads the request itself
                request.headers.update(account)
        return await handler(request)

    async def __aexit__(self, *exc: object) -> None:
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    async def post(self, url: str, body: bytes, headers: Mapping[str, str], progress: Progress) -> Answer:
        """POST once, following nothing and repeating nothing. Moves *progress* from ``new`` to ``left``.

        Raises:
            NoAnswer
        """
        try:
            async with self.session.post(
                url, data=body, headers=headers, allow_redirects=False, trace_request_ctx=_Ours(progress)
            ) as response:
                if response.status // 100 == 2:
                    progress.state = "sent"  # before the body is read: a cancellation there changes nothing any more
                body = b""
                with contextlib.suppress(
                    aiohttp.ClientError, TimeoutError, OSError
                ):  # the status has said what matters
                    body = await read_body(response, _BODY_LIMIT)
                return Answer(response.status, response.headers, body)
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            # Without the cause: its text holds the URL, and with it the account.
            raise NoAnswer(_failure(error), left=progress.state != "new", detail=_detail(error)) from None


async def deliver(
    transport: Transport,
    table: Table,
    *,
    url: str,
    body: bytes,
    headers: Mapping[str, str],
    progress: Progress,
    otherwise: OnUnknown,
) -> Answer:
    """POST a message, and sort what comes of it by *table*. Returns the answer with which it was accepted.

    Raises:
        usher.outcome.Retry, usher.outcome.Reject, usher.outcome.Unknown, usher.channels.ProviderRefused
    """
    answer = Answer(0, {}, b"")
    try:
        answer = await transport.post(url, body, headers, progress)
    except NoAnswer as error:
        finding = sort_failure(table.provider, error)
    else:
        finding = sort(table, answer, time.time())
        progress.state = "sent" if finding.sort == "done" else "back"
    settle(finding, otherwise=otherwise)
    return answer


async def _about_to_leave(
    _session: aiohttp.ClientSession, context: SimpleNamespace, _params: aiohttp.TraceRequestHeadersSentParams
) -> None:
    # aiohttp calls this just before it writes the headers, so that "left" is never late.
    if isinstance(context.trace_request_ctx, _Ours):
        context.trace_request_ctx.progress.state = "left"


def _failure(error: Exception) -> Failure:
    if isinstance(error, TimeoutError):
        return "timeout"
    return "connect" if isinstance(error, aiohttp.ClientConnectorError | aiohttp.ClientHttpProxyError) else "broken"


def _detail(error: Exception) -> str:
    if isinstance(error, aiohttp.ClientHttpProxyError):
        return f"the proxy answered {error.status}"
    system = getattr(error, "os_error", error)
    reason = system.strerror if isinstance(system, OSError) else None
    return f"{type(error).__name__}: {reason}" if reason else type(error).__name__
