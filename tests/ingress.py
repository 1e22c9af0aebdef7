"""A running server with one source's ingress, and bodies with credentials hidden in them; hides how the two are wired up.

async with Site(Authgear([SECRET]), lambda body: sign(SIGNATURE, body, SECRET)) as site:
    assert await site.post(body) == 200
    assert site.kept[0].key == b"u-1"
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Self

import aiohttp
import structlog
from hypothesis import given, settings
from hypothesis import strategies as st
from structlog.testing import CapturingLogger, LogCapture

from usher.delivery import Headers
from usher.eventlog.errors import TooLarge
from usher.eventlog.port import TopicPartition
from usher.metrics import Metrics
from usher.settings.http import HttpLimits
from usher.systems.source import Source
from usher.web import OK, Bounds, Ingress, WebServer, build_web

PATH = "/ingest/here"
Prove = Callable[[bytes], Mapping[str, str]]
"""The headers with which a body proves where it is from."""

_AHEAD = "webhook refused: dated ahead of our clock"
"""A call that says so is answered 401; one with a wrong proof would leave another line."""


class Kept(NamedTuple):
    """What was appended."""

    topic: str
    key: bytes | None
    value: bytes


class Shelf:
    """A sink that keeps what it is given; it acknowledges while *acknowledges* is set.

    It raises *trouble* once it has kept as many as there is *room* for, and takes nothing above *largest* bytes.
    """

    def __init__(self) -> None:
        self.kept: list[Kept] = []
        self.trouble: BaseException | None = None
        self.room = 0
        self.largest = 10**9
        self.reached = asyncio.Event()
        self.acknowledges = asyncio.Event()
        self.acknowledges.set()

    async def append(self, topic: str, key: bytes | None, value: bytes, headers: Headers = ()) -> TopicPartition:
        self.reached.set()
        await self.acknowledges.wait()
        if self.trouble is not None and len(self.kept) >= self.room:
            raise self.trouble
        if len(value) > self.largest:
            raise TooLarge(f"{len(value)} bytes")
        self.kept.append(Kept(topic, key, value))
        return TopicPartition(topic, 0)


class Vitals:
    """Health as the test wants it."""

    def __init__(self) -> None:
        self.alive_checks: dict[str, str] = {"loop": OK, "polling": OK}
        self.ready_checks: dict[str, str] = {"claims": OK, "event_log": OK}
        self.trouble: Exception | None = None

    async def alive(self) -> Mapping[str, str]:
        return self.alive_checks

    async def ready(self) -> Mapping[str, str]:
        if self.trouble is not None:
            raise self.trouble
        return self.ready_checks


class Site:
    """A server with everything around it, and a client that speaks to it; *options* are the `Ingress`'s.

    Without a *source* nothing is served at `PATH`.
    """

    def __init__(
        self, source: Source | None, prove: Prove, *, limits: HttpLimits | None = None, **options: Any
    ) -> None:
        self.shelf, self.vitals, self.metrics = Shelf(), Vitals(), Metrics()
        self.lines = LogCapture()
        self.now = 0.0
        self._source, self._prove = source, prove
        logger = structlog.wrap_logger(CapturingLogger(), processors=[self.lines], wrapper_class=structlog.BoundLogger)
        self.bounds = Bounds(self.metrics, logger, clock=lambda: self.now)
        ingresses = {}
        if source is not None:
            ingresses[PATH] = Ingress(
                self.shelf, "identity.events", source, self.metrics, logger, clock=lambda: self.now, **options
            )
        web = build_web(vital=self.vitals, metrics=self.metrics, logger=logger, ingresses=ingresses)
        self.server = WebServer(web, "127.0.0.1", 0, limits=limits or HttpLimits(), bounds=self.bounds)

    async def __aenter__(self) -> Self:
        await self.server.start()
        url = f"http://127.0.0.1:{self.server.port}"
        self.client = aiohttp.ClientSession(url, timeout=aiohttp.ClientTimeout(20), skip_auto_headers=["Content-Type"])
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.client.close()
        await self.server.stop()

    @property
    def kept(self) -> list[Kept]:
        return self.shelf.kept

    async def post(self, body: Any, headers: Mapping[str, str] | None = None) -> int:
        """The status of the answer to *body*, with its proof where no *headers* are given."""
        sent = self._prove(body) if headers is None else headers
        async with self.client.post(PATH, data=body, headers=sent) as answer:
            await answer.read()
            assert "Server" not in answer.headers
            return answer.status

    def counted(self, outcome: str) -> float:
        labels = {"source": self._source.name if self._source else "", "outcome": outcome}
        return self.metrics.registry.get_sample_value("usher_ingested_total", labels) or 0.0

    def is_unharmed(self) -> None:
        """Assert that no line is worse than a note, but for what is dated ahead, and that no credential was kept."""
        worse = [line for line in self.lines.entries if line["log_level"] not in {"debug", "info"}]
        worse = [line for line in worse if line["event"] != _AHEAD]
        assert not worse, worse
        assert [kept for kept in self.kept if HIDDEN.encode() in kept.value] == []


def sign(header: str, body: bytes, secret: str) -> dict[str, str]:
    """HMAC-SHA256 of *body*, in hexadecimal, as Authgear and Keycloak send it."""
    return {header: hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()}


# Bodies of every kind.

HIDDEN = "Hidden-Credential-7f3a"
LEAVES = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=12)
)


def hidden(names: st.SearchStrategy[str]) -> st.SearchStrategy[dict[str, Any]]:
    """`HIDDEN` under one of *names*, bare or in something."""
    shapes = st.sampled_from([HIDDEN, [HIDDEN], {"x": HIDDEN}, [{"x": HIDDEN}]])
    return st.tuples(names, shapes).map(lambda pair: dict([pair]))


def documents(
    leaves: st.SearchStrategy[Any], names: st.SearchStrategy[str], max_leaves: int = 15
) -> st.SearchStrategy[Any]:
    """JSON documents of *leaves*, with fields called *names*."""
    return st.recursive(
        leaves,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=5),
        max_leaves=max_leaves,
    )


async def bombard(
    site: Site,
    bodies: st.SearchStrategy[bytes],
    check: Callable[[int], None] = lambda _status: None,
    *,
    examples: int = 150,
) -> None:
    """Post *bodies* with their proof; assert after each that it was answered and did no harm; *check*, given the status, asserts more.

    All three answers must come, and some bodies must hold a credential: were nothing tried, nothing would be shown.
    """
    loop, statuses, credentials = asyncio.get_running_loop(), set(), 0

    @settings(max_examples=examples, deadline=None)
    @given(body=bodies)
    def post(body: bytes) -> None:
        nonlocal credentials
        site.kept.clear()
        status = asyncio.run_coroutine_threadsafe(site.post(body), loop).result(30)
        assert status in {200, 202, 400, 401}, status
        site.is_unharmed()
        check(status)
        statuses.add(status)
        credentials += HIDDEN.encode() in body

    await asyncio.to_thread(post)
    assert statuses - {401} == {200, 202, 400}
    assert credentials > 10
