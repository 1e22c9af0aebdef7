"""The real job: `welcome_email` on Kafka, to users with addresses of their own, with a provider that takes its time."""

from __future__ import annotations

import time

from tests.bench.contenders import BARE_SENDER, python
from tests.bench.job import Job
from tests.bench.outcome import Outcome
from tests.bench.process import Child
from tests.bench.records import people
from tests.bench.scene import Scene
from tests.bench.turns import against, measured

ANSWERS = (50, 200)
"""Milliseconds until the provider answers."""
_GOALS = {50: 0.55, 200: 0.75}
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
            f"mail, provider {answer} ms", scene, lambda contender: contender.mails, lambda _contender: job
        )
    return Outcome(
        [against(BARE_SENDER, rates, _GOALS[answer], f"welcome_email, provider answers in {answer} ms")], rates
    )
