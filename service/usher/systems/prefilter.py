"""The prefilter: it looks at a record's bytes, before anything is parsed, and drops those that no handler can be for.

It relies on one fact: an event's ``triggered_by`` is a JSON string of its document, unchanged. So the bytes hold it between
quotes, unless one of its characters is written as an escape.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Protocol

from usher.delivery import Headers
from usher.event import UNKNOWN

_PLAIN = re.compile(r"[A-Za-z0-9_.:@ -]+")
"""Actors made of these have two spellings in JSON: themselves, and ones with ``\\u`` in them."""


_CLOUD_EVENT = b"application/cloudevents"
_BACKSLASH = ord("\\")
"""A number, so that the search is a memchr: a search for a text of two characters is fifty times slower."""


class MayBeOurs(Protocol):
    """Says whether a record with this value and these headers may be for a handler."""

    def __call__(self, value: bytes | None, headers: Headers = (), /) -> bool: ...


def prefilter(actors: Collection[str]) -> MayBeOurs:
    """Make a function that says no only to records that no source decodes to an event triggered by one of *actors*.

    It says yes to records without a value, and to bytes that do not look like one JSON object, so that garbage is
    dead-lettered and not filtered. It always says yes where the bytes can't decide: an actor ``unknown`` may be one that is
    missing, an actor with other characters than letters, digits and a few signs has many spellings, and a CloudEvent in
    structured form may hold its content encoded.
    """
    if any(actor == UNKNOWN or not _PLAIN.fullmatch(actor) for actor in actors):
        return _always
    # rfind, not in: it is twice as fast here, and Authgear writes the context last.
    literals = tuple(f'"{actor}"'.encode() for actor in sorted(actors))
    return _one(literals[0]) if len(literals) == 1 else _any(literals)


def never_filtered(value: bytes) -> bytes:
    """Change *value* so that every prefilter lets it through: JSON objects get a line feed, which changes nothing in them.

    For bytes that are known to be undecodable and must end as a dead letter, no matter which actor they name.
    """
    return value if _in_doubt(value) else value + b"\n"


def _one(literal: bytes) -> MayBeOurs:
    def may_be_ours(value: bytes | None, headers: Headers = (), /) -> bool:
        # `_in_doubt`, written out: this runs for every record, and a call is a good part of its cost.
        return (
            value is None
            or value.rfind(literal) >= 0
            or value[:1] != b"{"
            or value[-1:] != b"}"
            or (_BACKSLASH in value and b"\\u" in value)
            or (len(headers) > 0 and _in_an_envelope(headers))
        )

    return may_be_ours


def _any(literals: tuple[bytes, ...]) -> MayBeOurs:
    def may_be_ours(value: bytes | None, headers: Headers = (), /) -> bool:
        if value is None:
            return True
        for literal in literals:  # a generator would cost more than the search
            if value.rfind(literal) >= 0:
                return True
        return _in_doubt(value) or (len(headers) > 0 and _in_an_envelope(headers))

    return may_be_ours


def _in_doubt(value: bytes) -> bool:
    return value[:1] != b"{" or value[-1:] != b"}" or (_BACKSLASH in value and b"\\u" in value)


def _in_an_envelope(headers: Headers) -> bool:
    """Return whether a record says that it is a CloudEvent in structured form (Kafka binding 1.0, 3.3)."""
    return any(name.lower() == "content-type" and value.startswith(_CLOUD_EVENT) for name, value in headers)


def _always(_value: bytes | None, _headers: Headers = (), /) -> bool:
    return True
