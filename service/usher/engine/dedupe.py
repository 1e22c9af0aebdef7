"""Dedupe: the events seen lately in one partition."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

from usher.delivery import stated_time
from usher.event import EventUid

_RECENT_LIMIT = 100_000
_OTHERS = 64
"""So many records in a row have to be of a later time before those of an earlier one are forgotten."""
_FOREVER = 2**63


class Recent:
    """Remembers the events seen lately in one partition: a second arrival within *window* seconds is a duplicate.

    The times are those of the records, which strangers write: *now* (Unix seconds) is the latest that counts, and the window
    moves with the lowest of the last records. So one producer whose clock is ahead makes nothing of the others forgotten.
    """

    def __init__(self, window: float, now: Callable[[], float]) -> None:
        self._window = int(window * 1000)
        self._now = now
        self._seen: OrderedDict[EventUid, tuple[int, int, int]] = OrderedDict()
        """The offset of each event, its time, and the time that its record states: our own clock may be the wrong one."""
        self._lowest = self._lowest_before = _FOREVER
        self._counted = 0

    def duplicate(self, uid: EventUid, offset: int, timestamp: int) -> bool:
        """Return whether an earlier record had this event. If not, remember it. *timestamp* is in Unix milliseconds."""
        now = int(self._now() * 1000)
        stated = stated_time(timestamp, now)
        at = min(stated, now)
        known = self._seen.get(uid)
        if known is not None and known[0] < offset and at - known[2] <= self._window:
            return True
        if known is None or known[0] < offset:
            self._seen[uid] = (offset, at, stated)
            if known is not None:
                self._seen.move_to_end(uid)
            self._lowest = min(self._lowest, at)
            self._counted += 1
            if self._counted == _OTHERS:
                self._prune()
        return False

    def _prune(self) -> None:
        present = min(self._lowest, self._lowest_before)
        self._counted, self._lowest_before, self._lowest = 0, self._lowest, _FOREVER
        while self._seen:
            _, at, _ = next(iter(self._seen.values()))
            if present - at <= self._window and len(self._seen) <= _RECENT_LIMIT:
                return
            self._seen.popitem(last=False)
