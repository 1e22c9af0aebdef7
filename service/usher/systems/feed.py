"""The protocol of feeds: logs of identity systems that are read page by page. `usher.systems.poll` reads them into the event log."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import NamedTuple, Protocol

from usher.outcome import Reject
from usher.systems.source import Arrival

_AHEAD = 86_400.0
"""Seconds by which a kept time may be ahead: clocks differ by less. A feed would wait in silence for a time further off."""


class FeedPage(NamedTuple):
    """The result of one look: arrivals in the order in which they happened, where to continue, and whether there is more at once.

    *cursor* is the feed's own, at most some kilobytes.
    """

    arrivals: Sequence[Arrival]
    cursor: bytes
    more: bool = False


class Feed(Protocol):
    """A log of an identity system that can be read from a known position on. A feed that keeps a connection closes it in `close`."""

    @property
    def name(self) -> str:
        """The name of the feed, unique in its group and for ever: its position is kept under this name."""

    @property
    def every(self) -> float:
        """Seconds between looks while there is nothing new; 0 if `page` itself waits for news."""

    async def page(self, cursor: bytes | None) -> FeedPage:
        """Read what came after *cursor*, at most a page of it; None: begin now, bring nothing of the past.

        Pages may overlap: events that were brought before are recognised by their ids.

        Raises:
            usher.outcome.Retry, usher.outcome.Hold: not now; says when.
            usher.outcome.Reject: the cursor can't be used any more. Polling continues from now, and says so.
        """

    def since(self, cursor: bytes) -> float:
        """Return the earliest time (Unix seconds, the system's clock) of an event in the page after *cursor*."""

    async def close(self) -> None: ...


@contextlib.contextmanager
def reading_cursor(of: str) -> Iterator[None]:
    """Read the cursor of the feed of *of* in this block: whatever one that is not ours makes it raise becomes a `Reject`."""
    try:
        yield
    except (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError):
        raise Reject(f"the position that was kept for {of} can't be read") from None


def moment_in_cursor(value: float | str, now: float) -> float:
    """Return a time in a cursor as a number, where it can be one that was kept before *now* (both Unix seconds).

    Raises:
        ValueError, TypeError
    """
    moment = float(value)
    if not 0 <= moment <= now + _AHEAD:
        raise ValueError("no time that a feed keeps")
    return moment
