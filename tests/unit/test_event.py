"""The Event as a handler's author knows it: a frozen value, of which nobody sees what was stripped, read or unread."""

from __future__ import annotations

import copy
import dataclasses
import json
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from usher import Event, User
from usher.event import EventContext
from usher.systems import peek as peek_module
from usher.systems.decode import decode
from usher.systems.peek import peek
from usher.testing import raw_event

SECRET = "h4nter2"
VALUE = raw_event(
    id="17",
    payload={"password": SECRET, "note": f"token={SECRET}", "kept": 1},
    context={"client_secret": SECRET, "ip_address": "192.0.2.1"},
    api_key=SECRET,
    spec="2",
)
LOOKS: dict[str, Callable[[Event], str]] = {
    "repr": repr,
    "pickle": lambda event: pickle.dumps(event).decode("latin-1"),
    "asdict": lambda event: json.dumps(dataclasses.asdict(event)),
    "payload": lambda event: json.dumps(event.payload),
    "context": lambda event: repr(event.context),
    "user": lambda event: repr(event.user),
    "extra": lambda event: repr(event.model_extra),
    "copy": lambda event: repr(copy.deepcopy(event)),
    "replace": lambda event: repr(dataclasses.replace(event, tenant="other")),
    "attributes": lambda event: repr([getattr(event, name) for name in dir(event) if name[0] != "_"]),
}


@pytest.mark.parametrize("look", LOOKS)
@pytest.mark.parametrize("read", [peek, decode])
def test_no_way_to_an_event_shows_what_was_stripped(read: Any, look: str) -> None:
    """Whatever is asked first, and whether or not the event was read before."""
    shown = LOOKS[look](read(VALUE))

    assert SECRET in VALUE.decode()
    assert SECRET not in shown


def test_an_unread_event_is_equal_to_the_read_one() -> None:
    """Also after pickling and copying, and as a key."""
    for event in (
        peek(VALUE),
        pickle.loads(pickle.dumps(peek(VALUE))),
        copy.copy(peek(VALUE)),
        copy.deepcopy(peek(VALUE)),
    ):
        assert event == decode(VALUE)
        assert hash(event) == hash(decode(VALUE))
        assert repr(event) == repr(decode(VALUE))
    assert peek(VALUE) != peek(raw_event(id="17"))


def test_an_event_is_read_once_and_only_if_somebody_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the engine asks of every event is known; all the rest comes from one reading."""
    readings: list[bytes] = []

    def reading(value: bytes) -> Event:
        readings.append(value)
        return decode(value)

    monkeypatch.setattr(peek_module, "decode", reading)
    event = peek(VALUE)

    assert (event.uid, event.type, event.raw_type) == (("authgear", "example", "17"), "user.created", "user.created")
    assert (event.context.triggered_by, event.user.id, event.time) == (
        "admin_api",
        event.context.user_id,
        decode(VALUE).time,
    )
    assert readings == []
    assert event.user.email == "kim.berg@example.com"
    assert (event.payload["kept"], event.context.language, event.languages) == (1, "en", ("en",))
    assert event.payload is event.payload
    assert readings == [VALUE]


def test_the_classes_are_real_and_frozen() -> None:
    """`isinstance`, a misspelt name and an assignment behave as everywhere in Python."""
    event = peek(VALUE)

    assert (type(event), type(event.user), type(event.context)) == (Event, User, EventContext)
    for thing, name in ((event, "payload"), (event.user, "email"), (event.context, "language")):
        with pytest.raises(AttributeError):
            setattr(thing, name, "x")
    for thing in (event, event.user, event.context):
        assert not hasattr(thing, "emial")
        with pytest.raises(AttributeError, match="'emial'"):
            getattr(thing, "emial")  # noqa: B009
    for thing, name, said in ((event.context, "ip_address", "192.0.2.1"), (event, "spec", "2")):
        assert getattr(thing, name) == said, "a template may ask so for what the source adds"
    assert event.context.model_extra.keys() == {"ip_address", "user_agent"}


HANDLER = '''
from usher import Context, Event, on


@on("user.created")
async def greet(event: Event, ctx: Context) -> None:
    """Greet."""
    reveal_type(event.user.email)
    reveal_type(event.context.preferred_languages)
    reveal_type(event.payload)
    reveal_type(event.uid.tenant)
    event.user.emial
    event.context.lang
    event.payload = {}
    event.user.email.lower()
    await ctx.email("greet", to=event.user)
'''
SAID = [
    'Revealed type is "str | None"',
    'Revealed type is "tuple[str, ...]"',
    'Revealed type is "dict[str, Any]"',
    'Revealed type is "str"',
    '"User" has no attribute "emial"',
    '"EventContext" has no attribute "lang"',
    'Property "payload" defined in "Event" is read-only',
    'Item "None" of "str | None" has no attribute "lower"',
]


@pytest.mark.heavy
def test_mypy_knows_what_a_handler_is_given(tmp_path: Path) -> None:
    """Types of the parts are exact; misspelt fields, assignments and forgotten Nones are found, and nothing else."""
    (tmp_path / "greet.py").write_text(HANDLER)
    told = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--no-error-summary", "--cache-dir", str(tmp_path / "cache"), "greet.py"],
        check=False, cwd=tmp_path, capture_output=True, text=True, timeout=110,
    ).stdout  # fmt: skip
    lines = [line for line in told.replace("builtins.", "").splitlines() if "error:" in line or "Revealed" in line]

    assert [line for line, said in zip(lines, SAID, strict=True) if said not in line] == []
