"""Dedupe: the events seen lately in one partition."""

from __future__ import annotations

from collections import OrderedDict

from usher.event import EventUid

_RECENT_LIMIT = 100_000


class Recent:
    """Remembers the events seen lately in one partition: a second arrival within *window* seconds is a duplicate."""

    def __init__(self, window: float) -> None:
        self._window = int(window * 1000)
        self._seen: OrderedDict[EventUid, tuple[int, int]] = OrderedDict()

    def duplicate(self, uid: EventUid, offset: int, timestamp: int) -> bool:
        """Return whether an earlier record had this event. If not, remember it. *timestamp* is in Unix milliseconds."""
        known = self._seen.get(uid)
        if known is not None and known[0] < offset and timestamp - known[1] <= self._window:
            return True
        if known is None or known[0] < offset:
            self._seen[uid] = (offset, timestamp)
            self._seen.move_to_end(uid)
            self._prune(timestamp)
        return False

    def _prune(self, now: int) -> None:
        while self._seen:
            _, timestamp = next(iter(self._seen.values()))
            if now - timestamp <= self._window and len(self._seen) <= _RECENT_LIMIT:
                return
            self._seen.popitem(last=False)
