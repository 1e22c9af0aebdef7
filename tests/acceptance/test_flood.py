"""A flood of strangers on the real service with few descriptors: health is answered, and memory stays bounded."""

from __future__ import annotations

import asyncio
import resource
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from tests.service import Service, environment, running

FILES = 256
"""Descriptors of the service: less than the connections of the flood."""
MIB = 2**20
MEMORY = 250
"""MiB that the service may hold."""
HALF = b"POST /ingest/authgear HTTP/1.1\r\nHost: x\r\nX-A: b"
BODY = b"POST /ingest/auth0 HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % (8 * MIB) + bytes(MIB)


@asynccontextmanager
async def with_few_files(folder: Path, files: int = FILES) -> AsyncIterator[Service]:
    """A service that may open so many *files*; this process may open as many as ever."""
    env = environment(authgear__webhook_secret="authgear-secret-0001", auth0__webhook_token="auth0-secret-000001")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    start = running(folder, env, cold=True)
    resource.setrlimit(resource.RLIMIT_NOFILE, (files, hard))
    try:
        service = await start.__aenter__()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    try:
        yield service
    finally:
        await start.__aexit__(None, None, None)


def peak(service: Service) -> int:
    """The most memory that the service has held so far, in MiB."""
    status = Path(f"/proc/{service.process.pid}/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1]) // 1024


async def hold(service: Service, data: bytes) -> asyncio.StreamWriter:
    """A connection on which *data* is sent, as far as the service takes it."""
    _, writer = await asyncio.open_connection("127.0.0.1", int(service.url.rpartition(":")[2]))
    writer.write(data)
    return writer


async def test_health_is_answered_in_a_flood(tmp_path: Path) -> None:
    """Silent connections, half requests and unproven bodies, more than there are descriptors: probes get their answers."""
    slowest = 0.0
    async with with_few_files(tmp_path) as service:
        listening = await service.line("listening")
        assert listening["connections"] < FILES
        held: list[asyncio.StreamWriter] = []
        for data in [b""] * 13 + [HALF] * 30 + [BODY] * 3:
            held += await asyncio.gather(*(hold(service, data) for _ in range(10)))
            for path in ("/healthz", "/readyz"):
                begun = time.monotonic()
                assert (await service.get(path))[0] == 200
                slowest = max(slowest, time.monotonic() - begun)
        assert peak(service) < MEMORY
        await service.line("a bound of the HTTP server is reached", bound="connections")
        for writer in held:
            writer.close()
    assert slowest < 10  # generous: the machine may be busy; `make soak` measures


async def test_health_is_answered_where_other_things_have_taken_the_descriptors(tmp_path: Path) -> None:
    """The bound on connections leaves too few files free: what counts is the last descriptor, and some stay free."""
    async with with_few_files(tmp_path, 70) as service:
        listening = await service.line("listening")
        held = [await hold(service, b"") for _ in range(100)]
        assert listening["connections"] + 20 > 70
        for _ in range(3):
            assert (await service.get("/healthz"))[0] == 200
        for writer in held:
            writer.close()
