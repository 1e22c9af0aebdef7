"""A background task ends when it is cancelled, or when its work is done, and at nothing else."""

from __future__ import annotations

import asyncio

import pytest
from structlog.testing import capture_logs

from usher import background

FAILED = "a background task failed, it begins again"


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(background, "_PAUSE", 0.0)


@pytest.mark.parametrize("error", [RuntimeError("odd"), asyncio.CancelledError()])
async def test_what_fails_is_logged_and_begins_again(error: BaseException) -> None:
    """Also where the client under it cancels what was awaited: nobody has ended the task."""
    runs: list[str] = []

    async def work(name: str) -> None:
        runs.append(name)
        if len(runs) < 3:
            raise error

    with capture_logs() as lines:
        await background.begin(work, "the work")

    assert runs == ["the work"] * 3
    assert [(line["event"], line["log_level"]) for line in lines] == [(FAILED, "error")] * 2


async def test_a_task_that_is_cancelled_ends() -> None:
    """Its owner wanted it: nothing is logged."""
    begun = asyncio.Event()

    async def work() -> None:
        begun.set()
        await asyncio.Event().wait()

    with capture_logs() as lines:
        task = background.begin(work)
        await begun.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    assert lines == []
