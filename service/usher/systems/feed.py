"""The protocol of feeds: logs of identity systems that are read page by page. `usher.systems.poll` reads them into the event log."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from usher.systems.source import Arrival


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
