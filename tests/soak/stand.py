"""What each phase of the soak stands on: a fleet under load through both doors, and what is measured of its promises in the end."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.chaos.judge import Findings
from tests.chaos.plan import WORKERS
from tests.chaos.run import Chaos, stage
from tests.kafka import Broker
from tests.measures import Measure
from tests.soak.webhooks import SECRET, Webhooks

TOKEN = "the-token-of-the-soak"


@dataclass(frozen=True, slots=True)
class Options:
    """How long and how hard. *flood* is the share of the whole flood that comes."""

    kills: int = 60
    minutes: float = 10.0
    rate: float = 50.0
    outage: float = 45.0
    flood: float = 1.0
    seed: int = 0

    def shorter_than(self, whole: Options) -> bool:
        """Whether it is less of anything: then its figures say less."""
        return any(
            getattr(self, name) < getattr(whole, name) for name in ("kills", "minutes", "rate", "outage", "flood")
        )


@dataclass(frozen=True, slots=True)
class Scene:
    """Where phases play. *say* gets a line for each thing that happens."""

    broker: Broker
    folder: Path
    options: Options
    say: Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Played:
    """What a phase has measured; *notes* are figures without a goal, in words."""

    measures: Sequence[Measure]
    notes: Sequence[str] = field(default_factory=list)

    @property
    def missed(self) -> list[Measure]:
        """The measures whose goal is not reached, or of which it is not known."""
        return [measure for measure in self.measures if not measure.reached]

    def also(self, *measures: Measure) -> Played:
        """The same with these *measures* before the others."""
        return Played([*measures, *self.measures], self.notes)


@dataclass(frozen=True, slots=True)
class Load:
    """A fleet at work: events come through a producer and through webhooks."""

    run: Chaos
    webhooks: Webhooks
    rng: random.Random
    _flowing: asyncio.Task[None]

    async def judged(self, work: str) -> Played:
        """End the load, wait until everything is at rest, and measure what was kept of the promises."""
        async with self.run.traffic.flowing:
            self._flowing.cancel()
        self.run.say("healing")
        await self.run.heal()
        return judged(work, await self.run.verdict(), self.webhooks)


@contextlib.asynccontextmanager
async def under_load(
    scene: Scene, name: str, *, workers: int = WORKERS, descriptors: int | None = None, dedupe_window: str = "10m"
) -> AsyncIterator[Load]:
    """A fleet of its own, ready and under load."""
    folder = scene.folder / name
    folder.mkdir(parents=True)
    rng = random.Random(f"{name} {scene.options.seed}")
    async with stage(
        scene.broker, folder, rng, say=scene.say, workers=workers, descriptors=descriptors,
        authgear__webhook_secret=SECRET, auth0__webhook_token=TOKEN, dedupe_window=dedupe_window,
    ) as run:  # fmt: skip
        webhooks = Webhooks(run.fleet, rng)
        run.traffic.webhook = webhooks.post
        flowing = asyncio.create_task(run.traffic.flow(scene.options.rate))
        try:
            yield Load(run, webhooks, rng, flowing)
        finally:
            flowing.cancel()


def judged(work: str, findings: Findings, webhooks: Webhooks) -> Played:
    """The promises as measures. What is repeated is counted and no measure: a webhook that got no answer is sent again."""
    broken = {
        "deliveries of acknowledged events that were lost": findings.lost,
        "attempts out of order": findings.order,
        "two attempts of a lane at once": findings.twice,
        "attempts of what is not ours": findings.not_ours,
        "dead letters that should not be": findings.dead_letters_unexpected,
        "workers that did not behave": findings.wrong,
    }
    answers = ", ".join(f"{status or 'no answer'}: {count:,}" for status, count in sorted(webhooks.answers.items()))
    unexplained = len(findings.repeats_unexplained)
    repeats = (
        f"{sum(findings.repeats.values()) + unexplained:,} repeats, {unexplained:,} of them without a known reason"
    )
    return Played(
        [Measure(work, what, len(cases), 0) for what, cases in broken.items()],
        [
            f"{findings.events:,} events acknowledged, {findings.deliveries:,} deliveries owed; {repeats}",
            f"webhooks by status: {answers}",
            *(case for cases in broken.values() for case in cases[:5]),
        ],
    )
