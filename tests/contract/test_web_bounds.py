"""What strangers may hold of the HTTP server: connections, time, bytes. Spoken to over sockets, as they do it."""

from __future__ import annotations

import asyncio
import io
import json
import resource
import socket
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from tests.ingress import PATH, Site, sign

from usher.settings.http import HttpLimits
from usher.systems.auth0.source import Auth0Source
from usher.systems.authgear.source import SIGNATURE, AuthgearSource
from usher.systems.genauth.source import GenAuthSource
from usher.systems.source import Source
from usher.web.connections import RESERVE, connections_within

SECRET = "whsec-0123456789abcdef"
BODY = json.dumps(
    {"id": "01", "type": "user.created", "context": {"triggered_by": "admin_api", "user_id": "u-1"}}
).encode()
LEAST = 2 * RESERVE
"""The smallest number of connections that a server can be bound to."""

GRACE = 5.0
"""Seconds that `WebServer.stop` gives to calls by default."""

Peer = tuple[asyncio.StreamReader, asyncio.StreamWriter]


def signed(body: bytes) -> dict[str, str]:
    return sign(SIGNATURE, body, SECRET)


@asynccontextmanager
async def running(source: Source | None = None, limit: int = 2**19, **limits: Any) -> AsyncIterator[Site]:
    async with Site(source or AuthgearSource([SECRET]), signed, limit=limit, limits=HttpLimits(**limits)) as site:
        yield site


def request(length: int, headers: Mapping[str, str] | None = None, body: bytes = b"") -> bytes:
    """A call of the webhook whose body has *length* bytes, of which *body* is sent."""
    lines = [f"POST {PATH} HTTP/1.1", "Host: x", f"Content-Length: {length}"]
    lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
    return "\r\n".join([*lines, "", ""]).encode() + body


async def peer(site: Site, data: bytes = b"") -> Peer:
    """A connection on which *data* was sent."""
    reader, writer = await asyncio.open_connection("127.0.0.1", site.server.port)
    writer.write(data)
    await writer.drain()
    return reader, writer


async def ended(peer: Peer) -> bytes:
    """What is heard until the server closes the connection."""
    heard = b""
    async with asyncio.timeout(20):
        with suppress(ConnectionError):
            while chunk := await peer[0].read(4096):
                heard += chunk
    peer[1].close()
    return heard


def reached(site: Site, bound: str) -> float:
    return site.metrics.registry.get_sample_value("usher_http_bounds_reached_total", {"bound": bound}) or 0.0


def open_now() -> int:
    """How many files this process has open."""
    return sum(1 for _ in Path("/dev/fd").iterdir())


@asynccontextmanager
async def deaf(site: Site) -> AsyncIterator[None]:
    """A caller who asks until the server has stopped to answer, and never reads."""
    loop, ask = asyncio.get_running_loop(), b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n" * 100
    with socket.socket() as caller:
        caller.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        caller.setblocking(False)
        await loop.sock_connect(caller, ("127.0.0.1", site.server.port))
        with suppress(TimeoutError):
            while True:
                async with asyncio.timeout(2):
                    await loop.sock_sendall(caller, ask)
        yield


@pytest.mark.parametrize("source", [Auth0Source([SECRET]), GenAuthSource([SECRET])], ids=["auth0", "genauth"])
async def test_where_a_header_is_the_proof_a_stranger_is_refused_before_the_body(source: Source) -> None:
    """The answer is there while no byte of the body has come."""
    async with running(source, limit=8 * 2**20) as site:
        reader, writer = await peer(site, request(8 * 2**20, {"authorization": "Bearer wrong"}))
        async with asyncio.timeout(20):
            assert (await reader.readline()).startswith(b"HTTP/1.1 401")
        writer.close()
        assert site.counted("bad-signature") == 1


async def test_a_stranger_who_goes_on_after_the_refusal_is_cut_off() -> None:
    """Of a body that nobody will read only some hundred kilobytes are taken from the wire."""
    async with running(Auth0Source([SECRET]), limit=2**30) as site:
        reader, writer = await peer(site, request(2**30))
        sent = 0
        async with asyncio.timeout(20):
            with suppress(ConnectionError):
                while True:
                    writer.write(bytes(65536))
                    await writer.drain()
                    sent += 65536
        assert sent < 2**28
        assert (await ended((reader, writer)))[:12] in {b"", b"HTTP/1.1 401"}
        assert reached(site, "unproven-bytes") == 1


async def test_strangers_together_cannot_keep_the_worker_at_throwing_away(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond what all may cost in a second no more is taken from the wire; each is still answered, and closed."""
    monkeypatch.setattr("usher.web.connections._THROWN_AWAY_A_SECOND", 0)
    size = 12 * 2**20
    async with running(Auth0Source([SECRET]), limit=2 * size) as site:
        reader, writer = await peer(site, request(size, {"authorization": "Bearer wrong"}))
        async with asyncio.timeout(20):
            assert (await reader.readline()).startswith(b"HTTP/1.1 401")
            writer.write(bytes(size))
            with pytest.raises(ConnectionError):
                await writer.drain()


@pytest.mark.parametrize("length", [100, 900_000], ids=["short", "long"])
@pytest.mark.parametrize("path", [PATH, "/nowhere", "/healthz"])
async def test_an_answer_before_the_end_of_the_body_says_that_the_connection_is_closed(length: int, path: str) -> None:
    """Else a proxy would send another caller's request behind a body of which the rest is thrown away."""
    async with running(Auth0Source([SECRET]), limit=8 * 2**20) as site:
        caller = await peer(
            site, request(length, {"authorization": "Bearer wrong"}).replace(PATH.encode(), path.encode())
        )
        async with asyncio.timeout(20):
            head = await caller[0].readuntil(b"\r\n\r\n")
        assert b"\r\nConnection: close\r\n" in head
        caller[1].close()


async def test_a_refused_call_that_is_whole_leaves_the_connection_to_the_next_caller() -> None:
    """Behind a proxy all callers share few connections: a stranger's short call costs none of them."""
    async with running() as site:
        reader, writer = await peer(site, request(2, body=b"{}") + request(len(BODY), signed(BODY), BODY))
        async with asyncio.timeout(20):
            assert b" 401 " in await reader.readuntil(b"}")
            assert b" 200 " in await reader.readuntil(b"}")
        writer.close()


async def test_a_proven_body_may_be_larger_than_what_a_stranger_may_send() -> None:
    """A batch of megabytes is read whole, once its header is known to be good."""
    async with running(Auth0Source([SECRET]), limit=8 * 2**20, unproven_bytes=1000) as site:
        body = json.dumps([{"type": "user.created", "data": {"object": {"x": "y" * 4 * 2**20}}, "id": "1"}]).encode()
        assert await site.post(io.BytesIO(body), {"authorization": f"Bearer {SECRET}"}) == 200
        assert reached(site, "unproven-bytes") == 0


async def test_beyond_the_bytes_of_unproven_bodies_the_oldest_is_answered_503() -> None:
    """Who sends slowly gives way: a body that comes at once is stored meanwhile."""
    async with running(unproven_bytes=1500) as site:
        slow = await peer(site, request(1001, body=b"x" * 1000))
        second = await peer(site, request(1001, body=b"x" * 1000))
        async with asyncio.timeout(20):
            head = await slow[0].readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 503")
        assert b"Retry-After" in head
        assert await site.post(BODY) == 200
        assert (site.counted("crowded"), reached(site, "unproven-bytes")) == (1, 1)
        for _, writer in (slow, second):
            writer.close()


async def test_one_body_beyond_the_bytes_of_all_is_answered_503() -> None:
    """The bound holds for a single body, too."""
    async with running(unproven_bytes=100) as site:
        assert await site.post(b"x" * 200, {}) == 503
        assert await site.post(BODY[:90], {}) == 401


@pytest.mark.parametrize(
    "data", [b"", b"POST / HTTP/1.1\r\nX-A: b", request(99, body=b"x")], ids=["silent", "half a head", "half a body"]
)
async def test_beyond_the_connections_the_oldest_is_closed_and_health_is_answered(data: bytes) -> None:
    """Strangers hold all connections there are: a health check still gets its answer, and they lose one for it."""
    async with running(connections=LEAST) as site:
        held = [await peer(site, data) for _ in range(LEAST)]
        async with site.client.get("/healthz") as answer:
            assert answer.status == 200
        await ended(held[0])
        assert reached(site, "connections") >= 1
        for _, writer in held:
            writer.close()


async def test_a_connection_whose_answers_nobody_takes_is_closed_whole() -> None:
    """Answers that wait in memory for a caller that never reads do not keep the socket: a descriptor would be lost for each."""
    async with running(connections=LEAST) as site:
        async with deaf(site):
            before = open_now()
            held = [await peer(site) for _ in range(LEAST)]
            async with site.client.get("/healthz") as answer:  # now all of them have been accepted
                assert answer.status == 200
            assert open_now() == before + LEAST + 1 + (LEAST - 1)  # ours, and the server's beside the one of before
        assert reached(site, "connections") == 2
        for _, writer in held:
            writer.close()


async def test_many_connections_that_come_at_once_do_not_take_all_open_files(caplog: pytest.LogCaptureFixture) -> None:
    """They wait in the system until others were closed for them: to be out of descriptors would end accepting for a second or more."""
    async with running(connections=LEAST) as site:
        callers = [socket.socket() for _ in range(8 * LEAST)]
        for caller in callers:  # nothing is awaited, so the server accepts none of them yet
            caller.connect(("127.0.0.1", site.server.port))
        callers[-1].sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
        callers[-1].setblocking(False)
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (open_now() + LEAST + RESERVE, hard))
        try:
            async with asyncio.timeout(20):
                assert b" 200 " in await asyncio.get_running_loop().sock_recv(callers[-1], 4096)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            for caller in callers:
                caller.close()
        assert "system resource" not in caplog.text


async def test_a_stop_waits_for_a_caller_who_takes_no_answer_no_longer_than_for_others() -> None:
    """Once the grace is over: what a stranger does must not make an orchestrator kill the worker."""
    async with running() as site, deaf(site):
        begun = asyncio.get_running_loop().time()
        await site.server.stop()
        assert asyncio.get_running_loop().time() - begun < 1.5 * GRACE


async def test_a_call_on_a_connection_that_was_idle_for_long_is_not_the_oldest() -> None:
    """A proxy keeps connections: a call that has just begun does not give way for how long its connection had nothing to do."""
    async with running(connections=LEAST) as site:
        reader, writer = await peer(site, b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
        async with asyncio.timeout(20):
            await reader.readuntil(b"}}")
            held = [await peer(site) for _ in range(LEAST - 1)]
            writer.write(request(len(BODY), {**signed(BODY), "Expect": "100-continue"}))
            await reader.readuntil(b"100 Continue\r\n\r\n")
            held.append(await peer(site))
            assert await ended(held[0]) == b""
            writer.write(BODY)
            assert b" 200 " in await reader.readline()
        for _, other in [*held, (reader, writer)]:
            other.close()


async def test_a_proven_call_is_not_closed_for_strangers() -> None:
    """A webhook that waits for the event log is older than all strangers, and gets its answer."""
    async with running(connections=LEAST) as site:
        site.shelf.acknowledges.clear()
        call = asyncio.create_task(site.post(BODY))
        await site.shelf.reached.wait()
        held = [await peer(site) for _ in range(2 * LEAST)]
        site.shelf.acknowledges.set()
        assert await call == 200
        for _, writer in held:
            writer.close()


async def test_proven_calls_leave_a_reserve_for_health() -> None:
    """While as many webhooks wait for the log as may, one more hears 503 at once, and health is answered."""
    async with running(connections=LEAST) as site:
        site.shelf.acknowledges.clear()
        busy = [await peer(site, request(len(BODY), signed(BODY), BODY)) for _ in range(LEAST - RESERVE)]
        async with asyncio.timeout(20):
            while site.counted("crowded") == 0:
                assert await site.post(BODY) == 503
        async with site.client.get("/readyz") as answer:
            assert answer.status == 200
        site.shelf.acknowledges.set()
        for reader, writer in busy:
            assert (await reader.readline()).startswith(b"HTTP/1.1 200")
            writer.close()
        assert reached(site, "requests") >= 1


@pytest.mark.parametrize("data", [b"", b"POST / HTTP/1.1\r\nX-A: b"], ids=["silent", "half a head"])
async def test_a_head_that_does_not_come_ends_its_connection(data: bytes) -> None:
    """Nobody waits for ever for a request that was begun or never begun."""
    async with running(head_timeout=0.1) as site:
        assert await ended(await peer(site, data)) == b""
        assert reached(site, "head") == 1


@pytest.mark.parametrize("more", [b"", b"GET /healthz HT"], ids=["silent", "half a head"])
async def test_an_idle_connection_is_closed(more: bytes) -> None:
    """After its last answer a connection waits for the idle time and no longer; that is no bound that somebody reached."""
    async with running(idle_timeout=0.1) as site:
        answer = await ended(await peer(site, b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n" + more))
        assert answer.startswith(b"HTTP/1.1 200")
        assert reached(site, "head") == 0


async def test_a_bound_is_said_once_a_minute_with_its_number() -> None:
    """A flood of connections is no flood of lines."""
    async with running(head_timeout=0.01) as site:
        for number in range(3):
            await ended(await peer(site))
            if number == 1:
                site.now = 61.0
        said = [line for line in site.lines.entries if line["event"] == "a bound of the HTTP server is reached"]
        assert [(line["bound"], line["count"]) for line in said] == [("head", 1), ("head", 2)]


@pytest.mark.parametrize(
    ("wanted", "files", "others", "most"),
    [
        (500, None, 400, 500),
        (500, 1024, 400, 500),
        (500, 1024, 800, 256),
        (500, 256, 400, LEAST),
        (10, None, 400, LEAST),
        (5000, 2048, 400, 1584),
    ],
)
def test_connections_fit_into_the_files_that_may_be_open(
    wanted: int, files: int | None, others: int, most: int
) -> None:
    """What providers need is left to them, a quarter is always ours, and there is always a reserve."""
    assert connections_within(wanted, files, others) == most
