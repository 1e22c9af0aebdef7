"""The timeouts of attempts. Hides that all limits of the same length share one timer: `asyncio.timeout` would need one for each.

Limits of the same length end in the order in which they began, so the first of a queue is the next one to end.
"""

from __future__ import annotations

import asyncio
from types import TracebackType


class Limit:
    """A context manager that cancels its task once the time is over; the block then raises TimeoutError.

    `stop` it while the time should not count, and `start` it again with the whole time: it is the `AttemptClock` of an attempt.
    """

    __slots__ = ("_cancelling", "_not_to_wait", "_queue", "_task", "_waits", "expired")

    def __init__(self, queue: _Queue) -> None:
        self._queue = queue
        self.expired = self._waits = self._not_to_wait = False

    def __enter__(self) -> Limit:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - an attempt runs in a task
        self._task = task
        self._cancelling = task.cancelling()
        self._queue.add(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._queue.waiting.pop(self, None)
        self._waits = False
        if self.expired and self._task.uncancel() <= self._cancelling and kind is asyncio.CancelledError:
            raise TimeoutError from error

    def stop(self) -> None:
        self._queue.waiting.pop(self, None)
        self._waits = True
        if self._not_to_wait:
            asyncio.get_running_loop().call_soon(self._end_waiting)

    def start(self) -> None:
        self._queue.waiting.pop(self, None)
        self._waits = False
        if not self.expired:
            self._queue.add(self)

    def end_waiting(self) -> None:
        """Cancel the task if the time is stopped, now or later: what it waits for is not to begin any more."""
        self._not_to_wait = True
        self._end_waiting()

    def _end_waiting(self) -> None:
        if self._waits:
            self._waits = False
            self._task.cancel()

    def expire(self) -> None:
        self.expired = True
        self._task.cancel()


class _Queue:
    """The limits of *seconds*. *waiting* maps each to its end, by the clock of the loop, the earliest first."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self.waiting: dict[Limit, float] = {}

    def add(self, limit: Limit) -> None:
        end = self.waiting[limit] = self._loop.time() + self._seconds
        if self._timer is None:
            self._timer = self._loop.call_at(end, self._fire)

    def _fire(self) -> None:
        self._timer = None
        now = self._loop.time()
        while self.waiting:
            limit, end = next(iter(self.waiting.items()))
            if end > now:
                self._timer = self._loop.call_at(end, self._fire)
                return
            del self.waiting[limit]
            limit.expire()


class Deadlines:
    """Makes limits for one event loop."""

    def __init__(self) -> None:
        self._queues: dict[float, _Queue] = {}

    def limit(self, seconds: float) -> Limit:
        """Make a limit of so many seconds. It has not begun yet."""
        queue = self._queues.get(seconds)
        if queue is None:
            queue = self._queues[seconds] = _Queue(seconds)
        return Limit(queue)
