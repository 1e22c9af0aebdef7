"""Notice that the event loop is blocked, and log by what. A thread does it, since nothing on the loop can run meanwhile.

A handler that makes a synchronous call stops every other delivery, the polling of the event log, and the probes.
"""

from __future__ import annotations

import asyncio
import sys
import threading
import time
import traceback
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import TracebackType

    from structlog.typing import FilteringBoundLogger

_BEAT = 0.2
_FRAMES = 12


class Watchdog:
    """A context manager around the running loop. If it is blocked for more than *limit* seconds, it logs one line with the stack.

    The stack is file, line and function of each frame, never the values of variables.
    """

    def __init__(self, logger: FilteringBoundLogger, limit: float = 1.0) -> None:
        self._logger = logger
        self._limit = limit
        self._beat_at = time.monotonic()
        self._ended = threading.Event()
        self._watched = threading.get_ident()
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)
        self._beating: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Watchdog:
        self._beat_at = time.monotonic()
        self._watched = threading.get_ident()
        self._beating = asyncio.create_task(self._beat())
        self._thread.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        if self._beating is not None:
            self._beating.cancel()

    async def _beat(self) -> None:
        while True:
            self._beat_at = time.monotonic()
            await asyncio.sleep(_BEAT)

    def _watch(self) -> None:
        logged = 0.0
        while not self._ended.wait(_BEAT):
            beat = self._beat_at
            blocked = time.monotonic() - beat
            if blocked > self._limit and beat != logged:
                logged = beat
                self._logger.warning(
                    "the event loop is blocked: a handler makes a call that does not await",
                    seconds=round(blocked, 1),
                    stack=self._stack(),
                )

    def _stack(self) -> list[str]:
        frame = sys._current_frames().get(self._watched)
        entries = traceback.extract_stack(frame)[-_FRAMES:] if frame else []
        return [f"{entry.filename.rpartition('/')[2]}:{entry.lineno} {entry.name}" for entry in entries]
