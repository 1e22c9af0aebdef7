"""The Ledger and the Mark: what a commit says is exactly what is true."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from usher.engine.ledger import MARK_LIMIT, Ledger, Mark, digest, handlers_hash

_offsets = st.dictionaries(st.integers(0, 5_000), st.integers(0, 7), max_size=200)


@given(base=st.integers(0, 10**12), undone=_offsets, starts=st.integers(0, 300))
def test_a_mark_comes_back_as_it_was(base: int, undone: dict[int, int], starts: int) -> None:
    """Encoding and decoding a Mark gives the same Mark, at the base it was made for and at no other."""
    shifted = {base + offset: done for offset, done in undone.items()}
    mark = Mark(base, base + 5_001, shifted, handlers_hash(["a"]), starts)

    text = mark.encode()

    assert Mark.decode(text, base) == mark
    assert Mark.decode(text, base + 1) is None


@given(st.text())
def test_foreign_metadata_is_ignored(text: str) -> None:
    """Whatever another program left in a commit's metadata is no Mark, and no error."""
    assert Mark.decode(text, 0) is None
    Mark.decode("u1." + text, 0)


@pytest.mark.parametrize("numbers", [b"\x00" + b"\xff" * 700 + b"\x01\x00", b"\x00\x01\x00" + b"\xff" * 700 + b"\x01"])
def test_a_mark_with_an_offset_that_no_log_has_is_none(numbers: bytes) -> None:
    """Who may commit for the group could write one; the worker could not write it again."""
    assert Mark.decode("u1." + base64.urlsafe_b64encode(bytes(13) + numbers).decode().rstrip("="), 0) is None


def test_a_mark_that_would_be_too_long_says_less_and_nothing_wrong() -> None:
    """What does not fit is left out from the end: the next owner reads it again."""
    undone = {offset * 1_000_003: 5 for offset in range(2_000)}
    mark = Mark(0, 3_000_000_000, undone)

    text = mark.encode()
    read = Mark.decode(text, 0)

    assert len(text) <= MARK_LIMIT
    assert read is not None
    assert 500 < len(read.undone) < 2_000
    assert read.undone == {o: d for o, d in undone.items() if o < read.seen}


def test_the_full_in_flight_limit_fits_into_one_commit() -> None:
    """1,000 offsets with handlers done on each, with every twentieth record ours, all fit into the Mark."""
    undone = {offset * 20: 3 for offset in range(1_000)}

    read = Mark.decode(Mark(0, 20_000, undone).encode(), 0)

    assert read is not None
    assert read.undone == undone


def test_the_frontier_is_the_lowest_unsettled_offset() -> None:
    """Settled, filtered and missing offsets do not stop the frontier; an unsettled one does."""
    ledger = Ledger(10, "", ["a", "b"])
    ledger.begin(12, ["a", "b"])
    ledger.begin(15, ["a"])
    ledger.position = 20

    assert ledger.snapshot().next == 12
    ledger.settle(12, "a")
    assert ledger.snapshot().next == 12
    ledger.settle(12, "b")
    assert ledger.snapshot().next == 15
    ledger.settle(15, "a")
    assert ledger.snapshot().next == 20


def test_the_next_owner_knows_what_is_done() -> None:
    """After a commit the next owner runs only what was undone, and of that only the handlers that were not done."""
    ledger = Ledger(0, "", ["a", "b"])
    ledger.begin(3, ["a", "b"])
    ledger.begin(7, ["a"])
    ledger.position = 9
    ledger.settle(3, "b")
    ledger.settle(7, "a")
    position = ledger.snapshot()

    following = Ledger(position.next, position.mark, ["b", "a"])

    assert position.next == 3
    assert [offset for offset in range(3, 12) if not following.already_done(offset)] == [3, 9, 10, 11]
    assert following.already_done_by(3) == {"b"}


def test_a_mark_not_used_up_is_carried_forward() -> None:
    """An owner that commits before it has read as far as its predecessor passes on what its own Mark says."""
    first = Ledger(0, "", ["a"])
    for offset in (2, 5, 8):
        first.begin(offset, ["a"])
    first.position = 10
    committed = first.snapshot()

    second = Ledger(committed.next, committed.mark, ["a"])
    second.begin(2, ["a"])
    second.position = 3
    second.settle(2, "a")
    position = second.snapshot()
    third = Ledger(position.next, position.mark, ["a"])

    assert position.next == 5
    assert [offset for offset in range(5, 12) if not third.already_done(offset)] == [5, 8, 10, 11]


def test_bits_of_other_handlers_say_nothing() -> None:
    """Where the handlers have changed, the Mark's offsets hold and its bits do not."""
    first = Ledger(0, "", ["a", "b"])
    first.begin(0, ["a", "b"])
    first.position = 1
    first.settle(0, "a")
    committed = first.snapshot()

    second = Ledger(committed.next, committed.mark, ["b", "c"])

    assert second.already_done_by(0) == frozenset()


def test_starts_at_one_frontier_are_counted_unless_the_stop_was_orderly() -> None:
    """The Mark counts the workers that begin again and again at one frontier; a worker that was stopped does not count."""
    ledger = Ledger(4, "", ["a"])
    ledger.begin(4, ["a"])
    ledger.position = 5
    for starts in (1, 2, 3):
        committed = ledger.snapshot()
        mark = Mark.decode(committed.mark, 4)
        assert mark is not None
        assert mark.starts == starts
        ledger = Ledger(committed.next, committed.mark, ["a"])

    orderly = Mark.decode(ledger.snapshot(orderly=True).mark, 4)
    assert orderly is not None
    assert orderly.starts == 0


@given(st.lists(st.tuples(st.integers(0, 60), st.booleans()), unique_by=lambda pair: pair[0]), st.integers(0, 61))
def test_nothing_unsettled_is_ever_called_done(records: list[tuple[int, bool]], position: int) -> None:
    """Over two owners, each offset that was not settled is undone in the Mark."""
    first = Ledger(0, "", ["a"])
    for offset, _ in sorted(records):
        first.begin(offset, ["a"])
    first.position = 61
    for offset, settled in records:
        if settled:
            first.settle(offset, "a")
    committed = first.snapshot()
    second = Ledger(committed.next, committed.mark, ["a"])
    for offset, settled in sorted(records):
        if committed.next <= offset < position and not settled:
            second.begin(offset, ["a"])
    second.position = max(committed.next, position)
    again = second.snapshot()
    third = Ledger(again.next, again.mark, ["a"])

    unsettled = {offset for offset, settled in records if not settled}
    assert {o for o in range(61) if o >= again.next and not third.already_done(o)} == unsettled
    assert all(offset >= again.next for offset in unsettled)


@settings(max_examples=3 * settings().max_examples // 10)
@given(
    handlers=st.integers(1, 20),
    gaps=st.lists(st.sampled_from([1, 1, 2, 63, 64, 200, 9_000, 20_000]), min_size=20, max_size=20),
    done=st.lists(st.integers(0, 19), min_size=1, max_size=7),
)
def test_while_there_is_room_a_mark_has_everything(handlers: int, gaps: list[int], done: list[int]) -> None:
    """However far apart the undone offsets lie and however many handlers are done on them: nothing is left out."""
    names = [f"handler_{number}" for number in range(handlers)]
    ledger = Ledger(0, "", names)
    offset, begun = 0, 0
    while ledger.room > 0:
        ledger.begin(offset, names)
        for number in done:
            if handlers > 1 and number < handlers - 1:
                ledger.settle(offset, names[number])
        begun += 1
        offset += gaps[begun % len(gaps)]
        ledger.position = offset
    written = ledger.snapshot()
    mark = Mark.decode(written.mark, written.next)

    assert begun > 100
    assert mark is not None
    assert len(mark.undone) == begun
    assert mark.seen == offset


def test_a_forged_count_of_ends_ends_no_worker() -> None:
    """A Mark names a delivery with the largest count that fits: it runs alone, and its own ends are counted from now on."""
    forged = Mark(0, 1, starts=2, suspect=digest("a") + b"\xff").encode()
    ledger = Ledger(0, forged, ["h"])

    ledger.name("a")

    assert not ledger.condemned("a")
    position = ledger.snapshot()
    assert Ledger(position.next, position.mark, ["h"]).accused("a")
