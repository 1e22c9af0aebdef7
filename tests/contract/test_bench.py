"""The benchmark's children at work on a real broker, with a few records: they use settings and doors as they are today."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace

import pytest
from tests.bench.contenders import BARE_SENDER, USHER, USHER_BEFORE, Command, Contender, present, python
from tests.bench.job import Job, Run
from tests.bench.process import Child
from tests.bench.records import mix, people
from tests.bench.scene import Scene
from tests.kafka import Broker, unique

pytestmark = pytest.mark.heavy
COUNT = 40


@pytest.fixture
def scene(kafka: Broker) -> Scene:
    return Scene(kafka, [], full=False, rounds=1, profile=False)


@pytest.fixture
def provider() -> Iterator[float]:
    """The port of SendGrid's double."""
    with Child(python("provider")(), Job("", "", "", "", work=0.01)) as double:
        yield double.ready()["port"]


def done(command: Command, job: Job) -> Run:
    with Child(command(), replace(job, group=unique("bench"), limit=30.0)) as child:
        return child.result()


@pytest.mark.parametrize(
    ("module", "handlers"),
    [("usher", 1), ("usher", 3), ("lanes", 1)],
    ids=["usher", "three-handlers", "validating-lanes"],
)
def test_every_record_is_handled_once_by_each_handler_that_reads(scene: Scene, module: str, handlers: int) -> None:
    """A child ends when all of its handlers did, long before its time is over."""
    topic = scene.topic("bench", mix(COUNT, at=time.time()))
    job = Job(scene.broker.servers, topic, "", "", handled=COUNT * handlers, options={"reads": 1, "handlers": handlers})
    run = done(python(module), job)
    assert (run.handled, run.seconds < 20) == (COUNT * handlers, True)
    assert run.cpu > 0


@pytest.mark.parametrize("contender", [USHER, BARE_SENDER, USHER_BEFORE], ids=lambda each: each.name)
def test_the_real_job_sends_every_mail(scene: Scene, provider: float, contender: Contender) -> None:
    """The double accepts them, so each is counted."""
    if contender.title in present([contender])[1]:
        pytest.skip("a shallow clone has no Usher of before")
    assert contender.mails is not None
    topic = scene.topic("bench", people(COUNT, at=time.time()))
    job = Job(scene.broker.servers, topic, "", "", handled=COUNT, options={"port": provider, "at_once": 10})
    run = done(contender.mails, job)
    assert (run.handled, run.seconds < 20) == (COUNT, True)


def test_the_embedded_log_takes_the_senders_webhooks() -> None:
    """They are signed with the secret that the service has."""
    job = Job("", "identity.events", "usher", "", handled=COUNT, limit=30.0, options={"senders": 4})
    with Child(python("embedded")(), job) as service:
        port = service.ready()["port"]
        sent = done(python("sender"), replace(job, options={**job.options, "port": port}))
        assert (sent.handled, service.result().handled) == (COUNT, COUNT)
