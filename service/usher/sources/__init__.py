"""Sources: how one identity system's events become Events. `decode` is the door; one file a system behind it."""

from __future__ import annotations

from usher.event import Event, Undecodable
from usher.sources import authgear
from usher.sources.canonical import event_of, text
from usher.sources.document import NotJson, dump, parse, strip
from usher.sources.prefilter import never_filtered, prefilter

__all__ = ["NotJson", "decode", "dump", "event_key", "never_filtered", "parse", "prefilter", "strip"]


def decode(value: bytes) -> Event:
    """The event in these bytes, less credentials. What names no other source is Authgear's.

    Raises:
        Undecodable: there is none; the reason is short and quotes nothing of the content.
    """
    document = parse(value)
    if not isinstance(document, dict):
        raise Undecodable(f"no event: a JSON object was expected, this is a {type(document).__name__}")
    if text(document.get("type")) is None:
        raise Undecodable("no event: the field 'type' is missing, or is no text")
    source = text(document.get("source")) or authgear.NAME
    if source == authgear.NAME:
        return authgear.event(strip(document), value)
    return event_of(strip(document), value)


def event_key(event: Event) -> bytes:
    """The record key of an event: its user, so that a user's events stay in one partition; without a user, the event."""
    return (event.user.id or f"{event.tenant}/{event.id}").encode()
