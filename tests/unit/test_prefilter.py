"""The prefilter never says no to bytes that decode to an event triggered by one of its actors."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from usher.event import Undecodable
from usher.systems.decode import decode
from usher.systems.prefilter import prefilter

ACTORS = [
    "admin_api",
    "site_admin",
    "portal",
    "user",
    "unknown",
    "a b",
    "ümläut",
    'quo"te',
    "back\\slash",
    "sl/ash",
    "tab\t",
]

PLAIN = st.sampled_from(ACTORS) | st.text(max_size=6)
VALUES = st.recursive(
    PLAIN | st.integers() | st.none(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(PLAIN | st.just("triggered_by"), inner, max_size=3),
    max_leaves=6,
)
SPACE = st.text(st.sampled_from(" \t\r\n"), max_size=2)


class Pairs(list[tuple[str, Any]]):
    """The members of an object in order; names may repeat."""


@st.composite
def spelled(draw: st.DrawFn, text: str, *, wild: bool) -> str:
    """*text* as a JSON string: as short as can be, or in any of its many spellings."""
    plain = json.dumps(text, ensure_ascii=any(0xD800 <= ord(char) < 0xE000 for char in text))
    if not wild:
        return plain
    short = {'"': '\\"', "\\": "\\\\", "/": "\\/", "\t": "\\t", "\n": "\\n", "\r": "\\r", "\b": "\\b", "\f": "\\f"}
    parts = []
    for char in text:
        spellings = [json.dumps(char)[1:-1], short.get(char, json.dumps(char)[1:-1])]
        if ord(char) < 0x10000:
            spellings += [f"\\u{ord(char):04x}", f"\\u{ord(char):04X}"]
        if char >= " " and char not in '"\\' and not 0xD800 <= ord(char) < 0xE000:
            spellings += [char] * 4
        parts.append(draw(st.sampled_from(spellings)))
    return '"' + "".join(parts) + '"'


@st.composite
def written(draw: st.DrawFn, value: Any, *, wild: bool) -> str:
    """*value* as JSON, with arbitrary white space and escapes if *wild*."""
    space = SPACE if wild else st.just("")
    if isinstance(value, str):
        text = draw(spelled(value, wild=wild))
    elif isinstance(value, Pairs | dict):
        members = value.items() if isinstance(value, dict) else value
        written_members = [
            f"{draw(spelled(name, wild=wild))}{draw(space)}:{draw(written(item, wild=wild))}" for name, item in members
        ]
        text = "{" + ",".join(written_members) + draw(space) + "}"
    elif isinstance(value, list):
        text = "[" + ",".join(draw(written(item, wild=wild)) for item in value) + draw(space) + "]"
    else:
        text = json.dumps(value)
    return draw(space) + text + draw(space)


@st.composite
def records(draw: st.DrawFn) -> tuple[bytes, str]:
    """An event and who triggered it: any key order, repeats, white space, escapes, perhaps a byte order mark."""
    actor = draw(st.sampled_from(ACTORS))
    earlier = [("triggered_by", by) for by in draw(st.lists(VALUES, max_size=2))]
    last = Pairs([("triggered_by", actor)])
    if actor == "unknown" and draw(st.booleans()):
        last = Pairs(
            draw(st.sampled_from([[], [("triggered_by", None)], [("triggered_by", "")], [("triggered_by", 5)]]))
        )
    others = draw(st.lists(st.tuples(PLAIN, VALUES), max_size=2))
    context = Pairs([*draw(st.permutations(earlier + others)), *last]) if last else Pairs(others)
    around = draw(st.lists(st.tuples(PLAIN, VALUES), max_size=2))
    members = draw(st.permutations([("type", "user.created"), ("context", context), *around]))
    text = draw(written(Pairs(members), wild=draw(st.booleans())))
    text = text.strip() if draw(st.booleans()) else text
    mark = draw(st.sampled_from(["", "", "", "\ufeff"]))
    return (mark + text).encode("utf-8"), actor


@settings(max_examples=2 * settings().max_examples)
@given(records(), st.frozensets(st.sampled_from(ACTORS), max_size=2))
@pytest.mark.heavy
def test_it_never_says_no_to_what_the_decoder_says_yes_to(record: tuple[bytes, str], others: frozenset[str]) -> None:
    """Whatever the spelling: an event that one of the actors triggered passes."""
    value, actor = record
    try:
        found = decode(value).context.triggered_by
    except Undecodable:  # a lone surrogate somewhere
        return
    assert found == actor or actor in {"unknown", ""}
    assert prefilter({found, *others})(value)


@pytest.mark.parametrize("actor", ACTORS)
def test_an_event_of_the_actor_passes(actor: str) -> None:
    """The plain case, for each actor, with and without ASCII escapes."""
    document = {"type": "user.created", "context": {"triggered_by": actor}}
    for ascii_only in (True, False):
        value = json.dumps(document, ensure_ascii=ascii_only).encode()
        assert decode(value).context.triggered_by == actor
        assert prefilter({actor})(value)


def test_a_legal_escape_passes() -> None:
    r"""``admin\u005fapi`` is ``admin_api``."""
    value = rb'{"type":"user.created","context":{"triggered_by":"admin\u005fapi"}}'
    assert decode(value).context.triggered_by == "admin_api"
    assert prefilter({"admin_api"})(value)


@pytest.mark.parametrize(
    "value",
    [
        b'{"type":"user.created","context":{"triggered_by":"user"}}',
        b'{"type":"user.created","context":{"triggered_by":"user"},"note":"a \\"quoted\\" word"}',
        b'{"type":"admin_api.mutation.x","context":{"triggered_by":"admin_api_v2"}}',
        b"{}",
    ],
)
@pytest.mark.parametrize("actors", [{"admin_api"}, {"admin_api", "site_admin"}, set()], ids=len)
def test_other_peoples_events_are_kept_out(value: bytes, actors: set[str]) -> None:
    """It is worth having: events of others are refused without being parsed."""
    assert not prefilter(actors)(value)


@pytest.mark.parametrize(
    "value", [b"", b"hello", b"[]", b'{"type"', b"\x00{}", b'\xef\xbb\xbf{"type":"x"}', b'{"type":"x"}\n']
)
def test_what_does_not_look_like_one_object_passes(value: bytes) -> None:
    """Garbage is for the dead-letter topic, so the decoder must see it."""
    assert prefilter({"admin_api"})(value)


@pytest.mark.parametrize("actor", ["unknown", "ümläut", 'quo"te', "sl/ash", ""])
def test_it_is_off_where_bytes_cannot_decide(actor: str) -> None:
    """An actor that may be missing, or may be spelled in many ways, lets everything through."""
    assert prefilter({"admin_api", actor})(b'{"type":"x","context":{"triggered_by":"user"}}')
