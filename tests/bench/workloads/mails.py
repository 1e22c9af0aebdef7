"""The real job: `welcome_email` on Kafka, to users with addresses of their own, with a provider that takes its time."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import replace
from functools import partial

from tests.bench.contenders import BARE_SENDER, USHER, USHER_BEFORE, USHER_RECEIPTS, Contender, python
from tests.bench.job import Job
from tests.bench.outcome import Outcome
from tests.bench.process import Child
from tests.bench.records import people
from tests.bench.scene import Scene
from tests.bench.turns import against, measured
from tests.measures import Measure
from tests.stats import ratio

ANSWERS = (50, 200)
"""Milliseconds until the provider answers."""
_GOALS = {50: (0.55, 0.7), 200: (0.75, 0.9)}
"""What is to be reached of the bare sender, and at best."""
_AT_ONCE = 400
"""Messages under way at once, of Usher (it is the default there) and of the bare sender."""


def welcome(scene: Scene, answer: int) -> Outcome:
    """*answer* is in milliseconds. A run ends after its messages or its time, as the first of them comes."""
    count, limit = (20_000, 60.0) if scene.full else (5_000, 15.0)
    topic = scene.shared_topic("people", lambda: people(count, at=time.time()))
    job = Job(scene.broker.servers, topic, group="", folder="", handled=count, limit=limit, profile=scene.profile)
    with Child(python("provider")(), Job("", "", "", "", work=answer / 1000)) as provider:
        port = provider.ready()["port"]
        job.options.update(port=port, at_once=_AT_ONCE)
        rates = measured(
            f"provider {answer} ms", scene, lambda contender: contender.mails, partial(_job_of, job), unit="message"
        )
    work = f"welcome_email, provider answers in {answer} ms"
    goal, aim = _GOALS[answer]
    return Outcome(
        [
            against(BARE_SENDER, rates, goal, work, aim=aim),
            against(USHER, rates, 0.92, f"{work}, with receipts", us=USHER_RECEIPTS),
            Measure(work, f"CPU a message, of {USHER_BEFORE.title}", _of_before(rates.cpu), 0.65),
            Measure(work, f"peak memory, of {USHER_BEFORE.title}", _of_before(rates.memory), 1.0),
        ],
        rates,
    )


def _job_of(job: Job, contender: Contender) -> Job:
    return replace(job, options={**job.options, "receipts": 1}) if contender is USHER_RECEIPTS else job


def _of_before(figures: Mapping[str, float]) -> float:
    return ratio(figures.get(USHER.name, math.nan), figures.get(USHER_BEFORE.name, math.nan))
