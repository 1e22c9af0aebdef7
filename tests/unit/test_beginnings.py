"""Where a partition begins, by what the group has committed and noted, and by the log that is there now."""

from __future__ import annotations

import pytest
from aiokafka.structs import OffsetAndMetadata

from usher.eventlog.kafka.beginnings import Beginning, decide
from usher.eventlog.kafka.known_topics import KnownTopic


@pytest.mark.parametrize(
    ("note", "topic_id", "at", "end", "expected"),
    [
        (None, "B", None, 9, Beginning(7, committed=False, topic_id="B")),
        (None, "B", 5, 9, Beginning(5, "m", topic_id="B")),
        (None, "B", 12, 9, Beginning(2, committed=False, topic_id="B", remade=True)),
        (KnownTopic("A"), "B", 5, 9, Beginning(2, committed=False, topic_id="B", remade=True)),
        (KnownTopic("A"), "B", None, 9, Beginning(2, committed=False, topic_id="B", remade=True)),
        (KnownTopic("B"), "B", 12, 9, Beginning(12, "m", topic_id="B", stopped=True)),
        (KnownTopic("B", stopped_at=5), "B", 5, 9, Beginning(5, "m", topic_id="B", stopped=True)),
        (KnownTopic("", False), "B", 5, 9, Beginning(5, "m", topic_id="B")),
        (KnownTopic("B"), "", 5, 9, Beginning(5, "m", topic_id="B")),
        (KnownTopic(""), "", 12, 9, Beginning(2, committed=False, topic_id="~1", remade=True)),
        (KnownTopic("~1", True), "", 12, 9, Beginning(2, committed=False, topic_id="~2", remade=True)),
        (KnownTopic("~1", True), "", 5, 9, Beginning(5, "m", topic_id="~1", remade=True)),
        (KnownTopic("~1", True), "B", 5, 9, Beginning(5, "m", topic_id="B", remade=True)),
    ],
)
def test_where_a_partition_begins(
    note: KnownTopic | None, topic_id: str, at: int | None, end: int, expected: Beginning
) -> None:
    """Ids decide where both are known. Where the brokers give none, an end before the offset does."""
    committed = None if at is None else OffsetAndMetadata(at, "m")

    assert decide(note, topic_id, committed, first=2, end=end, start=7) == expected


def test_an_operators_offset_ends_a_stop() -> None:
    """It has no Mark: our own commits have one."""
    begun = decide(KnownTopic("B", stopped_at=5), "B", OffsetAndMetadata(5, ""), first=0, end=9, start=0)

    assert not begun.stopped
    assert begun.known == KnownTopic("B")


@pytest.mark.parametrize(
    "kept", [KnownTopic("A"), KnownTopic("", remade=True), KnownTopic("~3", remade=True), KnownTopic("A", stopped_at=0)]
)
def test_what_is_kept_of_a_topic_comes_back_as_it_was(kept: KnownTopic) -> None:
    """What was kept is what is read."""
    assert KnownTopic.decode(kept.encode()) == kept


@pytest.mark.parametrize("text", [b"", b"7", b"[]", b"{}", b"\xff", b'{"topic_id": "A", "stopped_at": "x"}'])
def test_what_others_write_is_no_note(text: bytes) -> None:
    """The topic holds other checkpoints too, and others may write there."""
    assert KnownTopic.decode(text) is None
