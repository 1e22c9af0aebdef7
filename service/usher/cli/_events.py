"""Events in files: what a file may hold, where in it each event is, and which bytes of it are kept.

A file holds one JSON object, a JSON array of objects, or JSON lines. Any other content is one event that can't be decoded.
If a source is named, the content is what that system sends, in its own form too, and the source reads it.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from usher.cli._exits import Exit, Stop
from usher.event import Event, Undecodable
from usher.sources import Arrival, NotJson, Source, decode, dump, event_key, parse, strip
from usher.sources.source import undecoded

STDIN = "-"


@dataclass(frozen=True, slots=True)
class Found:
    """One item of a file: where it is, the bytes to store, and the event in them or what is *wrong* with them."""

    where: str
    value: bytes
    event: Event | None
    wrong: str = ""

    @property
    def key(self) -> bytes | None:
        return event_key(self.event) if self.event else None


def read(names: Sequence[str], source: Source | None = None) -> list[Found]:
    """Read the files *names*, in order; ``-`` is stdin.

    Args:
        source: reads them as what its system sends; None: they have the canonical shape, or Authgear's.

    Raises:
        Stop: there is no such file (4), or it can't be read.
    """
    return [found for name in names for found in (_in_file(name) if source is None else _sent(name, source))]


def read_one(name: str, source: Source | None = None) -> Event:
    """Read the file *name*, which holds one event; *source* as for `read`.

    Raises:
        Stop: there is no such file (4); it holds no event, several, or one that can't be decoded (1).
    """
    found = read([name], source)
    if len(found) != 1:
        raise Stop(f"{name} holds {len(found)} events; give a file with one")
    if found[0].event is None:
        raise Stop(f"{found[0].where}: {found[0].wrong}")
    return found[0].event


def _in_file(name: str) -> Iterator[Found]:
    content = _bytes(name)
    if not content.strip():
        return
    try:
        document = parse(content)
    except Undecodable as error:
        yield from _in_lines(name, content, str(error))
        return
    if isinstance(document, list):
        for number, item in enumerate(document, 1):
            yield _one(f"{name}, event {number}", item, dump(item))
    else:
        yield _one(f"{name}:1", document, content.strip())


def _sent(name: str, source: Source) -> Iterator[Found]:
    """Have *source* read the file: as a whole, or else document by document."""
    content = _bytes(name)
    if not content.strip():
        return
    now = time.time()
    whole = _arrivals(source, content, now)
    pieces = [whole]
    if not any(arrival.event for arrival in whole):
        pieces = [_arrivals(source, piece, now) for piece in _documents(content)]
    arrivals = [arrival for piece in pieces for arrival in piece]
    for number, arrival in enumerate(arrivals, 1):
        where = f"{name}, event {number}" if len(arrivals) > 1 else f"{name}:1"
        yield Found(where, arrival.value, arrival.event, arrival.reason)


def _arrivals(source: Source, body: bytes, now: float) -> Sequence[Arrival]:
    try:
        return source.arrivals(body, {}, now)
    except NotJson as error:
        return [undecoded(source.name, "", body, str(error))]


def _documents(content: bytes) -> list[bytes]:
    """Split the content into the documents of an array, or of lines that are all JSON; else leave it whole."""
    try:
        document = parse(content)
        return [dump(item) for item in document] if isinstance(document, list) else [content]
    except Undecodable:
        pass
    lines = [line for line in content.splitlines() if line.strip()]
    try:
        for line in lines:
            parse(line)
    except Undecodable:
        return [content]
    return lines


def _in_lines(name: str, content: bytes, wrong: str) -> Iterator[Found]:
    found: list[Found] = []
    for number, line in enumerate(content.splitlines(), 1):
        if not line.strip():
            continue
        where = f"{name}:{number}"
        try:
            found.append(_one(where, parse(line), line.strip()))
        except Undecodable as error:
            found.append(Found(where, line.strip(), None, str(error)))
    lines = any(item.event or "JSON" not in item.wrong for item in found)
    yield from found if lines else [Found(f"{name}:1", content, None, wrong)]


def _one(where: str, document: Any, value: bytes) -> Found:
    kept = strip(document)
    value = value if kept is document else dump(kept)
    try:
        return Found(where, value, decode(value))
    except Undecodable as error:
        return Found(
            where, value, None, f"{error}; if an identity system sent it in its own form, name the system with --source"
        )


def _bytes(name: str) -> bytes:
    try:
        return sys.stdin.buffer.read() if name == STDIN else Path(name).read_bytes()
    except FileNotFoundError:
        raise Stop(f"there is no file {name}", Exit.NOT_FOUND) from None
    except OSError as error:
        raise Stop(f"{name} can't be read: {error.strerror}") from None
