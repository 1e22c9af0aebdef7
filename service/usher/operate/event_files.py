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

from usher.event import Event, Undecodable
from usher.operate.errors import NotDecodable, NotFound, OperateError
from usher.settings import Settings
from usher.systems.decode import decode
from usher.systems.document import NotJson, dump, parse
from usher.systems.open import open_source
from usher.systems.source import Arrival, Source, event_key, own, undecoded
from usher.systems.strip import strip

STDIN = "-"


@dataclass(frozen=True, slots=True)
class FileItem:
    """One item of a file: where it is, the bytes to store, and the event in them or what is *wrong* with them."""

    where: str
    value: bytes
    event: Event | None
    wrong: str = ""

    @property
    def key(self) -> bytes | None:
        return event_key(self.event) if self.event else None


def read(settings: Settings, names: Sequence[str], source: str | None = None) -> list[FileItem]:
    """Read the files *names*, in order; ``-`` is stdin.

    Args:
        source: the system whose own form they have, as in ``keycloak`` or ``keycloak/shop``; None: they have the canonical
            shape, or Authgear's.

    Raises:
        NotFound: there is no such file.
        OperateError: a file can't be read.
        SettingsError: there is no such system or tenant.
    """
    reader = None if source is None else open_source(settings, source)
    return [item for name in names for item in (_in_file(name) if reader is None else _sent(name, reader))]


def read_one(settings: Settings, name: str, source: str | None = None) -> Event:
    """Read the file *name*, which holds one event; *source* as for `read`.

    Raises:
        NotDecodable: it holds something else.
        OperateError, SettingsError: as for `read`; or the file holds no event, or several.
    """
    items = read(settings, [name], source)
    if len(items) != 1:
        raise OperateError(f"{name} holds {len(items)} events; give a file with one")
    if items[0].event is None:
        raise NotDecodable(f"{items[0].where}: {items[0].wrong}")
    return items[0].event


def _in_file(name: str) -> Iterator[FileItem]:
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


def _sent(name: str, source: Source) -> Iterator[FileItem]:
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
        yield FileItem(where, arrival.value, arrival.event, arrival.reason)


def _arrivals(source: Source, body: bytes, now: float) -> Sequence[Arrival]:
    try:
        return [own(source, arrival) for arrival in source.arrivals(body, {}, now)]
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


def _in_lines(name: str, content: bytes, wrong: str) -> Iterator[FileItem]:
    found: list[FileItem] = []
    for number, line in enumerate(content.splitlines(), 1):
        if not line.strip():
            continue
        where = f"{name}:{number}"
        try:
            found.append(_one(where, parse(line), line.strip()))
        except Undecodable as error:
            found.append(FileItem(where, line.strip(), None, str(error)))
    lines = any(item.event or "JSON" not in item.wrong for item in found)
    yield from found if lines else [FileItem(f"{name}:1", content, None, wrong)]


def _one(where: str, document: Any, value: bytes) -> FileItem:
    kept = strip(document)
    value = value if kept is document else dump(kept)
    try:
        return FileItem(where, value, decode(value))
    except Undecodable as error:
        return FileItem(where, value, None, str(error))


def _bytes(name: str) -> bytes:
    try:
        return sys.stdin.buffer.read() if name == STDIN else Path(name).read_bytes()
    except FileNotFoundError:
        raise NotFound(f"there is no file {name}") from None
    except OSError as error:
        raise OperateError(f"{name} can't be read: {error.strerror}") from None
