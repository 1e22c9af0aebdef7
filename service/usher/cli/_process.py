"""The process of `usher run`: its signals, its event loop, its garbage collector, and its forced end."""

from __future__ import annotations

import asyncio
import gc
import os
import select
import signal
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from usher import __version__, logs
from usher.app import App, build
from usher.log_stream import LogStream
from usher.outcome import duration_text, seconds
from usher.settings import Settings
from usher.storage import exposed_key

if TYPE_CHECKING:
    from structlog.typing import FilteringBoundLogger

_COLLECT = (50_000, 25, 25)
"""Thresholds of the cyclic garbage collector. Thousands of deliveries in flight are alive, not garbage: with Python's own
thresholds a quarter of the time goes into searching them again and again."""
_ONE_SIGNAL = 1.0
"""Seconds in which a second signal counts as the first: terminals, `timeout` and init signal a process and also its group."""
_SIGNALS = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGINT", "SIGHUP", "SIGQUIT") if hasattr(signal, name))
_HANGUP = "SIGHUP"
_BEAT = 0.5
"""Seconds between two looks at the grace, and at log lines that wait to be written."""
_LAST_LINES = 1.0
"""Seconds that the last log lines may take, where the stream takes none at once."""


def run(settings: Settings) -> int:
    """Serve until a signal asks for the end. Return the exit code.

    Raises:
        HandlerError, SettingsError, LogMisconfigured, OSError: it could not start; the text is for the operator.
    """
    lines = logs.configure(settings.log_level, settings.log_format)
    collect_less()
    app = build(settings)
    lines.when_lost = app.metrics.log_lines_lost.inc
    _log_start(app)
    runner = asyncio.Runner(loop_factory=_loop_factory())
    loop = runner.get_loop()
    Shutdown(settings.shutdown_grace, lambda: loop.call_soon_threadsafe(app.stop), app.logger, lines).listen()
    runner.run(app.run())
    left = [task for task in asyncio.all_tasks(loop) if not task.done()]
    if (
        left
    ):  # handlers that ignore the cancellation: the commit says that their deliveries are not done, so they run again
        app.logger.warning("handlers did not end when cancelled", count=len(left))
        _leave(0, lines)
    runner.close()
    lines.flush(_LAST_LINES)
    return 0


class Shutdown:
    """A thread that ends the process: in order at the first signal, at once at the second one and when the grace is over.

    It is there from the start, because a stop must not need what may have run out by then, such as a new thread. It does not
    need the event loop either, so the grace also holds where a handler blocks that. Beside this it writes the log lines that
    could not be written at once.

    Args:
        grace: seconds from the first signal to the end.
        stop: asks the service to end in order; called in the thread.
    """

    def __init__(
        self, grace: float, stop: Callable[[], object], logger: FilteringBoundLogger, lines: LogStream
    ) -> None:
        self._grace, self._stop, self._logger, self._lines = grace, stop, logger, lines
        self._asked, self._ask = os.pipe()
        self._asked_at: float | None = None

    def listen(self) -> None:
        """Start, and take the signals by which terminals, supervisors and container engines end a service."""
        threading.Thread(target=self._watch, name="shutdown", daemon=True).start()
        for number in _SIGNALS:
            if number.name != _HANGUP or signal.getsignal(number) is not signal.SIG_IGN:  # `nohup` wants it ignored
                signal.signal(number, self._on_signal)

    def _on_signal(self, _number: int, _frame: object) -> None:
        os.write(self._ask, b"!")  # nothing else is safe wherever the main thread may be

    def _watch(self) -> None:
        while True:
            asked, _, _ = select.select([self._asked], [], [], _BEAT)
            now = time.monotonic()
            if asked:
                os.read(self._asked, 64)
                self._signalled(now)
            if self._asked_at is not None and now - self._asked_at >= self._grace:
                self._logger.error("the end took longer than the grace: leaving at once", grace=self._grace)
                _leave(1, self._lines)
            self._lines.flush()

    def _signalled(self, now: float) -> None:
        if self._asked_at is None:
            self._asked_at = now
            self._logger.info("stopping", grace=self._grace)
            self._stop()
        elif now - self._asked_at >= _ONE_SIGNAL:
            self._logger.warning("second signal: leaving at once")
            _leave(1, self._lines)


def _leave(code: int, lines: LogStream) -> None:
    lines.flush(_LAST_LINES)
    os._exit(code)


def _log_start(app: App) -> None:
    app.logger.info("usher", version=__version__, handlers=len(app.router.handlers))
    if exposed := exposed_key(app.settings):
        app.logger.warning("the key of receipts can be read in the event log", hint=f"USHER_RECEIPTS__KEY {exposed}")
    for handler in app.router.handlers.values():
        app.logger.info(
            "handler",
            handler=handler.name,
            types=sorted(handler.types),
            triggered_by=sorted(handler.triggered_by or ()),
            retry=[duration_text(seconds(delay)) for delay in (handler.retry or app.settings.retry_policy).delays],
            origin=handler.origin,
        )


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop]:
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop
    return uvloop.new_event_loop


def collect_less() -> None:
    """Set the cyclic garbage collector for a process that runs the service and nothing else."""
    gc.set_threshold(*_COLLECT)
