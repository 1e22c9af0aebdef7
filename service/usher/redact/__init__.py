"""Find personal data and secrets in a text, and take them out.

This is done to every text that comes from a handler, a provider or a library and goes to a log line, a header or a terminal:
exception messages quote the values that they are about. The patterns are broad on purpose: masking a number too many does no
harm. What an operator needs stays: addresses of servers, times, UUIDs, and texts of ours.
"""

from __future__ import annotations

from functools import lru_cache

from usher.redact.people import about, holds_person, without_people, without_quotes
from usher.redact.secrets import changes, know, without_secrets
from usher.redact.shapes import plainer, without_credentials, without_paths

__all__ = ["Ours", "about", "holds_person", "know", "scrub", "scrub_field", "without_secrets"]

_MOST_ROUNDS = 4
_LIMIT = 300
"""The characters that are kept of a text: headers are copied into every later record, and must stay small."""

_SHORT = 40
"""Characters. Fields of that length are mostly ours (what happened, names of channels and templates), and come again and again."""


class Ours(str):
    """A text of our own words, of settings, and of what was scrubbed. `scrub` leaves it as it is, but for known secrets.

    So the addresses, offsets and commands that an operator needs stay. Where it becomes a part of another text that is lost.
    """

    __slots__ = ()

    def __str__(self) -> str:
        return self  # so that the text of an exception stays one of ours


def scrub(text: object, limit: int = _LIMIT) -> Ours:
    """Return *text* on one line of at most *limit* characters, without addresses, phone numbers, credentials or what `about` names."""
    return _scrubbed(text, limit, known=True)


def scrub_field(text: object) -> Ours:
    """`scrub` a field of a log line: there are several in the line of each delivery, so it is not searched for what `about` names."""
    if type(text) is str and len(text) <= _SHORT:
        return _scrubbed_once(text, changes())
    return _scrubbed(text, _LIMIT, known=False)


@lru_cache(1024)
def _scrubbed_once(text: str, _changes: int) -> Ours:
    return _scrubbed(text, _LIMIT, known=False)


def _scrubbed(text: object, limit: int, *, known: bool) -> Ours:
    written = _written(text, limit * 8)
    line = without_secrets(" ".join(written.split()))
    if isinstance(written, Ours):
        return Ours(line)  # whole: half a command can't be pasted
    for _ in range(_MOST_ROUNDS):  # a mask beside another text may make it look like more
        before, line = line, _masked(line, known=known)
        if line == before:
            break
    return Ours(line if len(line) <= limit else line[: limit - 1] + "…")


def _masked(line: str, *, known: bool) -> str:
    if known:
        line = without_quotes(line)
    line = without_paths(line)
    masked = without_people(without_credentials(line, "text"), known=known)
    plain = " ".join(plainer(line).split())
    if plain != line:  # what is hidden by an encoding is found in the plain text only
        again = without_secrets(without_quotes(plain) if known else plain)
        again = without_people(without_credentials(again, "text"), known=known)
        if again != plain:
            return again
    return masked


def _written(text: object, longest: int) -> str:
    """Return *text* so that UTF-8 can encode it, even if it is an exception that can't be printed."""
    try:
        given = str(text)
        cut = (
            given if len(given) <= longest else given[:longest].rpartition(" ")[0] or given[:longest]
        )  # no half secret
        written = cut.encode("utf-8", "replace").decode()
        return Ours(written) if isinstance(given, Ours) else written
    except Exception:  # noqa: BLE001  the exception of a handler is code of others, and must not break the report of it
        return f"{type(text).__name__} (it can't be printed)"
