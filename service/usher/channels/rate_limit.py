"""The rate limit of one tenant: an import of thousands of users must not become thousands of mails in one moment.

Hides when deferred messages come again: each gets a moment of its own, in the order in which they asked. So no crowd
comes back at once, and none that waits is overtaken.
"""

from __future__ import annotations

import time
from collections import OrderedDict, deque
from collections.abc import Callable

from usher.metrics import Metrics
from usher.outcome import Hold

_MINUTE = 60.0
_SLOWER = 1.02
"""The moments lie a little further apart than the limit allows: a message that comes at its moment must find room, though
others were late."""
_GIVEN_UP = 60.0
"""Seconds after its moment in which a deferred message is expected; it may have gone to another worker, or expired."""
_MOST = 100_000
"""Moments that are remembered. A message beyond them asks anew when it comes."""


class RateLimit:
    """At most *per_minute* messages in any minute, of what this process sends for one tenant.

    Args:
        title: names the tenant in reasons and in the metric, as in ``genauth/shop``.
        clock: monotonic seconds.
    """

    def __init__(
        self, title: str, per_minute: int, metrics: Metrics, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.title, self._per_minute, self._clock = title, per_minute, clock
        self._rate_limited = metrics.rate_limited.labels(title)
        self._sent: deque[float] = deque(maxlen=per_minute)
        self._moments: OrderedDict[str, float] = OrderedDict()
        """The deferred messages and their moments, in the order of the moments."""
        self._last = float("-inf")

    def take(self, key: str) -> None:
        """Count the message *key* (its idempotency key) as sent now.

        Raises:
            Hold: not now; says when.
        """
        now = self._clock()
        self._forget(now)
        expected = self._moments.pop(key, None) is not None
        if self._has_room(now) and (expected or not self._moments):
            self._sent.append(now)
            return
        self._rate_limited.inc()
        self._last = self._next(now)
        if len(self._moments) < _MOST:
            self._moments[key] = self._last
        raise Hold(f"{self.title} has had its {self._per_minute} messages of this minute", after=self._last - now)

    def _has_room(self, now: float) -> bool:
        return len(self._sent) < self._per_minute or self._sent[0] <= now - _MINUTE

    def _next(self, now: float) -> float:
        """The moment after all that were given, and not before there is room again."""
        spacing = _MINUTE / self._per_minute * _SLOWER
        room = self._sent[0] + _MINUTE if len(self._sent) == self._per_minute else now
        return max(room, self._last, now) + spacing

    def _forget(self, now: float) -> None:
        """Forget the messages that did not come when they were expected."""
        while self._moments and next(iter(self._moments.values())) < now - _GIVEN_UP:
            self._moments.popitem(last=False)
