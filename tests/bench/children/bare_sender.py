"""The limit of what sends mails from Python: a task a message, with a limit of those at once, and no bookkeeping at all.

No order, no commits, no retries, no metrics, no log lines: what is lost when it stops is lost.
"""

from __future__ import annotations

import asyncio
import json

import aiohttp
from tests.bench.bare_mail import KEY, BareMail, BareMails, payload
from tests.bench.consumer import consumer_of
from tests.bench.job import Job, Run, Stopwatch, child


async def run(job: Job) -> Run:
    watch, mails, tasks = Stopwatch(job), BareMails(), set[asyncio.Task[None]]()
    at_once = int(job.options["at_once"])
    limit = asyncio.Semaphore(at_once)
    url = f"http://127.0.0.1:{job.options['port']:.0f}/v3/mail/send"
    headers = {"Authorization": f"Bearer {KEY}", "Content-Type": "application/json"}

    async def send(session: aiohttp.ClientSession, mail: BareMail) -> None:
        try:
            async with session.post(url, data=json.dumps(payload(mail)).encode(), headers=headers) as answer:
                answer.raise_for_status()
            watch.did()
        finally:
            limit.release()

    async def read(session: aiohttp.ClientSession) -> None:
        while True:
            batches = await consumer.getmany(timeout_ms=200, max_records=2_000)
            for records in batches.values():
                watch.saw(len(records))
                for record in records:
                    if (mail := mails.of(json.loads(record.value))) is not None:
                        await limit.acquire()
                        task = asyncio.create_task(send(session, mail))
                        tasks.add(task)
                        task.add_done_callback(tasks.discard)

    connector = aiohttp.TCPConnector(limit=at_once)
    async with consumer_of(job) as consumer, aiohttp.ClientSession(connector=connector) as session:
        reading = asyncio.create_task(read(session))
        await watch.over.wait()
        reading.cancel()
    return watch.run()


if __name__ == "__main__":
    child(run)
