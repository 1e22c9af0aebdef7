"""What a long operation says while it goes on. The caller decides where it is shown."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


def _nothing(_what: str, _count: int) -> None:
    """Show nothing."""


@dataclass(frozen=True, slots=True)
class ReadingProgress:
    """*read* is called as records are read: of what, and how many in all. *note* is called with a sentence for the operator."""

    read: Callable[[str, int], None] = _nothing
    note: Callable[[str], None] = lambda _text: None
