"""What the embedded log promises beyond the contract: its file, its disk, its lock, and what it forgets when."""

from __future__ import annotations

import asyncio
import os
import resource
import sqlite3
import stat
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, closing, contextmanager
from pathlib import Path

import pytest
from tests.contract.logs import PATIENCE, Worker, drained, loaded, parked
from tests.engine import until

from usher.delivery import Record
from usher.eventlog.browse import ReceiptsState
from usher.eventlog.errors import LogMisconfigured, LogUnavailable
from usher.eventlog.names import dead_letter_topic, receipts_topic, retry_topic
from usher.eventlog.port import Claim, LogConfig, Position
from usher.eventlog.sqlite import SqliteBrowser, SqliteLog
from usher.testing.clock import Clock

TOPIC = "identity.events"
CONFIG = LogConfig(group="usher", topics=(TOPIC,))
RETRY, DEAD, RECEIPTS = retry_topic("usher", TOPIC), dead_letter_topic("usher", TOPIC), receipts_topic("usher")
DAY = 86_400

CHILD = """
import asyncio, sys
from pathlib import Path
from usher.eventlog.port import LogConfig
from usher.eventlog.sqlite import SqliteBrowser, SqliteLog

class Owner:
    async def claimed(self, claims): self.claim = claims[0]
    async def released(self, claims): ...

async def write(path):
    owner, log = Owner(), SqliteLog(path, LogConfig("usher", ("identity.events",)))
    await log.open(owner)
    async def writer(name):
        for n in range(1_000_000):
            await log.append("identity.events", None, f"{name}-{n}".encode())
            await log.park(owner.claim, name, str(n).encode(), ())
            print(name, n, flush=True)
    await asyncio.gather(*(writer(f"w{n}") for n in range(8)))

async def beside(path):
    async with SqliteBrowser(path, LogConfig("usher", ("identity.events",))) as browser:
        await browser.append("identity.events", b"ada", b"from outside")
        await browser.append("usher.identity.events-retry", b"replay/1", b"{}")

asyncio.run({"write": write, "beside": beside}[sys.argv[1]](Path(sys.argv[2])))
"""


@asynccontextmanager
async def opened(path: Path, clock: Callable[[], float] = time.time) -> AsyncIterator[Worker]:
    worker = Worker(SqliteLog(path, CONFIG, clock=clock), "worker", [])
    await worker.log.open(worker)
    try:
        yield worker
    finally:
        await worker.log.close()


async def scanned(path: Path, topic: str) -> list[Record]:
    async with SqliteBrowser(path, CONFIG, create=True) as browser:
        return await drained(browser.scan(topic))


async def eventually(path: Path, topic: str, expected: Sequence[bytes | None]) -> None:
    """Wait until these are the values of *topic*: retention works in the background."""
    async with asyncio.timeout(PATIENCE):
        while [record.value for record in await scanned(path, topic)] != list(expected):
            """Look again: each look waits for the disk."""


def modes(folder: Path) -> dict[str, int]:
    return {entry.name: stat.S_IMODE(entry.stat().st_mode) for entry in folder.iterdir()}


async def started(mode: str, path: Path) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable, "-c", CHILD, mode, str(path), stdout=asyncio.subprocess.PIPE
    )


@pytest.mark.heavy
async def test_a_killed_worker_loses_nothing_acknowledged(tmp_path: Path) -> None:
    """After kill -9 in the middle of writing, the file opens at once and has all that had been acknowledged."""
    path = tmp_path / "usher.db"
    child = await started("write", path)
    assert child.stdout is not None
    async with asyncio.timeout(PATIENCE):
        lines = [await child.stdout.readline() for _ in range(400)]
        child.kill()
        lines += (await child.stdout.read()).splitlines(keepends=True)
        await child.wait()
    acknowledged = [line.decode().split() for line in lines if line.endswith(b"\n")]

    async with opened(path) as worker:
        stored = {record.value for record in await scanned(path, TOPIC)}
        async with parked(worker, worker.claims[0]) as stream:
            table = {record.key: int(record.value or b"-1") for record in await loaded(stream)}
        assert await worker.log.append(TOPIC, None, b"after")

    assert {f"{name}-{n}".encode() for name, n in acknowledged} <= stored
    assert all(table[name.encode()] >= int(n) for name, n in acknowledged)


@pytest.mark.heavy
async def test_a_worker_sees_what_another_process_writes(tmp_path: Path) -> None:
    """An event and a request that a command writes beside the worker wake its reads, long before their time is up."""
    path = tmp_path / "usher.db"
    async with opened(path) as worker, parked(worker, worker.claims[0]) as stream:
        assert await loaded(stream) == []
        reading = asyncio.create_task(worker.log.read(worker.claims, 10, 10 * PATIENCE))
        child = await started("beside", path)
        async with asyncio.timeout(PATIENCE):
            [batch] = await reading
            request = await anext(stream)
            assert await child.wait() == 0

    assert [record.value for record in batch.records] == [b"from outside"]
    assert isinstance(request, list)
    assert [record.key for record in request] == [b"replay/1"]


async def test_a_second_worker_is_refused(tmp_path: Path) -> None:
    """A file has one worker; the refusal names the file and the process. Once that one has closed, the next may open."""
    path = tmp_path / "usher.db"
    async with opened(path):
        second = SqliteLog(path, CONFIG)
        with pytest.raises(LogMisconfigured, match=rf"usher\.db is in use .*process id {os.getpid()}\b"):
            await second.open(Worker(second, "second", []))
        await second.close()

    async with opened(path) as worker:
        assert await worker.log.writable()


async def test_the_embedded_log_starts_at_its_beginning(tmp_path: Path) -> None:
    """What was emitted before the first run is read, although the default of a new group is the latest."""
    path = tmp_path / "usher.db"
    async with SqliteBrowser(path, CONFIG, create=True) as browser:
        await browser.append(TOPIC, b"ada", b"1")

    async with opened(path) as worker:
        assert CONFIG.start_from == "latest"
        assert [record.value for record in await worker.take(1)] == [b"1"]


@pytest.mark.heavy
async def test_commands_that_come_at_once_make_one_file(tmp_path: Path) -> None:
    """Commands that find no file at the same moment all get their record into the one that is made."""

    async def emit(path: Path, value: bytes) -> None:
        async with SqliteBrowser(path, CONFIG, create=True) as browser:
            await browser.append(TOPIC, None, value)

    for n in range(10):
        path = tmp_path / f"{n}.db"
        await asyncio.gather(*(emit(path, str(n).encode()) for n in range(4)))
        assert sorted(record.value or b"" for record in await scanned(path, TOPIC)) == [b"0", b"1", b"2", b"3"]


async def test_the_file_is_for_its_owner_only(tmp_path: Path) -> None:
    """Events are personal data: nobody else may read the file, nor what SQLite lays beside it."""
    path = tmp_path / "usher.db"
    async with opened(path) as worker:
        await worker.log.append(TOPIC, b"ada", b"1")
        found = modes(tmp_path)

    assert found == dict.fromkeys(("usher.db", "usher.db-wal", "usher.db-shm", "usher.db.lock"), 0o600)


async def test_files_that_others_could_read_are_the_owners_alone_from_then_on(tmp_path: Path) -> None:
    """A file from a backup, or made under another umask, has its companions: all get the mode of a new one."""
    path = tmp_path / "usher.db"
    async with opened(path):
        for name in modes(tmp_path):
            (tmp_path / name).chmod(0o644)
        async with SqliteBrowser(path, CONFIG):
            beside = modes(tmp_path)
    async with opened(path):
        found = modes(tmp_path)

    assert beside == {"usher.db": 0o600, "usher.db-wal": 0o600, "usher.db-shm": 0o600, "usher.db.lock": 0o644}
    assert found == dict.fromkeys(("usher.db", "usher.db-wal", "usher.db-shm", "usher.db.lock"), 0o600)


def _removed(folder: Path) -> None:
    for file in folder.glob("usher.db*"):
        file.unlink()


def _replaced(folder: Path) -> None:
    (folder / "usher.db").rename(folder / "old.db")
    (folder / "usher.db").touch()


def _moved(folder: Path) -> None:
    folder.rename(folder.with_name("elsewhere"))
    folder.mkdir()


def _without(suffix: str) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        (folder / f"usher.db{suffix}").unlink()

    return spoil


@pytest.mark.parametrize("spoil", [_removed, _replaced, _moved, _without("-wal"), _without("-shm"), _without(".lock")])
async def test_nothing_is_acknowledged_into_a_file_that_is_gone(tmp_path: Path, spoil: Callable[[Path], None]) -> None:
    """A clean-up job removes the file, or a restore replaces it, under the worker: no write counts, and it is not ready."""
    async with opened(tmp_path / "usher.db") as worker:
        await worker.log.append(TOPIC, None, b"1")
        assert await worker.log.writable()
        spoil(tmp_path)

        assert not await worker.log.writable()
        with pytest.raises(LogUnavailable, match="removed, or another file took its place"):
            await worker.log.append(TOPIC, None, b"2")


async def test_a_file_that_stays_away_needs_a_restart(tmp_path: Path) -> None:
    """Not at once: it may be put back. Then `/healthz` fails, so that an orchestrator starts a worker on what is there."""
    log = SqliteLog(tmp_path / "usher.db", CONFIG, patience=0.05)
    worker = Worker(log, "worker", [])
    await log.open(worker)
    try:
        assert log.needs_restart() == ""
        _removed(tmp_path)
        assert log.needs_restart() == ""
        await until(log.needs_restart)
        assert "was removed or replaced" in log.needs_restart()
    finally:
        await log.close()


async def test_a_file_that_is_put_back_is_written_again(tmp_path: Path) -> None:
    """Nothing needs a restart once the file is where it was."""
    async with opened(tmp_path / "usher.db") as worker:
        (tmp_path / "usher.db").rename(tmp_path / "away.db")
        with pytest.raises(LogUnavailable):
            await worker.log.append(TOPIC, None, b"1")
        (tmp_path / "away.db").rename(tmp_path / "usher.db")

        await worker.log.append(TOPIC, None, b"2")
        assert await worker.log.writable()


async def test_parking_a_key_again_replaces_it(tmp_path: Path) -> None:
    """The retry topic has one record for each key, the last one, however often it was written."""
    path = tmp_path / "usher.db"
    async with opened(path) as worker:
        [claim] = worker.claims
        for attempt in (b"1", b"2", b"3"):
            await worker.log.park(claim, "a", attempt, [])
            await worker.log.bury(claim, b"a", attempt, [])
            await worker.log.append(TOPIC, b"a", attempt)

    assert [record.value for record in await scanned(path, RETRY)] == [b"3"]
    assert len(await scanned(path, DEAD)) == len(await scanned(path, TOPIC)) == 3


@pytest.mark.heavy
async def test_a_key_that_is_replaced_while_the_table_loads_is_not_missed(tmp_path: Path) -> None:
    """A key that is parked again during the load has been delivered, old or new, when the load says that it is done."""
    async with opened(tmp_path / "usher.db") as worker:
        [claim] = worker.claims
        keys = [f"key-{n:04}" for n in range(1_200)]
        await asyncio.gather(*(worker.log.park(claim, key, b"old", []) for key in keys))

        async with parked(worker, claim) as stream:
            batch = await anext(stream)
            assert isinstance(batch, list)
            assert len(batch) < len(keys)
            await worker.log.park(claim, keys[-1], b"new", [])
            rest = await loaded(stream)

    assert {(record.key or b"").decode() for record in (*batch, *rest)} == set(keys)


async def test_source_records_go_after_a_week_once_they_are_done(tmp_path: Path) -> None:
    """At open, what is older than seven days and below the commit is deleted; what is not committed stays however old."""
    path, clock = tmp_path / "usher.db", Clock()
    async with opened(path, clock) as worker:
        for value in (b"done", b"undone", b"undone too"):
            await worker.log.append(TOPIC, b"ada", value)
        records = await worker.take(3)
        await worker.log.commit({worker.claims[0]: Position(records[1].offset)})

    clock.advance(7 * DAY - 60)
    async with opened(path, clock) as worker:
        await worker.log.append(TOPIC, b"ada", b"new")
        assert [record.value for record in await worker.take(3)] == [b"undone", b"undone too", b"new"]
    assert len(await scanned(path, TOPIC)) == 4

    clock.advance(120)
    async with opened(path, clock):
        await eventually(path, TOPIC, [b"undone", b"undone too", b"new"])


async def test_dead_letters_go_after_ninety_days(tmp_path: Path) -> None:
    """At open, dead letters older than ninety days are deleted, and younger ones are not."""
    path, clock = tmp_path / "usher.db", Clock()
    async with opened(path, clock) as worker:
        await worker.log.bury(worker.claims[0], None, b"old", [])
        clock.advance(60 * DAY)
        await worker.log.bury(worker.claims[0], None, b"young", [])

    clock.advance(31 * DAY)
    async with opened(path, clock):
        await eventually(path, DEAD, [b"young"])


async def test_tombstones_go_after_a_day_where_their_event_is_not_read_again(tmp_path: Path) -> None:
    """A tombstone says that a delivery is done, so it stays while the commit lies below it; what is parked always stays."""
    path, clock = tmp_path / "usher.db", Clock()
    async with opened(path, clock) as worker:
        [claim] = worker.claims
        await worker.log.unpark(claim, "below the commit")
        await worker.log.park(claim, "parked", b"1", [])
        await worker.log.append(TOPIC, b"ada", b"1")
        [record] = await worker.take(1)
        await worker.log.commit({claim: Position(record.offset + 1)})
        await worker.log.unpark(claim, "above the commit")

    clock.advance(2 * DAY)
    async with opened(path, clock):
        await eventually(path, RETRY, [b"1", None])

    assert [record.key for record in await scanned(path, RETRY)] == [b"parked", b"above the commit"]


async def test_offsets_never_start_again(tmp_path: Path) -> None:
    """After everything was deleted a new record lies above the commit, and is read; the lag was never negative."""
    path, clock = tmp_path / "usher.db", Clock()
    async with opened(path, clock) as worker:
        await worker.log.append(TOPIC, b"ada", b"1")
        [record] = await worker.take(1)
        await worker.log.commit({worker.claims[0]: Position(record.offset + 1)})

    clock.advance(30 * DAY)
    async with opened(path, clock) as worker:
        await eventually(path, TOPIC, [])
        [claim] = worker.claims
        assert (await worker.log.ends([claim]))[claim] == claim.start
        await worker.log.append(TOPIC, b"ada", b"2")
        [later] = await worker.take(1)

    assert later.offset > record.offset


@contextmanager
def full_disk(path: Path) -> Iterator[None]:
    """No file of this process may grow beyond what the write-ahead log has reached."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    limit = path.with_name(path.name + "-wal").stat().st_size + 4_096
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


async def test_a_full_disk_is_unavailable_and_passes(tmp_path: Path) -> None:
    """When the disk takes no more, writes raise LogUnavailable and the log is not writable; with space both are as before."""
    path = tmp_path / "usher.db"
    async with opened(path) as worker:
        await worker.log.append(TOPIC, b"ada", b"before")
        with full_disk(path):
            for _ in range(3):
                with pytest.raises(LogUnavailable, match=r"usher\.db"):
                    await worker.log.append(TOPIC, b"ada", b"x" * 100_000)
            failed = [worker.log.park(worker.claims[0], "a", b"x" * 9_000, []) for _ in range(3)]
            outcomes = await asyncio.gather(*failed, return_exceptions=True)
            assert not await worker.log.writable()

        assert await worker.log.writable()
        await worker.log.append(TOPIC, b"ada", b"after")
        assert [record.value for record in await worker.take(2)] == [b"before", b"after"]

    assert {type(outcome) for outcome in outcomes} == {LogUnavailable}


async def test_a_locked_database_is_unavailable_and_passes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While another program has the write lock, writes raise LogUnavailable after a while; reads go on."""
    monkeypatch.setattr("usher.eventlog.sqlite.file._BUSY_SECONDS", 0.05)
    path = tmp_path / "usher.db"
    async with opened(path) as worker:
        await worker.log.append(TOPIC, b"ada", b"before")
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            with pytest.raises(LogUnavailable, match="locked"):
                await worker.log.append(TOPIC, b"ada", b"meanwhile")
            assert [record.value for record in await worker.take(1)] == [b"before"]
            other.execute("ROLLBACK")

        await worker.log.append(TOPIC, b"ada", b"after")
        assert [record.value for record in await worker.take(1)] == [b"after"]


async def test_a_cancelled_append_does_no_harm(tmp_path: Path) -> None:
    """A caller that stops waiting for an append does not disturb the others, nor what comes later."""
    async with opened(tmp_path / "usher.db") as worker:
        appends = [asyncio.create_task(worker.log.append(TOPIC, None, str(n).encode())) for n in range(20)]
        await asyncio.sleep(0)
        for append in appends[::2]:
            append.cancel()
        await asyncio.gather(*appends, return_exceptions=True)
        await worker.log.append(TOPIC, None, b"last")

        kept: list[bytes | None] = []
        while b"last" not in kept:
            kept += [record.value for record in await worker.take(1)]
    assert {str(n).encode() for n in range(1, 20, 2)} <= set(kept)


async def test_a_write_that_is_wrong_spoils_no_other(tmp_path: Path) -> None:
    """A write that can't be made fails alone: those that share its transaction are made."""
    async with opened(tmp_path / "usher.db") as worker:
        wrong = worker.log.append("half a character: \ud800", None, b"wrong")
        outcomes = await asyncio.gather(
            worker.log.append(TOPIC, None, b"1"), wrong, worker.log.append(TOPIC, None, b"2"), return_exceptions=True
        )

        assert [isinstance(outcome, UnicodeEncodeError) for outcome in outcomes] == [False, True, False]
        assert [record.value for record in await worker.take(2)] == [b"1", b"2"]
        assert await worker.log.writable()


async def test_a_closed_log_may_be_opened_again(tmp_path: Path) -> None:
    """The same log opens again after a close, and after a refusal."""
    path = tmp_path / "usher.db"
    log = SqliteLog(path, CONFIG)
    worker = Worker(log, "worker", [])
    async with opened(path):
        with pytest.raises(LogMisconfigured):
            await log.open(worker)

    for n in range(2):
        await log.open(worker)
        await log.append(TOPIC, None, str(n).encode())
        assert [record.value for record in await worker.take(n + 1)] == [str(m).encode() for m in range(n + 1)]
        await log.close()


async def test_a_closed_log_takes_nothing(tmp_path: Path) -> None:
    """After close every write raises LogUnavailable, streams end, and the log is not writable."""
    async with opened(tmp_path / "usher.db") as worker:
        [claim] = worker.claims
    writes: list[Callable[[], Awaitable[object]]] = [
        lambda: worker.log.append(TOPIC, b"ada", b"1"),
        lambda: worker.log.park(claim, "a", b"1", []),
        lambda: worker.log.bury(claim, b"a", b"1", []),
    ]

    for write in writes:
        with pytest.raises(LogUnavailable, match="closed"):
            await write()
    assert [batch async for batch in worker.log.parked(claim)] == []
    assert not await worker.log.writable()


def a_text(path: Path) -> None:
    path.write_text("USHER_EVENT_LOG=sqlite:///usher.db\n" * 100)


def another_program(path: Path) -> None:
    with closing(sqlite3.connect(path)) as db:
        db.execute("CREATE TABLE bookmarks (url TEXT)")


def a_newer_format(path: Path) -> None:
    asyncio.run(scanned(path, TOPIC))
    with closing(sqlite3.connect(path)) as db:
        db.execute("PRAGMA user_version = 99")


def a_damaged_file(path: Path) -> None:
    asyncio.run(scanned(path, TOPIC))
    content = bytearray(path.read_bytes())
    content[100:4_096] = b"\xff" * 3_996
    path.write_bytes(content)


def a_folder(path: Path) -> None:
    path.mkdir()


@pytest.mark.parametrize("spoil", [a_text, another_program, a_newer_format, a_damaged_file, a_folder])
async def test_a_file_that_is_not_ours_is_refused(tmp_path: Path, spoil: Callable[[Path], None]) -> None:
    """A file with something else in it, or a damaged one, is named and left as it is, by the worker and by commands."""
    path = tmp_path / "usher.db"
    await asyncio.to_thread(spoil, path)
    before = None if path.is_dir() else path.read_bytes()

    for _ in range(2):  # the first refusal leaves no lock behind
        log = SqliteLog(path, CONFIG)
        with pytest.raises(LogMisconfigured, match=r"usher\.db (is|has|can't)"):
            await log.open(Worker(log, "worker", []))
    with pytest.raises(LogMisconfigured, match=r"usher\.db"):
        async with SqliteBrowser(path, CONFIG):
            """Never entered."""

    assert before is None or path.read_bytes() == before


async def test_a_link_to_itself_is_refused(tmp_path: Path) -> None:
    """With the name of the setting, and not with a traceback."""
    (tmp_path / "usher.db").symlink_to("usher.db")
    log = SqliteLog(tmp_path / "usher.db", CONFIG)

    with pytest.raises(LogMisconfigured, match="link to itself"):
        await log.open(Worker(log, "worker", []))


async def test_a_folder_that_is_missing_is_named(tmp_path: Path) -> None:
    """A path into a folder that is not there is refused by its name."""
    path = tmp_path / "missing" / "usher.db"
    log = SqliteLog(path, CONFIG)

    with pytest.raises(LogMisconfigured, match="missing"):
        await log.open(Worker(log, "worker", []))


async def test_several_topics_are_read_in_turn(tmp_path: Path) -> None:
    """A topic with a long backlog does not keep the records of another one waiting."""
    config = LogConfig(group="usher", topics=("busy", "quiet"))
    worker = Worker(SqliteLog(tmp_path / "usher.db", config), "worker", [])
    await worker.log.open(worker)
    try:
        await asyncio.gather(*(worker.log.append("busy", None, b"1") for _ in range(50)))
        await worker.log.append("quiet", None, b"2")

        reads = [batch for _ in range(2) for batch in await worker.log.read(worker.claims, 10, PATIENCE)]
    finally:
        await worker.log.close()

    claims: set[Claim] = {batch.claim for batch in reads}
    assert {claim.topic for claim in claims} == {"busy", "quiet"}


# Receipts


@pytest.mark.parametrize("written", [True, False])
async def test_receipts_go_when_their_time_is_over(tmp_path: Path, written: bool) -> None:
    """Each after as long as is set, also where none are written any more. Their offsets go on, so that readers see no other log."""
    path, clock = tmp_path / "usher.db", Clock(1_700_000_000.0)
    async with opened(path, clock) as worker:
        await worker.log.file(worker.claims[0], [b"old", b"older"])
        clock.advance(2 * DAY)
        await worker.log.file(worker.claims[0], [b"young"])
    async with SqliteBrowser(path, CONFIG) as browser:
        before = await browser.receipts_state()
    clock.advance(2 * DAY)

    log = SqliteLog(path, LogConfig("usher", (TOPIC,), receipts=written, keep=3 * DAY), clock=clock)
    await log.open(Worker(log, "worker", []))
    await eventually(path, RECEIPTS, [b"young"])
    await log.close()
    clock.advance(2 * DAY)
    log = SqliteLog(path, LogConfig("usher", (TOPIC,), receipts=written, keep=3 * DAY), clock=clock)
    await log.open(Worker(log, "worker", []))
    await eventually(path, RECEIPTS, [])
    await log.close()

    async with SqliteBrowser(path, CONFIG) as browser:
        after = await browser.receipts_state()
    [(first, end)] = after.partitions.values()
    assert first == end >= before.partitions[0][1]
    assert after.topic_id == before.topic_id != ""


async def test_the_receipts_of_another_file_have_another_id(tmp_path: Path) -> None:
    """A reader that follows them sees that the file was made anew."""
    ids = set()
    for name in ("a.db", "b.db"):
        async with opened(tmp_path / name), SqliteBrowser(tmp_path / name, CONFIG) as browser:
            ids.add((await browser.receipts_state()).topic_id)
    assert len(ids) == 2


async def test_a_file_of_an_usher_without_receipts_has_none_and_takes_some(tmp_path: Path) -> None:
    """Its group began nobody knows where: it is not said to have begun now."""
    path = tmp_path / "usher.db"
    async with opened(path) as worker:
        await worker.log.append(TOPIC, b"ada", b"1")
    with closing(sqlite3.connect(path)) as db, db:
        db.execute("DELETE FROM records WHERE topic = 'usher.checkpoints'")
    async with SqliteBrowser(path, CONFIG) as browser:
        assert await browser.receipts_state() == ReceiptsState("", {0: (4, 4)})
        assert await browser.address_key() is None

    async with opened(path) as worker:
        await worker.log.file(worker.claims[0], [b"1"])

    async with SqliteBrowser(path, CONFIG) as browser:
        assert (await browser.receipts_state()).topic_id
        assert [record.value for record in await drained(browser.receipts({}))] == [b"1"]
        assert await browser.starts() == {}
