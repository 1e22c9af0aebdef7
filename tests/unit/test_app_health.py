"""What the probes of a running App say about its event log."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest
from tests.engine import CONFIG, TOPIC, Script, until
from tests.fakes.memory_log import MemoryBroker, MemoryLog

from usher.app import App, build
from usher.delivery import Record
from usher.eventlog.port import Claim, TopicPartition
from usher.settings import Settings
from usher.web import OK


@contextlib.asynccontextmanager
async def serving(broker: MemoryBroker) -> AsyncIterator[App]:
    """An App on a log in memory."""
    settings = Settings.load(
        {"USHER_HTTP": "127.0.0.1:0", "USHER_LOGIN_URL": "https://login.example.org", "USHER_TOPICS": TOPIC},
        env_file=None,
    )
    app = build(settings, event_log=MemoryLog(CONFIG, broker), handlers=[Script().handler()])
    running = asyncio.create_task(app.run())
    try:
        await until(lambda: running.done() or (app.worker is not None and app.worker.ready))
        yield app
    finally:
        app.stop()
        await running


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


async def test_partitions_that_stand_still_make_it_unready_by_name() -> None:
    """Those with one reason are named together; once they go on it is ready again. Alive it is all the time."""
    broker = MemoryBroker(partitions=4)
    async with serving(broker) as app:
        broker.stopped |= {TopicPartition(TOPIC, 1): "run A", TopicPartition(TOPIC, 2): "run A"}
        broker.stopped[TopicPartition(TOPIC, 3)] = "run B"
        checks = await app.ready()
        assert checks["partitions"] == f"{TOPIC}/1, {TOPIC}/2: run A; {TOPIC}/3: run B"
        assert (checks["worker"], checks["event_log"]) == (OK, OK)
        assert set((await app.alive()).values()) == {OK}
        broker.stopped.clear()
        assert set((await app.ready()).values()) == {OK}


async def test_a_worker_whose_claims_were_taken_is_not_ready_until_it_has_others() -> None:
    """No claims at all are ready only where the event log has said that there are none."""
    broker = MemoryBroker()
    async with serving(broker) as app:
        assert app.worker is not None
        await app.worker.claims.released(list(app.worker.claims.states))
        assert (await app.ready())["worker"] != OK
        await app.worker.claims.claimed([])
        assert (await app.ready())["worker"] == OK


async def test_claims_that_are_still_loading_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """A claim that does not get through shows by its partition; the others of the worker do not hide it."""
    broker, read_back = MemoryBroker(partitions=2), asyncio.Event()

    async def slow(_log: MemoryLog, claim: Claim, _window: float, _limit: int) -> AsyncIterator[Sequence[Record]]:
        if claim.partition == 1:
            await read_back.wait()
        for records in list[Sequence[Record]]():
            yield records

    async with serving(broker) as app:
        assert app.worker is not None
        claims = list(app.worker.claims.states)
        await app.worker.claims.released(claims)
        monkeypatch.setattr(MemoryLog, "history", slow)
        await app.worker.claims.claimed(claims)
        await until(lambda: app.worker and app.worker.claims.loaded)
        assert (await app.ready())["worker"] == f"loading {TOPIC}/1"
        read_back.set()
        await until(lambda: app.worker and app.worker.ready)
        assert (await app.ready())["worker"] == OK


async def test_what_only_a_restart_can_end_makes_it_not_alive() -> None:
    """So that an orchestrator restarts it; the answer says why."""
    broker = MemoryBroker()
    async with serving(broker) as app:
        broker.needs_restart = "Kafka refuses the user"
        assert (await app.alive())["event_log"] == "Kafka refuses the user"
        broker.needs_restart = ""
        assert (await app.alive())["event_log"] == OK
