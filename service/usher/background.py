"""Background tasks that nobody awaits: none of them ends unnoticed.

A client under one may raise more than it documents, a cancellation of its own among it. So a task that fails is logged, and begins again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final, TypeVarTuple, Unpack

import structlog

_logger = structlog.get_logger(__name__)
_PAUSE: Final = 1.0
_Arguments = TypeVarTuple("_Arguments")


def begin(work: Callable[[Unpack[_Arguments]], Awaitable[None]], *arguments: *_Arguments) -> asyncio.Task[None]:
    """Run *work* in a task until it returns or the task is cancelled. After an error *work* begins again."""

    async def persist() -> None:
        while True:
            try:
                return await work(*arguments)
            except (Exception, asyncio.CancelledError) as error:
                if isinstance(error, asyncio.CancelledError) and task.cancelling():
                    raise
                _logger.exception("a background task failed, it begins again", task=work.__qualname__)
            await asyncio.sleep(_PAUSE)

    task = asyncio.create_task(persist())
    return task
