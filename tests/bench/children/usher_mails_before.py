"""Usher of commit 470c7ab at the real job, by what had these names then: `tests.bench.contenders` puts its packages first on the path."""
# mypy: ignore-errors
# The packages of today have other names and signatures.

from __future__ import annotations

import asyncio
import functools
from dataclasses import replace
from pathlib import Path

from tests.bench.bare_mail import FROM_ADDRESS, FROM_NAME, KEY, LOGIN_URL, SERVICE
from tests.bench.job import Job, Run, Stopwatch, child
from usher.process import collect_less

from usher import Context, Event, logs
from usher.app import build
from usher.eventlog.kafka import KafkaLog
from usher.settings import Settings
from usher.storage import log_config
from usher_handlers.welcome_email import welcome_email


class WatchedLog(KafkaLog):
    watch: Stopwatch

    async def read(self, claims, limit, wait):
        batches = await super().read(claims, limit, wait)
        if batches:
            self.watch.saw(sum(len(batch.records) for batch in batches))
        return batches


async def run(job: Job) -> Run:
    """It sends 100 at once, and has no setting for that."""
    watch = Stopwatch(job)

    @functools.wraps(welcome_email.function)
    async def counted(event: Event, ctx: Context) -> None:
        await welcome_email.function(event, ctx)
        watch.did()

    settings = Settings(
        log=f"kafka://{job.servers}",
        topics=job.topic,
        group=job.group,
        start_from="earliest",
        http="127.0.0.1:0",
        outbox_dir=Path(job.folder) / "outbox",
        email="sendgrid",
        sendgrid={"api_key": KEY, "base_url": f"http://127.0.0.1:{job.options['port']:.0f}"},
        mail_from=f"{FROM_NAME} <{FROM_ADDRESS}>",
        service_name=SERVICE,
        login_url=LOGIN_URL,
    )
    collect_less()
    logs.configure(settings.log_level, "json", (Path(job.folder) / "usher.log").open("a"))
    log = WatchedLog(job.servers, log_config(settings))
    log.watch = watch
    app = build(settings, log=log, handlers=[replace(welcome_email, function=counted)])
    serving = asyncio.create_task(app.run())
    waiting = asyncio.create_task(watch.over.wait())
    await asyncio.wait([serving, waiting], return_when=asyncio.FIRST_COMPLETED)
    app.stop()
    await serving
    return watch.run()


if __name__ == "__main__":
    child(run)
