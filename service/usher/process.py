"""The process of `usher run`: its signals, its event loop, its garbage collector, and its forced end."""

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
thresholds a quarter of the time goes into searching them again and again."""
_ONE_SIGNAL = 1.0
"""Seconds in which a second signal counts as the first: terminals, `timeout` and init signal a process and also its group."""


def run(settings: Settings) -> int:
    """Serve until SIGTERM or SIGINT, and return the exit code of `usher run`.

    Raises:
        HandlerError, SettingsError, LogMisconfigured, OSError: it could not start; the text is for the operator.
    """
    logs.configure(settings.log_level, settings.log_format)
    collect_less()
    app = build(settings)
    _log_handlers(app)
    runner = asyncio.Runner(loop_factory=_loop_factory())
    loop = runner.get_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, _on_signal, app, settings.shutdown_grace)
    runner.run(app.run())
    left = [task for task in asyncio.all_tasks(loop) if not task.done()]
    if (
        left
    ):  # handlers that ignore the cancellation: the commit says that their deliveries are not done, so they run again
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
        app.logger.warning("second signal: leaving at once")
        _leave(1)
    app.stop_asked_at = now
    app.logger.info("stopping", grace=grace)
    deadline = threading.Timer(grace, _leave, [1])  # a thread: it works also while a handler blocks the event loop
    deadline.daemon = True
    deadline.start()
    app.stop()


def _leave(code: int) -> None:
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _log_handlers(app: App) -> None:
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
        import uvloop  # noqa: PLC0415 - it does not exist for Windows
    except ImportError:
        return asyncio.new_event_loop
    return uvloop.new_event_loop


def collect_less() -> None:
    """Set the cyclic garbage collector for a process that runs the service and nothing else."""
    gc.set_threshold(*_COLLECT)
