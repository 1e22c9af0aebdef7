"""The index of receipts, on each kind of event log: it follows the log, and may be deleted or damaged at any time."""

from __future__ import annotations

import asyncio
import stat
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from tests.contract.logs import Harness
from tests.contract.test_eventlog import logs
from tests.receipts import AT, file, receipt

from usher.operate.progress import ReadingProgress
from usher.operate.receipt_index import ReceiptIndex, ask
from usher.receipts import Receipt
from usher.receipts.keys import AddressKeys
from usher.settings import Settings

__all__ = ["logs"]

KEYS = AddressKeys([b"a key for tests"])


class Reader:
    """Asks the index that lies in *folder*, and keeps what it notes."""

    def __init__(self, logs: Harness, folder: Path) -> None:
        self.settings = Settings.load({"USHER_GROUP": logs.group, "USHER_CACHE_DIR": str(folder)}, env_file=None)
        self.notes: list[str] = []
        self.counts: list[int] = []
        self._logs = logs

    async def ask(self, question: Callable[[ReceiptIndex], list[Receipt]]) -> list[Receipt]:
        async def answer(index: ReceiptIndex) -> list[Receipt]:
            return question(index)

        async with self._logs.browser() as browser:
            return await ask(self.settings, browser, self._progress(), answer)

    def _progress(self) -> ReadingProgress:
        return ReadingProgress(lambda _what, count: self.counts.append(count), self.notes.append)

    @property
    def file(self) -> Path:
        (file,) = self.settings.cache_dir.glob("*.sqlite")
        return file


def ids(receipts: list[Receipt]) -> set[str]:
    return {each.event_id for each in receipts}


async def test_receipts_are_found_by_event_user_address_and_message(logs: Harness, tmp_path: Path) -> None:
    """As they were filed; a user name is found however it is written. Times and failures are found too."""
    worker, reader = await logs.worker(), Reader(logs, tmp_path / "cache")
    address = KEYS.address_hmac("Ann@Example.org", "email")
    first = receipt("e1", username="Ann.B", address=address, key=KEYS.name, provider_id="m-1")
    second = receipt("e2", "dead", offset=1, user_id="u-2", username="lee", reason="rejected", at=AT + 10)
    await file(worker.log, worker.claims[0], [first])
    await file(worker.log, worker.claims[-1], [second])

    assert await reader.ask(lambda index: index.of_events(["e1"])) == [first]
    assert await reader.ask(lambda index: index.of_user(["ann.b"])) == [first]
    assert await reader.ask(lambda index: index.of_user(["u-2"])) == [second]
    assert await reader.ask(lambda index: index.of_address(KEYS.hmacs("ann@EXAMPLE.org", "email"))) == [first]
    assert await reader.ask(lambda index: index.of_message("m-1")) == [first]
    assert await reader.ask(lambda index: index.failed(0)) == [second]
    assert await reader.ask(lambda index: index.failed(AT + 11)) == []
    assert await reader.ask(lambda index: [each for some in index.events(AT + 1) for each in some]) == [second]


async def test_only_what_is_new_is_read(logs: Harness, tmp_path: Path) -> None:
    """And what was read before is still there."""
    worker, reader = await logs.worker(), Reader(logs, tmp_path / "cache")
    await file(worker.log, worker.claims[0], [receipt("e1"), receipt("e2", offset=1)])
    assert ids(await reader.ask(lambda index: index.of_events(["e1", "e2", "e3"]))) == {"e1", "e2"}
    await file(worker.log, worker.claims[0], [receipt("e3", offset=2)])

    assert ids(await reader.ask(lambda index: index.of_events(["e1", "e2", "e3"]))) == {"e1", "e2", "e3"}
    assert reader.counts == [2, 1]
    assert len(await reader.ask(lambda index: index.of_events(["e1", "e2", "e3"]))) == 3
    assert reader.counts == [2, 1]


@pytest.mark.parametrize("damage", ["deleted", "garbage", "emptied", "cut", "other tables"])
async def test_an_index_that_is_deleted_or_damaged_is_made_anew(logs: Harness, tmp_path: Path, damage: str) -> None:
    """The answer is the same."""
    worker, reader = await logs.worker(), Reader(logs, tmp_path / "cache")
    some = [receipt(f"e{number}", offset=number) for number in range(300)]
    await file(worker.log, worker.claims[0], some)
    before = await reader.ask(lambda index: index.of_events(["e7", "e299"]))
    content = reader.file.read_bytes()
    if damage == "deleted":
        reader.file.unlink()
    elif damage == "other tables":
        reader.file.write_bytes(content.replace(b"CREATE TABLE receipts", b"CREATE TABLE r3c31p7s"))
    else:
        reader.file.write_bytes({"garbage": b"no database" * 5_000, "emptied": b"", "cut": content[:9_000]}[damage])

    assert await reader.ask(lambda index: index.of_events(["e7", "e299"])) == before
    assert ids(before) == {"e7", "e299"}
    assert await reader.ask(lambda index: index.of_events(["e7", "e299"])) == before


async def test_two_readers_at_once_find_the_same(logs: Harness, tmp_path: Path) -> None:
    """Also where one of them makes the index anew while the other one reads."""
    worker = await logs.worker()
    readers = [Reader(logs, tmp_path / "cache") for _ in range(4)]
    some = [receipt(f"e{number}", offset=number) for number in range(3_000)]
    await file(worker.log, worker.claims[0], some)

    def answers() -> list[Awaitable[list[Receipt]]]:
        return [each.ask(lambda index: index.of_events(["e0", "e2999"])) for each in readers]

    for found in await asyncio.gather(*answers()):
        assert ids(found) == {"e0", "e2999"}
        assert len(found) == 2
    readers[0].file.write_bytes(b"garbage" * 1_000)
    for found in await asyncio.gather(*answers()):
        assert len(found) == 2


async def test_a_forged_record_is_passed_over_with_a_note(logs: Harness, tmp_path: Path) -> None:
    """What lies before and behind it is found; the note names its place, and nothing of what is in it."""
    worker, reader = await logs.worker(), Reader(logs, tmp_path / "cache")
    claim = worker.claims[0]
    await file(worker.log, claim, [receipt("e1")])
    await worker.log.file(claim, [b"forged!", b"\x09newer", b""])
    await file(worker.log, claim, [receipt("e2", offset=1)])

    assert ids(await reader.ask(lambda index: index.of_events(["e1", "e2"]))) == {"e1", "e2"}
    (note,) = reader.notes
    assert f"{logs.group}.receipts is passed over, {claim.partition}@" in note
    assert "2 more" in note
    assert "forged" not in note


async def test_the_index_is_its_owners_alone(logs: Harness, tmp_path: Path) -> None:
    """The folder is made with 0700, the file with 0600."""
    reader = Reader(logs, tmp_path / "new" / "cache")
    await reader.ask(lambda index: index.of_events(["e1"]))

    assert stat.S_IMODE(reader.settings.cache_dir.stat().st_mode) == 0o700
    assert {stat.S_IMODE(each.stat().st_mode) for each in reader.settings.cache_dir.iterdir()} == {0o600}


async def test_where_no_file_can_be_made_the_index_is_in_memory(logs: Harness, tmp_path: Path) -> None:
    """The answer comes all the same, with a note."""
    worker = await logs.worker()
    (tmp_path / "cache").write_text("a file in the place of the folder")
    reader = Reader.__new__(Reader)
    reader.settings = Settings(group=logs.group).model_copy(update={"cache_dir": tmp_path / "cache" / "below"})
    reader.notes, reader.counts, reader._logs = [], [], logs
    await file(worker.log, worker.claims[0], [receipt("e1")])

    assert ids(await reader.ask(lambda index: index.of_events(["e1"]))) == {"e1"}
    assert "can't be kept at" in reader.notes[0]
