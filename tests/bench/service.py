"""Usher in a contender's process, built as `usher run` builds it: commits, Mark, metrics, logs at info to a file, the web server.

Hides how a child comes by its stopwatch, its readiness and its end.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Collection, Sequence
from pathlib import Path
from typing import Any

from tests.bench.job import Job, Stopwatch

from usher import logs
from usher.addresses import KafkaAddress
from usher.app import App, build
from usher.cli._process import collect_less
from usher.eventlog.kafka import KafkaLog
from usher.eventlog.port import Batch, Claim
from usher.handler import Handler
from usher.settings import Settings
from usher.settings.receipts import ReceiptSettings
from usher.storage import log_config


class WatchedLog(KafkaLog):
    """The log, with a stopwatch on what is read, and a switch: nothing is read while it is off."""

    watch: Stopwatch
    breaker = True

    async def read(self, claims: Collection[Claim], limit: int, wait: float) -> Sequence[Batch]:
        batches = await super().read(claims if self.breaker else (), limit, wait)
        if batches:
            self.watch.saw(sum(len(batch.records) + batch.passed for batch in batches))
        return batches


def settings_of(job: Job, log: str, **settings: Any) -> Settings:
    """The settings that all of the workloads share, and *settings*; logs go to a file from here on."""
    made = Settings(
        **{
            "event_log": log,
            "topics": job.topic,
            "group": job.group,
            "start_from": "earliest",
            "http": "127.0.0.1:0",
            "outbox_dir": Path(job.folder) / "outbox",
            "receipts": ReceiptSettings(on=bool(job.options.get("receipts"))),
            **settings,
        }
    )
    collect_less()
    logs.configure(made.log_level, "json", (Path(job.folder) / "usher.log").open("a"))
    return made


def on_kafka(job: Job, watch: Stopwatch, *handlers: Handler, **settings: Any) -> tuple[App, WatchedLog]:
    """The service for these handlers on the job's broker, and its log."""
    made = settings_of(job, f"kafka://{job.servers}", **settings)
    assert isinstance(made.event_log, KafkaAddress)
    log = WatchedLog(made.event_log, log_config(made), made.kafka)
    log.watch = watch
    return build(made, event_log=log, handlers=handlers), log


async def ready(app: App) -> None:
    """Wait until the service is."""
    while app.worker is None or not app.worker.ready:  # noqa: ASYNC110 - probes ask by themselves: nothing announces it
        await asyncio.sleep(0.005)


async def serve(app: App, until: Awaitable[object]) -> None:
    """Run the service until something has happened, and end it in good order.

    Raises whatever ends the service before.
    """
    serving = asyncio.create_task(app.run())
    waiting = asyncio.ensure_future(until)
    await asyncio.wait([serving, waiting], return_when=asyncio.FIRST_COMPLETED)
    app.stop()
    try:
        await serving
    finally:
        if not waiting.done():
            waiting.cancel()
    await waiting
