"""The reader of stored events. A system's `Source` reads what the system sends, once, before it is stored.

What is stored is in the canonical form, or as Authgear writes it, which is almost the same.
"""

from __future__ import annotations

from usher.event import Event, Undecodable
from usher.systems.authgear import source as authgear
from usher.systems.canonical import event_of, of_envelope, text
from usher.systems.document import parse, unwrap
from usher.systems.strip import strip


def decode(value: bytes) -> Event:
    """Read the event in these stored bytes, less credentials. A document that names no other source is Authgear's.

    Raises:
        Undecodable: there is no event; the reason is short and quotes nothing of the content.
    """
    document = parse(value)
    if not isinstance(document, dict):
        raise Undecodable(f"no event: a JSON object was expected, this is a {type(document).__name__}")
    if text(document.get("type")) is None or "specversion" in document:
        document = _inner(document)
    kept = strip({**document, "source": text(document.get("source")) or authgear.NAME})
    if text(kept["type"]) is None or text(kept["source"]) is None:
        raise Undecodable("no event: the type or the source is a document within a text, which can't be read")
    return authgear.event(kept, value) if kept["source"] == authgear.NAME else event_of(kept, value)


def _inner(document: dict[str, object]) -> dict[str, object]:
    """Take the document out of a CloudEvent. Data that is no event itself takes the envelope's type."""
    inner = unwrap(document)
    if "specversion" in document and text(document.get("type")) is not None:
        if inner is document:  # it has no data
            return of_envelope(document, {})
        if not isinstance(inner, dict) or text(inner.get("type")) is None:
            return of_envelope(document, inner)
    if not isinstance(inner, dict) or text(inner.get("type")) is None:
        stub = text(document.get("undecodable"))  # `source.undecoded` made it
        raise Undecodable(stub or "no event: the field 'type' is missing, or is no text")
    return inner
