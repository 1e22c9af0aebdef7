"""A SendGrid double that accepts every mail after a while; it reads nothing but lengths, so that it takes little of the machine."""

from __future__ import annotations

import asyncio
from typing import cast

from tests.bench.job import Job, Run, child, say_ready

_ACCEPTED = b"HTTP/1.1 202 Accepted\r\nX-Message-Id: bench\r\nContent-Length: 0\r\n\r\n"
_LENGTH = b"\r\ncontent-length:"


class Connection(asyncio.Protocol):
    """Answers each request that has come whole, *after* so many seconds."""

    def __init__(self, after: float) -> None:
        self._after = after
        self._come = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        self._come += data
        while (end := self._come.find(b"\r\n\r\n") + 4) > 3:
            head = self._come[:end].lower()
            start = head.index(_LENGTH) + len(_LENGTH)
            end += int(head[start : head.index(b"\r\n", start)])
            if len(self._come) < end:
                return
            self._come = self._come[end:]
            asyncio.get_running_loop().call_later(self._after, self._answer)

    def _answer(self) -> None:
        if not self._transport.is_closing():
            self._transport.write(_ACCEPTED)


async def run(job: Job) -> Run:
    """Serve until it is stopped. ``work`` is how long an answer takes."""
    server = await asyncio.get_running_loop().create_server(lambda: Connection(job.work), "127.0.0.1", 0, backlog=1024)
    say_ready(port=server.sockets[0].getsockname()[1])
    await server.serve_forever()
    raise AssertionError("it serves until it is stopped")


if __name__ == "__main__":
    child(run)
