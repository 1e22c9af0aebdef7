"""Personal data within a text: known by its looks, or because the event that is being handled holds it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextvars import ContextVar
from itertools import islice
from typing import Any, Protocol

_AT = "@"
_EMAIL = re.compile(
    r"\"[^\"@]{1,64}\"@[^\s<>\"(),;@]+"  # a quoted local part may hold blanks
    r"|(?<![^\s<>\"(),;:@])[^\s<>\"(),;:@]+@[^\s<>\"(),;@]+"
)
_ROW = r"\d[\d\s().\-·•‧∙⋅‐‑‒–—−]{5,}\d"  # noqa: RUF001  the dots and dashes that people write between digits
_DIGITS = re.compile(rf"{_ROW}|\d/\d{{4}}")
_NUMBER = re.compile(
    rf"""
    (?P<keep>
        (?<![\w.+-])(?:25[0-5]|2[0-4]\d|1\d\d|[1-9]?\d)(?:\.(?:25[0-5]|2[0-4]\d|1\d\d|[1-9]?\d)){{3}}(?![\w.-]*\d)(?::\d{{1,5}}\b)?
      | (?<![\w+-])\d{{4}}-[01]\d-[0-3]\d(?:[T ][0-2]\d:[0-5]\d(?::[0-5]\d)?(?:[.,]\d{{1,9}})?)?(?!\d)
      | (?<!\w)0x[0-9a-fA-F]+(?!\w)
      | (?<![\w.])[245]\d\d[ -][245]\.\d{{1,3}}\.\d{{1,3}}(?![\w.]*\d)
      | (?<![\w-])[0-9a-fA-F]{{8}}(?:-[0-9a-fA-F]{{4}}){{3}}-[0-9a-fA-F]{{12}}(?![\w-])
      | (?<![\w.-])(?=[\w-]*[a-zA-Z])[\w-]+(?:\.[\w-]+)*\.[a-z]{{2,}}(?![\w.-]*\d)(?::\d{{1,5}}\b)?
    )
    | \+?\(?{_ROW}
    | (?<!\d)0\d{{1,5}}/[\d\s-]{{3,}}\d
    """,
    re.VERBOSE,
)

_PERSONAL = re.compile(
    r"(?!.*(realm|event|app|client|tenant|connection|host|provider|group|role|type|agent|ip_?address))"
    r"(.*(name|mail|phone|mobile|address|street|locality|city|region|birth|postal|zip).*|login|user)"
)
"""The fields, in lower case, whose texts are about a person."""
_SHORTEST, _SHORTEST_NAME = 5, 3
_MOST = 200
"""Texts of an event that are looked for: an event holds some dozens."""
_LONGEST = 300
_NAME_PARTS = re.compile(r"[\s,]+")


class _Person(Protocol):
    @property
    def username(self) -> str | None: ...
    @property
    def email(self) -> str | None: ...
    @property
    def phone(self) -> str | None: ...
    @property
    def name(self) -> str | None: ...


class AboutAPerson(Protocol):
    """An event, as far as it matters here."""

    @property
    def user(self) -> _Person: ...
    @property
    def payload(self) -> dict[str, Any]: ...


_event: ContextVar[AboutAPerson | None] = ContextVar("event", default=None)


class about:  # noqa: N801 - it is called as a function; each attempt is in one, and a generator takes twice as long
    """Within, texts are scrubbed also of what *event* holds about its user: names, addresses, numbers, and what is said there."""

    __slots__ = ("_inside", "_token")

    def __init__(self, event: AboutAPerson) -> None:
        self._inside = event

    def __enter__(self) -> None:
        self._token = _event.set(self._inside)

    def __exit__(self, *_error: object) -> None:
        _event.reset(self._token)


def without_quotes(text: str) -> str:
    """Mask in *text* what the event that `about` names holds as a whole: sentences, streets, addresses. Do this before all else."""
    return _without(text, words=False)


def without_people(text: str, *, known: bool) -> str:
    """Mask addresses and numbers in *text*; *known*: also the names in the event that `about` names.

    Addresses of servers, times and UUIDs stay.
    """
    if _AT in text:
        text = _EMAIL.sub("<email>", text)
    if known:
        text = _without(text, words=True)
    if _DIGITS.search(text):
        text = _NUMBER.sub(_unless_kept, text)
    return text


def _unless_kept(match: re.Match[str]) -> str:
    return match[0] if match["keep"] else "<number>"


def holds_person(text: str) -> bool:
    """Whether *text*, an identifier, is or holds the address or the number of a person. A mere row of digits is none."""
    return (_AT in text and _EMAIL.search(text) is not None) or (
        text.startswith("+") and _NUMBER.fullmatch(text) is not None
    )


def _without(text: str, *, words: bool) -> str:
    if (event := _event.get()) is None:
        return text
    folded = text.casefold()
    for known, mask in sorted(_known(event), key=lambda pair: -len(pair[0])):
        if words != (_AT in known or " " in known) and known.casefold() in folded:
            text = re.sub(rf"(?i)(?<!\w){re.escape(known)}(?!\w)", mask, text)
            folded = text.casefold()
    return text


def _known(event: AboutAPerson) -> Iterator[tuple[str, str]]:
    """Yield what names the person in an event, each with its mask."""
    user = event.user
    names = (user.username, user.name, *_NAME_PARTS.split(user.name or ""))
    for value, mask in ((user.email, "<email>"), (user.phone, "<number>"), *((name, "<name>") for name in names)):
        if value and _SHORTEST_NAME <= len(value) <= _LONGEST:
            yield value, mask
    for address in (user.email, user.username):
        local, at, _ = (address or "").rpartition(_AT)
        if at and _SHORTEST <= len(local) <= _LONGEST:
            yield local, "<name>"
    yield from ((value, "<personal>") for value in islice(_personal(event.payload), _MOST))


def _personal(payload: Any) -> Iterator[str]:
    """Yield the texts of a payload that may be about a person: those of several words, and those whose fields are named so."""
    nodes: list[tuple[str, Any]] = [("", payload)]
    for name, node in nodes:  # grows while it is walked
        if isinstance(node, dict):
            nodes += [(str(key), item) for key, item in node.items()]
        elif isinstance(node, list):
            nodes += [(name, item) for item in node]
        elif isinstance(node, str) and _SHORTEST_NAME <= len(node) <= _LONGEST and _is_personal(name, node):
            yield node


def _is_personal(name: str, text: str) -> bool:
    said = len(text) >= _SHORTEST and (" " in text.strip() or not text.isascii())
    return said or _PERSONAL.fullmatch(name.lower()) is not None
