"""``python -m tests.soak.strangers PORT KIND COUNT SECONDS``: connections that ask for nothing good.

A process of its own: it needs descriptors of its own, and must not slow down the one that asks for health meanwhile.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import sys
from collections.abc import Mapping

SIZE = 8 * 2**20
SIGNED = 500_000
"""Bytes: within what a system takes whose proof covers the body, so that it has to be read first."""
_AT_ONCE = 100
_BATCH = b"POST /ingest/auth0 HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
_EVENT = _BATCH.replace(b"auth0", b"authgear")

KINDS: Mapping[str, tuple[bytes, int]] = {
    "half": (b"POST /ingest/authgear HTTP/1.1\r\nHost: x\r\nX-A: b", 0),
    "bodies": (_BATCH % SIZE, SIZE - 1),
    "signed-bodies": (_EVENT % SIGNED, SIGNED - 1),
    "idle": (b"", 0),
    "idle-after-one": (b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n", 0),
}
"""What each connection says, and of how many bytes of a body it says that and no more."""


async def stay(port: int, kind: str, seconds: float, turn: asyncio.Semaphore) -> None:
    """Connect, say what *kind* says, and stay until *seconds* are over or the server has had enough."""
    loop = asyncio.get_running_loop()
    head, body = KINDS[kind]
    with socket.socket() as connection, contextlib.suppress(OSError, TimeoutError):
        connection.setblocking(False)
        async with asyncio.timeout(seconds):
            async with turn:
                await loop.sock_connect(connection, ("127.0.0.1", port))
            await loop.sock_sendall(connection, head)
            await loop.sock_sendall(connection, _NOTHING[:body])
            while await loop.sock_recv(connection, 65_536):
                pass


async def main(port: int, kind: str, count: int, seconds: float) -> None:
    os.nice(10)  # real ones have cores of their own
    turn = asyncio.Semaphore(_AT_ONCE)
    await asyncio.gather(*(stay(port, kind, seconds, turn) for _ in range(count)))


_NOTHING = memoryview(bytes(SIZE))

if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), sys.argv[2], int(sys.argv[3]), float(sys.argv[4])))
