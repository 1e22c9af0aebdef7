"""Signed webhooks from many senders at once, each waiting for its answer before it sends the next."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import time
from collections.abc import Iterator

from tests.bench.job import Job, Run, child, peak_memory
from tests.bench.latencies import Latencies
from tests.bench.records import mix

SECRET = "bench"


async def run(job: Job) -> Run:
    """``began``: when the first call was made, in Unix seconds."""
    calls = iter([_call(value) for _, value in mix(job.handled, at=time.time())])
    latencies = Latencies()
    began = time.time()
    async with asyncio.TaskGroup() as senders:
        for _ in range(int(job.options["senders"])):
            senders.create_task(_send(int(job.options["port"]), calls, latencies))
    return Run(0, job.handled, time.time() - began, peak_memory(), {"began": began, **latencies.figures()})


def _call(body: bytes) -> bytes:
    signature = hmac.new(SECRET.encode(), body, hashlib.sha256).hexdigest()
    head = (
        "POST /ingest/authgear HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
        f"X-Authgear-Body-Signature: {signature}\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


async def _send(port: int, calls: Iterator[bytes], latencies: Latencies) -> None:
    """Raw HTTP: a client library would take as much of the machine as the service does."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    for call in calls:
        began = time.time()
        writer.write(call)
        head = await reader.readuntil(b"\r\n\r\n")
        if not head.startswith(b"HTTP/1.1 2"):
            raise RuntimeError(f"the webhook answered {head.decode(errors='replace')}")
        length = next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
        await reader.readexactly(int(length.split(b":")[1]))
        latencies.add(began)
    writer.close()
    await writer.wait_closed()


if __name__ == "__main__":
    child(run)
