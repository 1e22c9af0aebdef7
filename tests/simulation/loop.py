"""An event loop whose clock does not wait, whose order of steps is drawn from a seed, and whose processes can die or freeze.

A process is a mark in the context of what it starts: tasks inherit it, so everything that a worker sets going belongs to
it. What belongs to a dead process never runs again, not even its ``finally``; what belongs to a frozen one runs once thawed.
"""

from __future__ import annotations

import asyncio
import contextvars
import random
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any

from tests.jumping_loop import JumpingLoop

PROCESS: contextvars.ContextVar[Process | None] = contextvars.ContextVar("process", default=None)


@dataclass(eq=False)
class Process:
    """One simulated operating system process."""

    name: str
    dead: bool = False
    frozen: bool = False
    wrong_by: float = 0.0
    """Seconds that its wall clock is ahead."""
    waiting: list[Callable[[], None]] = field(default_factory=list)


class SimulatedLoop(JumpingLoop):
    """Time jumps to the next timer; ready callbacks run in an order that *rng* draws."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        super().__init__()

    def spawn(self, process: Process | None, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Start *work* as part of *process*; None: of the world around the processes."""
        context = contextvars.copy_context()
        context.run(PROCESS.set, process)
        return self.create_task(work, context=context)

    def thaw(self, process: Process) -> None:
        process.frozen = False
        waiting, process.waiting = process.waiting, []
        for run in waiting:
            super().call_soon(run)

    def call_soon(self, callback: Any, *args: Any, context: contextvars.Context | None = None) -> Any:  # type: ignore[override]
        if self.is_closed():  # the collector ends coroutines of killed processes: there is no loop to run this
            return None
        context = contextvars.copy_context() if context is None else context
        guarded = _guarded(callback, context)
        handle = super().call_soon(guarded, *args, context=context)
        _tie(guarded, handle)
        return handle

    def call_at(  # type: ignore[override]
        self, when: float, callback: Any, *args: Any, context: contextvars.Context | None = None
    ) -> Any:
        context = contextvars.copy_context() if context is None else context
        guarded = _guarded(callback, context)
        handle = super().call_at(when, guarded, *args, context=context)
        _tie(guarded, handle)
        return handle

    def _run_once(self) -> None:
        ready: Any = self._ready  # type: ignore[attr-defined]  # what asyncio's own loop runs next
        if len(ready) > 1:
            order = list(ready)
            self._rng.shuffle(order)
            ready.clear()
            ready.extend(order)
        super()._run_once()  # type: ignore[misc]


def _guarded(callback: Any, context: contextvars.Context) -> Any:
    process = context.get(PROCESS)
    if process is None or hasattr(callback, "handle"):
        return callback

    def run(*args: Any) -> None:
        if process.dead:
            return
        if process.frozen:
            process.waiting.append(lambda: None if run.handle.cancelled() else context.run(run, *args))  # type: ignore[attr-defined]
            return
        callback(*args)

    run.handle = None  # type: ignore[attr-defined]
    return run


def _tie(guarded: Any, handle: asyncio.Handle) -> None:
    """Let a callback that waits for a frozen process know its handle: it may be cancelled meanwhile."""
    if hasattr(guarded, "handle"):
        guarded.handle = handle
