"""The real job: `welcome_email` on Kafka, to users with addresses of their own, with a provider that takes its time."""

from __future__ import annotations

import math
import time

from tests.bench.contenders import BARE_SENDER, USHER, python
from tests.bench.job import Job
from tests.bench.outcome import Outcome, Rates
from tests.bench.process import Child
from tests.bench.records import people
from tests.bench.scene import Scene
from tests.bench.turns import against, measured, memory
from tests.measures import Measure
from tests.stats import ratio

ANSWERS = (50, 200)
"""Milliseconds until the provider answers."""
_GOALS = {50: (0.55, 0.7), 200: (0.75, 0.9)}
"""What is to be reached of the bare sender, and at best."""
_CPU_BEFORE = {50: 1.94, 200: 2.85}
"""CPU a message of commit 470c7ab in units of the bare sender's: a worktree of that commit did this job beside this bare sender, in
turns, 20,000 messages, medians of 3. The bare sender is the yardstick between then and now: the machine may change, it does not."""
_MEMORY_BEFORE = {50: 165, 200: 176}
"""Peaks in MB of 470c7ab in those runs."""
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
            f"provider {answer} ms", scene, lambda contender: contender.mails, lambda _contender: job, unit="message"
        )
    work = f"welcome_email, provider answers in {answer} ms"
    goal, aim = _GOALS[answer]
    return Outcome(
        [
            against(BARE_SENDER, rates, goal, work, aim=aim),
            Measure(work, "CPU a message, of commit 470c7ab's", _cpu_of_before(rates, answer), 0.65),
            memory(rates, _MEMORY_BEFORE[answer], work),
        ],
        rates,
        notes=[
            (
                f"{work}: CPU a message is {_cpu_of_sender(rates):.2f} of the bare sender's; that of commit 470c7ab was "
                f"{_CPU_BEFORE[answer]:.2f} of it, when a worktree of that commit was measured beside this bare sender"
            )
        ],
    )


def _cpu_of_sender(rates: Rates) -> float:
    return ratio(rates.cpu.get(USHER.name, math.nan), rates.cpu.get(BARE_SENDER.name, math.nan))


def _cpu_of_before(rates: Rates, answer: int) -> float:
    return _cpu_of_sender(rates) / _CPU_BEFORE[answer]
