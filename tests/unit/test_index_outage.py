"""The temporary folder, where the index of parked deliveries lies, fails: an outage like any other."""

from __future__ import annotations

import asyncio
import gc
import sqlite3
import threading
import warnings
from pathlib import Path

import pytest
import structlog
from tests.engine import Bench, Script, raw, until
from tests.fakes.memory_log import MemoryBroker

from usher import Context, Event, RetryPolicy
from usher.engine import claims
from usher.engine.index_file import IndexFile, IndexLost, index_folder, index_trouble
from usher.engine.parking_table import ParkingTable

CANT = "the temporary folder can't be used, trying again"
CAN = "the temporary folder can be used again"

pytestmark = pytest.mark.jumping


@pytest.fixture
def bench() -> Bench:
    return Bench(MemoryBroker(), RetryPolicy(("1s",) * 6, jitter=0))


async def test_a_folder_that_fails_while_it_runs_holds_everything_up_and_is_logged_once(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is read or begun meanwhile, what runs ends, and all goes on in order once the folder can be used again."""
    trouble = ""
    monkeypatch.setattr(claims, "index_trouble", lambda: trouble)
    script, go = Script(), asyncio.Event()

    async def act(event: Event, ctx: Context) -> None:
        if event.id == "slow":
            await go.wait()
        if event.id in {"first", "slow"} and ctx.attempt == 1:
            raise RuntimeError("not yet")

    script.act = act
    with structlog.testing.capture_logs() as lines:
        async with bench.running(script.handler()) as worker:
            await bench.emit(raw("ann", event_id="first"), raw("ann", event_id="second"), raw("bob", event_id="slow"))
            await until(lambda: len(bench.parked()) == 2 and "slow" in [event for _, event, *_ in script.attempts])
            (state,) = worker.claims.states.values()
            trouble = "/tmp/index: No space left on device"
            state.table.file.lose("database or disk is full")
            await bench.emit(raw("eve", event_id="later"))
            await until(lambda: CANT in [line["event"] for line in lines])
            go.set()
            await until(lambda: len(bench.parked()) == 3)  # what ran is parked
            await asyncio.sleep(1.5)  # what is due is due
            assert not worker.ready
            assert script.done == []
            trouble = ""
            await until(lambda: len(script.done) == 4)
            assert worker.ready

    logged = [line["event"] for line in lines if line["event"] in {CANT, CAN}]
    assert logged == [CANT, CAN], "the first two failures are within a minute: one line"
    assert [event for user, event in script.done if user == "ann"] == ["first", "second"]
    assert [event for _, event, *_ in script.attempts].count("slow") == 2


async def test_a_folder_that_can_not_be_used_at_the_start_is_waited_for(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The worker is not ready and does not end; the line names the folder and the way out."""
    trouble = "/tmp/index: Read-only file system"
    monkeypatch.setattr(claims, "index_trouble", lambda: trouble)
    script = Script()
    with structlog.testing.capture_logs() as lines:
        worker = bench.worker([script.handler()])
        task = asyncio.create_task(worker.run())
        await bench.emit(raw("ann"))
        await until(lambda: CANT in [line["event"] for line in lines])
        assert not worker.ready
        trouble = ""
        await until(lambda: script.done)
        worker.stop()
        await task

    (line,) = (line for line in lines if line["event"] == CANT)
    assert "/tmp/index" in line["error"]
    assert "TMPDIR" in line["hint"]


def test_an_index_that_the_disk_refuses_is_lost_as_a_whole() -> None:
    """After the first refusal it answers nothing more: half a change may be in it. What only notes is passed over."""
    table = ParkingTable()
    table.file.change("PRAGMA max_page_count=1")
    with pytest.raises(IndexLost, match="full"):
        table.file.change("CREATE TABLE more (x)")

    assert not table.usable
    table.remove("key")
    table.postpone("key", 1, 1)
    with pytest.raises(IndexLost):
        table.due(0, 0, 1)


def test_the_folder_is_tried_and_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The one that SQLite takes: what can be written is no trouble, and one that is away is passed over."""
    monkeypatch.delenv("SQLITE_TMPDIR", raising=False)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    assert (index_folder(), index_trouble()) == (str(tmp_path), "")

    monkeypatch.setenv("TMPDIR", str(tmp_path / "away"))
    assert index_folder() != str(tmp_path / "away")


def test_a_collector_in_another_thread_may_close_an_index() -> None:
    """The last reference may go in any thread: closing it there is no error."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        table = [ParkingTable()]
        file = table[0].file
        failures: list[BaseException] = []

        def collect() -> None:
            try:
                table.clear()
                gc.collect()
                file.close()
            except sqlite3.Error as error:
                failures.append(error)

        thread = threading.Thread(target=collect)
        thread.start()
        thread.join()

    assert failures == []
    with pytest.raises(IndexLost):
        file.rows("SELECT 1")
    assert isinstance(file, IndexFile)
