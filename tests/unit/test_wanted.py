"""Which events are asked for: the check on the bytes never says no to an event that is meant."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from usher.operate.wanted import Wanted
from usher.systems.decode import decode
from usher.testing import raw_event

IDS = st.text(st.characters(codec="utf-8", exclude_characters="\x00"), min_size=1, max_size=30)


def spellings(value: bytes) -> list[bytes]:
    """One document, as different programs write it."""
    document = json.loads(value)
    return [
        json.dumps(document).encode(),
        json.dumps(document, ensure_ascii=False).encode("utf-8", "surrogatepass"),
        json.dumps(document, ensure_ascii=False).replace("/", "\\/").encode("utf-8", "surrogatepass"),
    ]


@given(IDS)
def test_an_event_is_found_by_its_id_however_it_is_written(id_: str) -> None:
    """Any text may be an id; a check that says no would hide the event."""
    wanted = Wanted(frozenset({id_}))
    may_be = wanted.may_be()
    for value in spellings(raw_event(id=id_)):
        assert wanted.is_(decode(value))
        assert may_be(value)


@given(
    st.sampled_from(["ann.berg@example.org", "Änn@example.org", "ann", "u-1", "Ann.B", "+12025550123", "ÄNN"]),
    st.booleans(),
)
def test_an_event_is_found_by_whom_it_is_about(name: str, upper: bool) -> None:
    """By id, user name, address and number; user names and addresses however they are written."""
    asked = Wanted(user=name.upper() if upper and name != "u-1" else name)
    values = [raw_event(user_id=name), raw_event(username=name)]
    if "@" in name:
        values.append(raw_event(email=name))
        asked_address = Wanted(address=asked.user)
        assert asked_address.may_be()(values[-1])
        assert asked_address.is_(decode(values[-1]))
    for value in (each for one in values for each in spellings(one)):
        event = decode(value)
        if asked.is_(event):
            assert asked.may_be()(value)
    assert asked.is_(decode(values[1])) or "@" in name


@pytest.mark.parametrize("written", ["+12025550123", "+1 202 555-0123", "+1 (202) 555.0123", "0012025550123"])
def test_a_number_is_found_however_it_is_written(written: str) -> None:
    value = raw_event(phone=written)
    for asked in (Wanted(user="+12025550123"), Wanted(address="+1 202 555 0123")):
        assert asked.is_(decode(value)) == (decode(value).user.phone is not None)
        assert asked.may_be()(value)


def test_what_is_not_meant_is_left_out_by_its_bytes() -> None:
    """Else a topic of millions would be parsed for one event."""
    value = raw_event(id="00aa", user_id="u-9", email="lee@example.org")

    for wanted in (
        Wanted(frozenset({"00ab"})),
        Wanted(user="ann@example.org"),
        Wanted(address="+12025550199"),
        Wanted(user="u-1"),
    ):
        assert not wanted.may_be()(value)
