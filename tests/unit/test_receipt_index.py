"""What the index of receipts does when the event log's receipts are not those that it has read."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path

import pytest
from tests.fakes.memory_broker import MemoryBroker
from tests.fakes.memory_log import MemoryBrowser
from tests.receipts import receipt

from usher.eventlog.names import receipts_topic
from usher.eventlog.port import LogConfig, TopicPartition
from usher.operate import receipt_file
from usher.operate.progress import ReadingProgress
from usher.operate.receipt_index import ReceiptIndex, ask
from usher.receipts import Receipt, pack
from usher.settings import Settings

TOPIC = receipts_topic("usher")
HERE = TopicPartition(TOPIC, 0)


async def found(
    broker: MemoryBroker, folder: Path, events: Sequence[str] = ("e1", "e2", "e3"), notes: list[str] | None = None
) -> set[str]:
    """The events of which the index has receipts. *notes* gets what is noted."""
    progress = ReadingProgress(note=(list[str]() if notes is None else notes).append)

    async def answer(index: ReceiptIndex) -> list[Receipt]:
        return index.of_events(events)

    browser = MemoryBrowser(LogConfig("usher", ("identity.events",)), broker)
    settings = Settings.load({"USHER_CACHE_DIR": str(folder)}, env_file=None)
    return {each.event_id for each in await ask(settings, browser, progress, answer)}


async def file(broker: MemoryBroker, *events: str) -> None:
    for number, event in enumerate(events):
        for value in pack([receipt(event, offset=number)]):
            await broker.write(HERE, None, value, ())


async def test_what_the_event_log_does_not_keep_any_more_is_forgotten(tmp_path: Path) -> None:
    """The index keeps nothing for longer than the log."""
    broker = MemoryBroker()
    await file(broker, "e1", "e2", "e3")
    assert await found(broker, tmp_path) == {"e1", "e2", "e3"}

    del broker.partition(*HERE).records[:2]

    assert await found(broker, tmp_path) == {"e3"}


async def test_a_topic_that_is_made_anew_has_an_index_of_its_own(tmp_path: Path) -> None:
    """The earlier one's is removed."""
    broker = MemoryBroker()
    await file(broker, "e1", "e2")
    assert await found(broker, tmp_path) == {"e1", "e2"}

    broker.remake(TOPIC)
    await file(broker, "e3")

    assert await found(broker, tmp_path) == {"e3"}
    assert len([*tmp_path.rglob("*.sqlite")]) == 1  # noqa: ASYNC240 a few names


async def test_a_log_that_was_set_back_is_read_again_from_its_beginning(tmp_path: Path) -> None:
    """Whether its end lies before what was read, or beyond it with other records there: offsets are not the identity of a log."""
    broker = MemoryBroker()
    await file(broker, "e1", "e2")
    assert await found(broker, tmp_path) == {"e1", "e2"}

    partition = broker.partition(*HERE)
    partition.records.clear()
    partition.end = 0
    await file(broker, "e3")
    assert await found(broker, tmp_path) == {"e3"}

    partition.records.clear()
    partition.end = 0
    await file(broker, "e1", "e2", "e1")
    assert await found(broker, tmp_path) == {"e1", "e2"}


async def test_where_the_disk_is_full_the_index_is_made_in_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The answer is the same. A full disk is no damage: what others use is left to them, and is used again later."""
    broker, notes = MemoryBroker(), list[str]()
    await file(broker, "e1", "e2")
    assert await found(broker, tmp_path) == {"e1", "e2"}
    (path,) = tmp_path.glob("*.sqlite")  # noqa: ASYNC240 a few names
    with contextlib.closing(receipt_file.ReceiptFile(path)) as index:
        pages = index.rows("PRAGMA page_count")[0][0]
    await file(broker, *(f"more{number}" for number in range(500)), "e3")

    with monkeypatch.context() as full:
        full.setattr(receipt_file, "_PRAGMAS", (*receipt_file._PRAGMAS, f"max_page_count = {pages}"))
        assert await found(broker, tmp_path, notes=notes) == {"e1", "e2", "e3"}

    (note,) = notes
    assert "full" in note
    assert "in memory" in note
    assert await found(broker, tmp_path, notes=(later := list[str]())) == {"e1", "e2", "e3"}
    assert later == []
