"""A small HTTP proxy on loopback: CONNECT, and requests with a whole URL; it can ask for an account.

async with SmallProxy() as proxy:
    ...
    assert proxy.asked == ["CONNECT api.example.org:443"]
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
from typing import Self
from urllib.parse import urlsplit


class SmallProxy:
    """*account* is ``user:password``; empty: it takes everybody. *asked* are the requests, without what follows in them."""

    def __init__(self, account: str = "") -> None:
        self.asked: list[str] = []
        self.refused = 0
        self._expected = f"basic {base64.b64encode(account.encode()).decode()}" if account else ""

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()

    def url(self, login: str = "") -> str:
        return f"http://{login}{'@' if login else ''}127.0.0.1:{self.port}"

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            method, target, _ = head.split(" ", 2)
            self.asked.append(f"{method} {target}")
            if self._expected and f"proxy-authorization: {self._expected}".lower() not in head.lower():
                self.refused += 1
                writer.write(
                    b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
                )
            elif method == "CONNECT":
                host, _, port = target.rpartition(":")
                await self._tunnel(reader, writer, host, int(port), b"", b"HTTP/1.1 200 Established\r\n\r\n")
            else:
                parts = urlsplit(target)
                await self._tunnel(reader, writer, parts.hostname or "", parts.port or 80, _direct(head), b"")
        writer.close()

    async def _tunnel(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        host: str,
        port: int,
        first: bytes,
        said: bytes,
    ) -> None:
        beyond, onward = await asyncio.open_connection(host, port)
        onward.write(first)
        writer.write(said)
        await asyncio.gather(_copy(reader, onward), _copy(beyond, writer))


def _direct(head: str) -> bytes:
    """The head of a request as the server itself takes it: the path alone, and no header for the proxy."""
    first, *lines = head.split("\r\n")
    method, target, version = first.split(" ")
    kept = [line for line in lines if not line.lower().startswith("proxy-")]
    return "\r\n".join([f"{method} {urlsplit(target).path} {version}", *kept]).encode()


async def _copy(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while chunk := await source.read(65536):
            target.write(chunk)
            await target.drain()
    with contextlib.suppress(OSError, RuntimeError):
        target.close()
