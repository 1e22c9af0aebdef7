"""The parking table: what is first in a lane, what is due, and what is forgotten."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

from usher.delivery import Delivery, Origin, StoredRecord
from usher.delivery.headers import Head, delivery_headers
from usher.engine.parked_row import DONE_EARLIER, ParkedRow
from usher.engine.parking_table import ParkingTable
from usher.event import EventUid


@pytest.fixture
def table() -> Iterator[ParkingTable]:
    table = ParkingTable()
    yield table
    table.close()


def a_delivery(offset: int, user: str = "ann", *, due: int | None = None, attempt: int = 0) -> Delivery:
    origin = Origin("events", 0, offset, 1_000, b"key", (("trace", b"\xff"),))
    uid = EventUid("authgear", "demo", f"e{offset}")
    return Delivery("welcome", uid, f"authgear/demo/{user}", origin, b"{}", attempt=attempt, due=due)


def test_a_delivery_comes_back_as_it_was(table: ParkingTable) -> None:
    """Everything of a delivery survives the table."""
    delivery = replace(a_delivery(4, due=12, attempt=2), error="boom", error_type="E", first_failed_at=7, sent=True)
    table.put(delivery)

    assert table.take(delivery.key) == delivery


def test_the_first_of_a_lane_is_the_lowest_source_offset(table: ParkingTable) -> None:
    """Whatever the order of parking, the lowest offset is first; other lanes do not matter."""
    for offset in (9, 5, 7):
        table.put(a_delivery(offset))
    table.put(a_delivery(1, "bob"))

    first = table.first(a_delivery(5).lane_key)

    assert first is not None
    assert first.offset == 5


def test_only_what_is_due_and_read_past_is_due(table: ParkingTable) -> None:
    """Neither a later due time nor an offset at or past the position counts."""
    table.put(a_delivery(1, "a", due=100))
    table.put(a_delivery(2, "b", due=300))
    table.put(a_delivery(9, "c", due=100))

    assert [key for key, *_ in table.due(200, 5, 10)] == [a_delivery(1, "a").key]
    assert table.next_due(200, 5) == 300
    assert table.oldest_due(5) == 100


def test_what_is_taken_is_not_due_until_it_is_put_again(table: ParkingTable) -> None:
    """An attempt in flight is not started a second time."""
    delivery = a_delivery(1, due=100)
    table.put(delivery)
    table.take(delivery.key)

    assert table.due(200, 5, 10) == []
    table.put(replace(delivery, attempt=1))
    assert len(table.due(200, 5, 10)) == 1


def test_more_attempts_win(table: ParkingTable) -> None:
    """A late write of a worker that knows less changes nothing."""
    table.put(a_delivery(1, due=500, attempt=2))
    table.merge(a_delivery(1, due=100, attempt=1))

    assert table.take(a_delivery(1).key).attempt == 2


def test_heads_without_a_due_time_are_freed_and_no_others(table: ParkingTable) -> None:
    """After a claim is loaded, the first of each lane may run at once if nothing says otherwise."""
    table.put(a_delivery(1, "a", due=900))
    table.put(a_delivery(2, "a"))
    table.put(a_delivery(3, "b"))
    table.put(a_delivery(4, "b"))
    list(table.free_heads(50))

    assert [key for key, *_ in table.due(50, 10, 10)] == [a_delivery(3, "b").key]
    assert table.next_due(50, 10) == 900


def test_the_count_follows_every_change(table: ParkingTable) -> None:
    """Replacing does not count twice, removing what is not there counts nothing."""
    with table.bulk():
        table.put(a_delivery(1))
        table.put(a_delivery(1, attempt=1))
        table.put(a_delivery(2))
    table.remove("nobody")
    table.remove(a_delivery(2).key)

    assert len(table) == 1
    assert a_delivery(1).key in table
    assert a_delivery(2).key not in table
    assert table.holds_lane(a_delivery(1).lane_key)


def test_a_batch_of_changes_is_folded_in_order(table: ParkingTable) -> None:
    """More attempts win, a tombstone forgets, and what is parked again after it is there again."""
    kept, gone, back = a_delivery(1, attempt=2), a_delivery(2), a_delivery(3, attempt=5)
    table.put(gone)
    table.put(back)
    again = replace(back, attempt=1)
    table.fold(
        [
            (kept.key, ParkedRow.of(kept)),
            (kept.key, ParkedRow.of(replace(kept, attempt=1))),
            (gone.key, None),
            (back.key, None),
            (back.key, ParkedRow.of(again)),
            ("nobody", None),
        ]
    )

    assert len(table) == 2
    assert table.take(kept.key) == kept
    assert table.take(back.key) == again
    assert gone.key not in table


def test_what_is_removed_while_the_table_is_loaded_does_not_come_back(table: ParkingTable) -> None:
    """A tombstone may be acknowledged before the older record of its delivery is read again; afterwards a park counts."""
    delivery = a_delivery(1, attempt=1)
    table.remove(delivery.key)
    table.fold([(delivery.key, ParkedRow.of(delivery))])
    assert delivery.key not in table

    table.loaded()
    table.fold([(delivery.key, ParkedRow.of(delivery))])
    assert delivery.key in table


def test_a_fold_keeps_what_more_is_known_of(table: ParkingTable) -> None:
    """Also across batches."""
    table.fold([(a_delivery(1).key, ParkedRow.of(a_delivery(1, attempt=3)))])
    table.fold(
        [(a_delivery(1).key, ParkedRow.of(a_delivery(1, attempt=2))), (a_delivery(2).key, ParkedRow.of(a_delivery(2)))]
    )

    assert len(table) == 2
    assert table.take(a_delivery(1).key).attempt == 3


def test_a_row_of_a_record_is_the_row_of_its_delivery() -> None:
    """Loading does not make deliveries, and comes to the same."""
    delivery = replace(a_delivery(7, due=900, attempt=1), error="boom", error_type="E", first_failed_at=5)
    record = StoredRecord("retry", 0, 3, 0, delivery.key.encode(), b"{}", delivery_headers(delivery))

    assert ParkedRow.from_record(record, delivery.key, Head(record.headers)) == ParkedRow.of(delivery)


@pytest.mark.parametrize("missing", ["usher-handler", "usher-event-id", "usher-lane", "kafka_dlt-original-topic"])
def test_a_foreign_record_has_no_row(missing: str) -> None:
    """What could not be made a delivery later is refused at once; so is one under another's key."""
    delivery = a_delivery(7)
    headers = [(name, value) for name, value in delivery_headers(delivery) if name != missing]

    with pytest.raises(ValueError, match=missing):
        ParkedRow.from_record(StoredRecord("retry", 0, 3, 0, None, b"{}", headers), delivery.key, Head(headers))
    record = StoredRecord("retry", 0, 3, 0, None, b"{}", delivery_headers(delivery))
    with pytest.raises(ValueError, match="key"):
        ParkedRow.from_record(record, a_delivery(8).key, Head(record.headers))


def test_a_delivery_of_an_earlier_topic_comes_before_all_of_the_present_one(table: ParkingTable) -> None:
    """Its offset says nothing here: it is first in its lane, is due at any position, and comes back as it was."""
    earlier = replace(a_delivery(900, due=100), earlier=True)
    table.put(a_delivery(3))
    table.put(earlier)

    first = table.first(earlier.lane_key)

    assert first is not None
    assert first.key == earlier.key
    assert [key for key, *_ in table.due(200, 0, 10)] == [earlier.key]
    assert table.take(earlier.key) == earlier
    assert table.highest == 900  # rule 6 looks for a key up to there


def test_a_tombstone_of_an_earlier_topic_removes_nothing_of_the_present_one(table: ParkingTable) -> None:
    """The same key may be in both: each tombstone is about its own topic."""
    old, new = replace(a_delivery(1), earlier=True), a_delivery(2)
    table.put(old)
    table.put(new)

    table.fold([(old.key, DONE_EARLIER), (new.key, DONE_EARLIER)])
    table.remove(new.key, earlier=True)

    assert (old.key in table, new.key in table) == (False, True)
