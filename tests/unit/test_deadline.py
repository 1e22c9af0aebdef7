"""The timeouts of attempts, as a task that is limited sees them."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from usher.engine.deadline import Deadlines


async def test_what_takes_too_long_is_a_timeout() -> None:
    """The wait inside ends, and the task is not cancelled as a whole."""
    with pytest.raises(TimeoutError), Deadlines().limit(0.01):
        await asyncio.Event().wait()

    task = asyncio.current_task()
    assert task is not None
    assert not task.cancelling()


async def test_each_of_many_has_its_own_time() -> None:
    """Those that ended in time are left alone, whatever became of those beside them."""
    deadlines = Deadlines()
    release = asyncio.Event()

    async def attempt(*, waits: bool) -> str:
        try:
            with deadlines.limit(0.05):
                await (asyncio.Event().wait() if waits else release.wait())
        except TimeoutError:
            return "too late"
        return "in time"

    waiting = [asyncio.create_task(attempt(waits=number % 2 == 0)) for number in range(6)]
    await asyncio.sleep(0)
    release.set()

    assert await asyncio.gather(*waiting) == ["too late", "in time"] * 3


async def test_a_clock_that_is_stopped_does_not_count() -> None:
    """What waits for its turn may wait longer than it may run; started again, it has the whole time anew."""
    limit = Deadlines().limit(0.02)
    loop = asyncio.get_running_loop()
    began = 0.0

    async def attempt() -> None:
        nonlocal began
        with limit:
            limit.stop()
            turn = loop.create_future()
            loop.call_later(0.1, turn.set_result, None)
            await turn
            limit.start()
            began = loop.time()
            await asyncio.Event().wait()

    with pytest.raises(TimeoutError):
        await attempt()
    assert loop.time() - began >= 0.02


async def test_a_cancellation_from_outside_stays_one() -> None:
    """A task that is ended from outside gets no timeout."""

    async def attempt() -> None:
        with Deadlines().limit(60):
            await asyncio.Event().wait()

    task = asyncio.create_task(attempt())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_what_swallows_the_cancellation_has_not_timed_out() -> None:
    """It went on and came to an end: that is its outcome, as with `asyncio.timeout`."""
    with Deadlines().limit(0.01) as limit, contextlib.suppress(asyncio.CancelledError):
        await asyncio.Event().wait()

    assert limit.expired
    await asyncio.sleep(0)  # the task is not being cancelled any more
