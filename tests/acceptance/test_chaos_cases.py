"""Moments of a service's life on a real Kafka: aborted transactions, a broker that comes late, a common start, a rolling restart."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from pathlib import Path

import pytest
from aiokafka import AIOKafkaProducer
from tests.chaos.judge import judge
from tests.chaos.run import HANDLERS, REST_WITHIN, Chaos, stage
from tests.engine import raw, until
from tests.kafka import Broker, unique
from tests.service import environment, running

from usher.testing.providers import FakeProviders


@pytest.fixture
def rng() -> random.Random:
    return random.Random(4)


@pytest.mark.timeout(240)
async def test_a_rolling_restart_repeats_nothing(own_kafka: Broker, tmp_path: Path, rng: random.Random) -> None:
    """Each of three workers is ended with SIGTERM and started again, under load at a failing provider: each message once."""
    async with stage(own_kafka, tmp_path, rng) as run:
        run.provider.moods = {"well": 9, "busy": 1}
        flowing = asyncio.create_task(run.traffic.flow())
        for worker in run.fleet.workers:
            await _requests(run, 100)
            await worker.stop()
            await worker.start()
            await worker.ready(run.fleet.http)
        async with run.traffic.flowing:
            flowing.cancel()
        await run.fleet.rest(run.partitions, REST_WITHIN)
        sent = Counter((each.handler, each.event) for each in run.provider.attempts if each.result == "accepted")
        findings = await run.verdict()

    assert findings.holds, findings.broken
    assert findings.deliveries > 600
    assert set(sent.values()) == {1}


async def _requests(run: Chaos, count: int) -> None:
    """Wait until the provider has had *count* more."""
    enough = len(run.provider.attempts) + count
    await until(lambda: len(run.provider.attempts) >= enough)


@pytest.mark.timeout(240)
async def test_what_comes_after_readiness_is_not_lost(own_kafka: Broker, tmp_path: Path, rng: random.Random) -> None:
    """Three workers start together in a new group at ``latest``: all that is appended once one is ready is delivered."""
    async with stage(own_kafka, tmp_path, rng, ready=False, start_from="latest") as run:
        run.provider.healthy = True
        await run.traffic.send(50)
        before = {event.event for event in run.traffic.sent}
        flowing = asyncio.create_task(run.traffic.flow(500))
        first = await _first_ready(run)
        seen = len(run.traffic.sent)
        await run.fleet.ready()
        await until(lambda: len(run.traffic.sent) > seen + 20)
        async with run.traffic.flowing:
            flowing.cancel()
        await run.fleet.rest(run.partitions, REST_WITHIN)
        after = run.traffic.sent[seen:]
        dead_letters, receipts = await run.dead_letters(), await run.receipts()
        findings = judge(
            handlers=HANDLERS,
            sent=run.traffic.sent,
            garbage=[],
            attempts=run.provider.attempts,
            mishaps=[],
            dead_letters=dead_letters,
            receipts=receipts,
        )
        lost = judge(
            handlers=HANDLERS,
            sent=after,
            garbage=[],
            attempts=run.provider.attempts,
            mishaps=[],
            dead_letters=dead_letters,
            receipts=receipts,
        ).lost

    assert lost == [], f"worker {first} was ready first"
    assert not before & {attempt.event for attempt in run.provider.attempts}
    assert findings.repeats_unexplained == findings.twice == findings.unreceipted == []


async def _first_ready(run: Chaos) -> int:
    await asyncio.gather(*(worker.start() for worker in run.fleet.workers))

    async def ready(number: int) -> int:
        await run.fleet.workers[number].ready(run.fleet.http)
        return number

    tasks = [asyncio.create_task(ready(worker.number)) for worker in run.fleet.workers]
    done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    return done.pop().result()


@pytest.mark.timeout(180)
async def test_aborted_records_are_never_acted_on(kafka: Broker, tmp_path: Path) -> None:
    """Of a transactional producer only committed records are sent, and the records that it took back delay nothing."""
    topic, users = unique("events"), [f"kept-{number}" for number in range(6)]
    await kafka.create_topic(topic, 2)
    producer = AIOKafkaProducer(bootstrap_servers=kafka.servers, transactional_id=unique("tx"))
    async with FakeProviders() as provider, producer:
        env = environment(
            event_log=f"kafka://{kafka.servers}", topics=topic, group=unique("usher"), start_from="earliest",
            email="sendgrid", mail_from="Accounts <accounts@example.org>",
            sendgrid__api_key=provider.sendgrid_api_key, sendgrid__base_url=provider.url,
        )  # fmt: skip
        await _transaction(producer, topic, users[:3], kept=True)
        await _transaction(producer, topic, ["gone-1", "gone-2"], kept=False)
        async with running(tmp_path, env) as service:
            await _transaction(producer, topic, ["gone-3", "gone-4"], kept=False)
            await _transaction(producer, topic, users[3:], kept=True)
            await _transaction(producer, topic, ["gone-5"], kept=False)
            await provider.wait_seen(len(users))
            assert await service.end() == 0
        async with running(tmp_path, env):
            await kafka.produce(topic, [(b"last", raw("last"))])
            await provider.wait_seen(len(users) + 1)

    sent = Counter(request.to for request in provider.accepted)
    assert sent == Counter(f"{user}@example.org" for user in [*users, "last"])


async def _transaction(producer: AIOKafkaProducer, topic: str, users: list[str], *, kept: bool) -> None:
    await producer.begin_transaction()
    for user in users:
        await producer.send_and_wait(topic, raw(user), key=user.encode())
    await (producer.commit_transaction() if kept else producer.abort_transaction())


@pytest.mark.timeout(180)
async def test_a_broker_that_is_down_at_the_start_is_waited_for(own_kafka: Broker, tmp_path: Path) -> None:
    """Without its broker the service is alive, not ready, and says what it waits for; it is ready once the broker is there."""
    topic = unique("events")
    await own_kafka.create_topic(topic, 2)
    own_kafka.stop()
    env = environment(
        event_log=f"kafka://{own_kafka.servers}", topics=topic, group=unique("usher"), start_from="earliest"
    )
    async with running(tmp_path, env, ready=False) as service:
        line = await service.line("kafka is not ready")
        assert own_kafka.servers.partition(":")[2] in str(line["servers"])
        assert "Connection refused" in str(line["reason"])
        assert (await service.get("/healthz"))[0] == 200
        assert (await service.get("/readyz"))[0] == 503

        await asyncio.to_thread(own_kafka.start)
        await service.line("ready", within=60)
        assert (await service.get("/readyz"))[0] == 200
        await own_kafka.produce(topic, [(b"kim", raw("kim"))])
        await until(lambda: list((tmp_path / "outbox").glob("*.eml")))
