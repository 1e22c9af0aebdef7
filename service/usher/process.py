"""The process of `usher run`: its signals, its event loop, its garbage collector, and the last way out."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import sys
import threading
import time
from collections.abc import Callable

from usher import __version__, logs
from usher.app import App, build
from usher.outcome import Duration, seconds
from usher.settings import Settings

_COLLECT = (50_000, 25, 25)
"""Thresholds of the cyclic garbage collector. Thousands of deliveries in flight are alive, not garbage: with Python's own
thresholds looking through them again and again takes a quarter of the time."""
_ONE_SIGNAL = 1.0
"""Seconds in which a second signal is the first one again: a terminal, `timeout` or an init signal a process and its group."""


def run(settings: Settings) -> int:
    """`usher run`: serve until SIGTERM or SIGINT. Returns the exit code.

    Raises:
        HandlerError, SettingsError, LogMisconfigured, OSError: it could not start; the text is for the operator.
    """
    logs.configure(settings.log_level, settings.log_format)
    collect_less()
    app = build(settings)
    _tell_handlers(app)
    runner = asyncio.Runner(loop_factory=_loop_factory())
    loop = runner.get_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, _on_signal, app, settings.shutdown_grace)
    runner.run(app.run())
    left = [task for task in asyncio.all_tasks(loop) if not task.done()]
    if left:  # handlers that will not be cancelled: their deliveries are undone in the commit, and run again
        app.logger.warning("handlers did not end when cancelled", count=len(left))
        _leave(0)
    runner.close()
    return 0


def _span(delay: Duration) -> str:
    return delay if isinstance(delay, str) else f"{seconds(delay):g}s"


def _on_signal(app: App, grace: float) -> None:
    now = time.monotonic()
    if app.stop_asked_at is not None:
        if now - app.stop_asked_at < _ONE_SIGNAL:
            return
        app.logger.warning("asked twice: leaving at once")
        _leave(1)
    app.stop_asked_at = now
    app.logger.info("stopping", grace=grace)
    deadline = threading.Timer(grace, _leave, [1])  # holds also where a handler blocks the loop
    deadline.daemon = True
    deadline.start()
    app.stop()


def _leave(code: int) -> None:
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _tell_handlers(app: App) -> None:
    app.logger.info("usher", version=__version__, handlers=len(app.router.handlers))
    for handler in app.router.handlers.values():
        app.logger.info(
            "handler",
            handler=handler.name,
            types=sorted(handler.types),
            triggered_by=sorted(handler.triggered_by or ()),
            retry=[_span(delay) for delay in (handler.retry or app.settings.retry_policy).delays],
            origin=handler.origin,
        )


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop]:
    try:
        import uvloop  # noqa: PLC0415 - there is none for Windows
    except ImportError:
        return asyncio.new_event_loop
    return uvloop.new_event_loop


def collect_less() -> None:
    """Set the cyclic garbage collector for a process that is the service, and nothing else."""
    gc.set_threshold(*_COLLECT)
