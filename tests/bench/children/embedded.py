"""Usher on the embedded log, which webhooks fill: every event is durable before its call is answered."""

from __future__ import annotations

from pathlib import Path

from tests.bench.children.sender import SECRET
from tests.bench.job import Job, Run, Stopwatch, child, say_ready
from tests.bench.service import ready, serve, settings_of

from usher import Context, Event, on
from usher.app import build
from usher.settings import Settings


async def run(job: Job) -> Run:
    """``ended``: when the last handler did, in Unix seconds."""
    watch = Stopwatch(job)

    @on("user.created")
    async def bench(event: Event, ctx: Context) -> None:
        watch.did()

    tenants = Settings.load({"USHER_AUTHGEAR__WEBHOOK_SECRET": SECRET}, env_file=None).tenants
    settings = settings_of(job, f"sqlite:///{Path(job.folder) / 'usher.db'}", tenants=tenants)
    app = build(settings, handlers=[bench])

    async def measure() -> None:
        await ready(app)
        watch.saw(0)
        say_ready(port=app.port)
        await watch.over.wait()

    await serve(app, measure())
    return watch.run(ended=watch.ended)


if __name__ == "__main__":
    child(run)
