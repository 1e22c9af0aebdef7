"""The watchdog: a blocked loop is logged, with the place."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from typing import Any

from structlog.testing import CapturingLogger

from usher.watchdog import Watchdog


class _LineLogger(CapturingLogger):
    """Lets a test wait, in the blocked thread itself, until the line was written."""

    def __init__(self) -> None:
        super().__init__()
        self.logged = threading.Event()

    def warning(self, event: str, **fields: Any) -> None:
        self.line = (event, fields)
        self.logged.set()


async def test_a_blocked_loop_is_logged_with_the_place_that_blocks_it() -> None:
    """The line names the function that does not come back."""
    logger = _LineLogger()

    def blocks_the_loop() -> None:
        assert logger.logged.wait(20)

    async with Watchdog(logger, limit=0.3):
        await asyncio.sleep(0)
        blocks_the_loop()

    event, fields = logger.line
    assert "blocked" in event
    assert any("blocks_the_loop" in frame for frame in fields["stack"])
    assert fields["seconds"] >= 0.3


async def test_a_loop_that_turns_is_not_logged() -> None:
    """Waiting is not blocking."""
    logger, never = _LineLogger(), asyncio.Event()
    async with Watchdog(logger, limit=0.5):
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(never.wait(), 0.8)

    assert not logger.logged.is_set()
