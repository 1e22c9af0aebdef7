"""The cheap question "may this be ours?", asked of a record's bytes before anything is parsed.

It rests on one fact: an event's ``triggered_by`` is a JSON string of its document, taken as it stands. So the bytes hold
it between quotes, unless some character of it is written as an escape.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection

from usher.delivery import Headers
from usher.event import UNKNOWN

_PLAIN = re.compile(r"[A-Za-z0-9_.:@ -]+")
"""Actors made of these have two spellings in JSON: themselves, and ones with ``\\u`` in them."""


_CLOUD_EVENT = b"application/cloudevents"
_BACKSLASH = ord("\\")
"""Looked for as a number: that is a memchr, and a text of two characters is fifty times slower to find."""


def prefilter(actors: Collection[str]) -> Callable[[bytes], bool]:
    """A function that says no only to bytes that no source decodes to an event triggered by one of *actors*.

    It says yes to what does not look like one JSON object, so that garbage is dead-lettered and not filtered. It is off
    (always yes) where the bytes can't tell: an actor ``unknown`` may be one that is missing, and one with other
    characters than letters, digits and a few signs has many spellings.
    """
    if any(actor == UNKNOWN or not _PLAIN.fullmatch(actor) for actor in actors):
        return _always
    # rfind, not in: it is twice as fast here, and Authgear writes the context last.
    literals = tuple(f'"{actor}"'.encode() for actor in sorted(actors))
    return _one(literals[0]) if len(literals) == 1 else _any(literals)


def never_filtered(value: bytes) -> bytes:
    """*value* in a form that every prefilter lets through: JSON objects get a line feed, which changes nothing in them.

    For what is known to be undecodable and must end as a dead letter, whoever it names.
    """
    return value if _in_doubt(value) else value + b"\n"


def in_an_envelope(headers: Headers) -> bool:
    """Whether a record says that it is a CloudEvent in structured form, in which anything may be encoded (Kafka binding 1.0, 3.3)."""
    return any(name.lower() == "content-type" and value.startswith(_CLOUD_EVENT) for name, value in headers)


def _one(literal: bytes) -> Callable[[bytes], bool]:
    def may_be_ours(value: bytes) -> bool:
        # `_in_doubt`, written out: this is asked of every record, and a call is a good part of what it costs.
        return (
            value.rfind(literal) >= 0
            or value[:1] != b"{"
            or value[-1:] != b"}"
            or (_BACKSLASH in value and b"\\u" in value)
        )

    return may_be_ours


def _any(literals: tuple[bytes, ...]) -> Callable[[bytes], bool]:
    def may_be_ours(value: bytes) -> bool:
        for literal in literals:  # a generator would cost more than the search
            if value.rfind(literal) >= 0:
                return True
        return _in_doubt(value)

    return may_be_ours


def _in_doubt(value: bytes) -> bool:
    return value[:1] != b"{" or value[-1:] != b"}" or (_BACKSLASH in value and b"\\u" in value)


def _always(_value: bytes) -> bool:
    return True
