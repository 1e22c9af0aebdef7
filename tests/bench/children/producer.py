"""An open loop: events are produced at their times, whether those before them have been dealt with or not."""

from __future__ import annotations

import asyncio
import random
import time

from aiokafka import AIOKafkaProducer
from tests.bench.job import Job, Run, child, peak_memory
from tests.bench.records import USERS, record


async def run(job: Job) -> Run:
    """As many events as the job says are to be read, ``options["rate"]`` of them a second, stamped with when they were due."""
    rate, count, chance = job.options["rate"], job.read, random.Random(1)
    async with AIOKafkaProducer(bootstrap_servers=job.servers) as producer:
        began, sent = time.time(), 0
        while sent < count:
            while sent < count and began + sent / rate <= time.time():
                key, value = record(sent, chance.randrange(USERS), at=began + sent / rate)
                await producer.send(job.topic, key=key, value=value)
                sent += 1
            await asyncio.sleep(0.001)
        await producer.flush()
    return Run(count, 0, time.time() - began, peak_memory())


if __name__ == "__main__":
    child(run)
