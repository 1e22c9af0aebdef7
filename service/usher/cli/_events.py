"""Events in files: what a file may hold, where in it each event lies, and what is kept of it.

A file holds one JSON object, a JSON array of them, or JSON lines. What is none of these is one event that can't be decoded.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from usher.cli._exits import Exit, Stop
from usher.event import Event, Undecodable
from usher.sources import decode, dump, event_key, parse, strip

STDIN = "-"


@dataclass(frozen=True, slots=True)
class Found:
    """What a file holds in one place: the bytes to be stored, and the event in them or what is *wrong*."""

    where: str
    value: bytes
    event: Event | None
    wrong: str = ""

    @property
    def key(self) -> bytes | None:
        return event_key(self.event) if self.event else None


def read(names: Sequence[str]) -> list[Found]:
    """What the files *names* hold, in order; ``-`` is stdin.

    Raises:
        Stop: there is no such file (4), or it can't be read.
    """
    return [found for name in names for found in _in_file(name)]


def read_one(name: str) -> Event:
    """The one event in the file *name*.

    Raises:
        Stop: no such file (4); there is none in it, it can't be decoded, or there are several (1).
    """
    found = read([name])
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
        return Found(where, value, None, str(error))


def _bytes(name: str) -> bytes:
    try:
        return sys.stdin.buffer.read() if name == STDIN else Path(name).read_bytes()
    except FileNotFoundError:
        raise Stop(f"there is no file {name}", Exit.NOT_FOUND) from None
    except OSError as error:
        raise Stop(f"{name} can't be read: {error.strerror}") from None
