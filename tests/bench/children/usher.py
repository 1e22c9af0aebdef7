"""Usher, with everything on: commits, Mark, metrics, logs at info to a file, the web server. Only the handler is ours."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Sequence
from pathlib import Path

from tests.bench.job import Job, Run, Stopwatch, child

from usher import Context, Event, logs, on
from usher.app import App, build, log_config
from usher.engine.port import Batch, Claim
from usher.eventlog.kafka import KafkaLog
from usher.handler import Handler
from usher.settings import Settings


class WatchedLog(KafkaLog):
    """The log, with a stopwatch on what is read."""

    watch: Stopwatch

    async def read(self, claims: Collection[Claim], limit: int, wait: float) -> Sequence[Batch]:
        batches = await super().read(claims, limit, wait)
        if batches:
            self.watch.saw(sum(len(batch.records) for batch in batches))
        return batches


def app_of(job: Job, watch: Stopwatch, handler: Handler) -> App:
    """The service as `usher run` builds it, for one handler."""
    settings = Settings(
        log=f"kafka://{job.servers}",
        topics=job.topic,
        group=job.group,
        start_from="earliest",
        http="127.0.0.1:0",
        outbox_dir=Path(job.folder) / "outbox",
    )
    stream = (Path(job.folder) / "usher.log").open("a")
    logs.configure(settings.log_level, "json", stream)
    log = WatchedLog(settings.log.removeprefix("kafka://"), log_config(settings))
    log.watch = watch
    return build(settings, log=log, handlers=[handler])


async def run(job: Job) -> Run:
    watch = Stopwatch(job)

    @on("user.created")
    async def bench(event: Event, ctx: Context) -> None:
        await asyncio.sleep(job.work)
        watch.did()

    app = app_of(job, watch, bench)
    serving = asyncio.create_task(app.run())
    over = asyncio.create_task(watch.over.wait())
    await asyncio.wait([serving, over], return_when=asyncio.FIRST_COMPLETED)
    app.stop()
    await serving
    return watch.run()


if __name__ == "__main__":
    child(run)
