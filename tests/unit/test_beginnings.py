"""Where a partition begins, by what the group has committed and noted, and by the log that is there now."""

from __future__ import annotations

import pytest
from aiokafka import TopicPartition as KafkaPartition
from aiokafka.structs import OffsetAndMetadata

from usher.delivery import StoredRecord
from usher.delivery.headers import ORIGINAL_GROUP
from usher.eventlog.kafka.beginnings import Beginning, decide, start_of
from usher.eventlog.kafka.known_topics import KnownTopic, known_topic_in
from usher.eventlog.notes import GroupStart, Notes, key_record
from usher.eventlog.port import TopicPartition


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


@pytest.mark.parametrize(
    "text",
    [
        b"", b"7", b"[]", b"{}", b"\xff", b"[" * 100_000, b"9" * 5000, b'"x"',
        b'{"topic_id": "A", "stopped_at": "x"}', b'{"topic_id": "A", "stopped_at": 1e999}',
        b'{"topic_id": "A", "stopped_at": true}', b'{"topic_id": {}}', b'{"topic_id": "~x"}', b'{"topic_id": "~%s"}' % (b"9" * 5000),
    ],
)  # fmt: skip
def test_what_others_write_is_passed_over(text: bytes) -> None:
    """The topic holds other checkpoints too, and others may write there."""
    assert known_topic_in(StoredRecord("g.checkpoints", 0, 0, 0, b"topic-id/t/0", text), "g") is None


@pytest.mark.parametrize(
    "key",
    [None, b"", b"authgear/x", b"topic-id/", b"topic-id/t/", b"topic-id/t/\xd9\xa3", b"topic-id/\xff/" + b"9" * 5000],
)
def test_a_record_under_another_key_is_passed_over(key: bytes | None) -> None:
    """Whatever bytes the key has."""
    assert known_topic_in(StoredRecord("g.checkpoints", 0, 0, 0, key, KnownTopic("A").encode()), "g") is None


def test_what_is_kept_of_a_topic_is_of_its_group() -> None:
    """That of another group says nothing; a record without a value takes it back."""
    key, text = b"topic-id/a/b/7", KnownTopic("A").encode()
    record = StoredRecord("g.checkpoints", 0, 0, 0, key, text, [(ORIGINAL_GROUP, b"g")])

    assert known_topic_in(record, "g") == (KafkaPartition("a/b", 7), KnownTopic("A"))
    assert known_topic_in(record, "h") is None
    assert known_topic_in(StoredRecord("g.checkpoints", 0, 0, 0, key, None), "g") == (KafkaPartition("a/b", 7), None)


# Where the group began


NOW = 1_750_000_000_000
BEGAN = GroupStart("A", 3, 1)


@pytest.mark.parametrize(
    ("noted", "known", "beginning", "start"),
    [
        # A new group, whose start is committed or is still to be committed; a partition that was added.
        (None, None, Beginning(7, topic_id="A"), GroupStart("A", 7, NOW)),
        (None, None, Beginning(7, committed=False, topic_id="A"), GroupStart("A", 7, NOW)),
        # A group of an Usher that noted no start.
        (None, KnownTopic("A"), Beginning(7, "m", topic_id="A"), None),
        (None, None, Beginning(7, "m", topic_id="A"), None),
        # It goes on; an operator has set the offset back, or forward.
        (BEGAN, KnownTopic("A"), Beginning(9, "m", topic_id="A"), BEGAN),
        (BEGAN, KnownTopic("A"), Beginning(2, topic_id="A"), GroupStart("A", 2, 1)),
        (BEGAN, KnownTopic("A"), Beginning(50, topic_id="A"), BEGAN),
        # The topic was made anew: under the worker, or and the start was noted of the earlier one only.
        (BEGAN, KnownTopic("A"), Beginning(0, committed=False, topic_id="B", remade=True), GroupStart("B", 0, NOW)),
        (BEGAN, KnownTopic("B", True), Beginning(9, "m", topic_id="B", remade=True), None),
        # The brokers give ids now.
        (GroupStart("", 3, 1), KnownTopic(""), Beginning(9, "m", topic_id="A"), BEGAN),
    ],
)
def test_where_a_group_began_is_what_it_noted_first(
    noted: GroupStart | None, known: KnownTopic | None, beginning: Beginning, start: GroupStart | None
) -> None:
    """What lies before is never read, so nobody may say so of what was read: where it is not known there is no start."""
    assert start_of(noted, known, beginning, NOW) == start


def note(offset: int, key: bytes | None, value: bytes | None, group: bytes = b"usher") -> StoredRecord:
    return StoredRecord("usher.checkpoints", 0, offset, NOW, key, value, [(ORIGINAL_GROUP, group)])


def test_the_first_key_counts_whatever_is_written_later() -> None:
    """Also where the records are taken in several parts, and what others wrote comes first."""
    notes = Notes("usher")
    (_, first), (_, second) = key_record(b"1" * 32), key_record(b"2" * 32)

    notes.take([note(3, b"key/", b"no key"), note(4, b"key/a", b"MTIz"), note(5, b"key/b", first, b"another group")])
    assert notes.address_key is None
    notes.take([note(9, b"key/c", first)])
    notes.take([note(10, b"key/d", second), note(11, b"key/c", None)])

    assert notes.address_key == b"1" * 32


@pytest.mark.parametrize(
    "value",
    [
        b"", b"\xff", b"[]", b"{}", b'{"topic_id": "A", "offset": "1", "at": 1}', b'{"topic_id": 1, "offset": 1, "at": 1}',
        b'{"topic_id": "A", "offset": -1, "at": 1}', b'{"topic_id": "A", "offset": true, "at": 1}',
        b'{"topic_id": "A", "offset": 1, "at": 1e400}', b'{"topic_id": "A", "offset": 1, "at": 99999999999999999}',
        b"[" * 100_000,
    ],
)  # fmt: skip
def test_a_start_that_usher_did_not_write_is_passed_over(value: bytes) -> None:
    """What was noted before stays; a tombstone takes it away."""
    of = TopicPartition("events", 0)
    key, right = BEGAN.record(of)
    notes = Notes("usher")

    notes.take([note(1, key, right), note(2, key, value), note(3, b"start/events", right), note(4, None, right)])
    assert notes.starts == {of: BEGAN}
    notes.take([note(5, key, None)])
    assert notes.starts == {}
