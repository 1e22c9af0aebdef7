"""The embedded log: from a signed webhook to the end of its handler, every event on disk before its call is answered."""

from __future__ import annotations

from dataclasses import replace

from tests.bench.contenders import python
from tests.bench.job import Job
from tests.bench.outcome import Outcome
from tests.bench.process import Child
from tests.bench.scene import Scene
from tests.measures import Measure
from tests.stats import median

SENDERS = 64


def webhooks(scene: Scene) -> Outcome:
    """Many senders at once: their events share the syncs of the disk."""
    count = 50_000 if scene.full else 10_000
    job = Job("", "identity.events", "usher", "", handled=count, options={"senders": SENDERS}, profile=scene.profile)
    rates: list[float] = []
    p99: list[float] = []
    for _ in range(scene.rounds):
        with Child(python("embedded")(), job) as service:
            port = service.ready()["port"]
            with Child(
                python("sender")(), replace(job, options={**job.options, "port": port}, profile=False)
            ) as sender:
                sent = sender.result()
            ended = service.result().figures["ended"]
            if job.profile:
                print(service.stderr)
        rates.append(count / (ended - sent.figures["began"]))
        p99.append(sent.figures["p99"])
        print(
            f"  {rates[-1]:,.0f}/s, answered after p50 {sent.figures['p50']:.1f} ms, p99 {p99[-1]:.1f} ms", flush=True
        )
    work = f"embedded log, {SENDERS} senders of webhooks"
    return Outcome(
        [Measure(work, "durable events to the end of their handlers", median(rates), 2_000, "/s", at_least=True)],
        notes=[f"{work}: a call is answered after {median(p99):.0f} ms at most (p99)"],
    )
