"""The service's log lines on stderr: one JSON object a line, or coloured text on a terminal.

Hides how a line is made, and keeps personal data out of it: every text that others wrote (exceptions, libraries) is
scrubbed, fields that are named like a credential are masked, and of a traceback only the places are kept, never the values
of variables.
"""

from __future__ import annotations

import json
import logging
import sys
import traceback
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Literal, TextIO, cast

import structlog
from structlog.typing import EventDict, ExcInfo, FilteringBoundLogger, WrappedLogger

from usher.log_stream import LogStream
from usher.redact import scrub, scrub_field
from usher.redact.credentials import names_credential
from usher.redact.shapes import MASK
from usher.terminal import visible

Level = Literal["debug", "info", "warning", "error"]
Format = Literal["auto", "json", "console"]

_OURS = frozenset({
    "level", "timestamp", "logger", "version", "http", "group", "event_log", "servers", "topics",
    "event_id", "handler", "attempt", "topic", "partition", "offset",
    "idempotency_key", "dead_letter", "replay", "due",
})  # fmt: skip
"""Fields that we fill from settings, counters and opaque ids: scrubbing them would mask an id that is all digits."""

_FRAMES = 20
_CHAIN = 5


def configure(level: Level = "info", format: Format = "auto", stream: TextIO | None = None) -> LogStream:  # noqa: A002
    """Send all log lines, ours and those of libraries, to *stream* (default: stderr). Return what writes them.

    *format* ``auto`` is ``console`` if the stream is a terminal, else ``json``. Of libraries, warnings and errors are kept.
    """

    def notice(lost: int) -> str:
        line = {
            "timestamp": datetime.now(UTC).isoformat(),
            "level": "error",
            "event": "log lines were lost",
            "count": lost,
        }
        return str(render(None, "error", line))

    out = LogStream(sys.stderr if stream is None else stream, notice)
    console = format == "console" or (format == "auto" and out.isatty())
    threshold = logging.getLevelNamesMapping()[level.upper()]
    render: Any = structlog.dev.ConsoleRenderer(colors=out.isatty()) if console else _as_json
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            _error_for_screen if console else described_error,
            scrubbed,
            render,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(threshold),
        logger_factory=structlog.WriteLoggerFactory(file=cast("TextIO", out)),
        cache_logger_on_first_use=False,
    )
    root = logging.getLogger()
    for handler in [handler for handler in root.handlers if isinstance(handler, _Forward)]:
        root.removeHandler(handler)
    root.addHandler(_Forward(structlog.get_logger()))
    root.setLevel(max(threshold, logging.WARNING))
    logging.getLogger("usher").setLevel(threshold)
    return out


def scrubbed(_logger: WrappedLogger, _method: str, line: EventDict) -> EventDict:
    """Take personal data and secrets out of every text of a line, except out of our own identifiers."""
    return {name: value if name in _OURS else _field(name, value) for name, value in line.items()}


def described_error(_logger: WrappedLogger, _method: str, line: EventDict) -> EventDict:
    """Replace ``exc_info`` by ``exception``: the type, the scrubbed text and the frames of each error of the chain."""
    error = _error(line.pop("exc_info", None))
    if error is not None:
        line["exception"] = [
            {"type": type(link).__qualname__, "message": scrub(link), "frames": _frames(link)} for link in _chain(error)
        ]
    return line


def _error_for_screen(_logger: WrappedLogger, _method: str, line: EventDict) -> EventDict:
    line = described_error(_logger, _method, line)
    if isinstance(line.get("stack"), list):  # the renderer takes a text, and fails on anything else
        line["stack"] = "\n".join(line["stack"])
    for number, link in enumerate(line.pop("exception", ())):
        last = link["frames"][-1] if link["frames"] else ""
        line["error" if number == 0 else f"cause_{number}"] = f"{link['type']}: {link['message']} [{last}]"
    return line


def _error(exc_info: ExcInfo | BaseException | bool | None) -> BaseException | None:
    if isinstance(exc_info, BaseException):
        return exc_info
    if isinstance(exc_info, tuple):
        return exc_info[1]
    return sys.exception() if exc_info else None


def _chain(error: BaseException) -> Sequence[BaseException]:
    links = [error]
    while len(links) < _CHAIN:
        last = links[-1]
        earlier = last.__cause__ or (None if last.__suppress_context__ else last.__context__)
        if isinstance(last, BaseExceptionGroup):  # its own text only counts them
            earlier = last.exceptions[0]
        if earlier is None or earlier in links:
            break
        links.append(earlier)
    return links


def _frames(error: BaseException) -> Sequence[str]:
    # The source line is left out: a handler's author may have written anything into it.
    walked = traceback.walk_tb(error.__traceback__)
    places = [f"{frame.f_code.co_filename}:{number} in {frame.f_code.co_qualname}" for frame, number in walked]
    return places[-_FRAMES:]


def _field(name: object, value: Any) -> Any:
    return MASK if isinstance(value, str) and names_credential(name) else _scrub(value)


def _scrub(value: Any) -> Any:
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, Mapping):
        return {scrub_field(name): _field(name, inner) for name, inner in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_scrub(inner) for inner in value]
    return scrub_field(value)


def _as_json(_logger: WrappedLogger, _method: str, line: EventDict) -> str:
    first = {name: line.pop(name) for name in ("timestamp", "level", "event") if name in line}
    return visible(json.dumps({**first, **line}, ensure_ascii=False, default=scrub_field))


class _Forward(logging.Handler):
    """Forwards what libraries log, so that their lines look like ours."""

    def __init__(self, logger: FilteringBoundLogger) -> None:
        super().__init__()
        self._logger = logger

    def emit(self, record: logging.LogRecord) -> None:
        try:
            text = record.getMessage()
        except Exception:  # noqa: BLE001 - a library's broken message must not break our log
            text = str(record.msg)
        self._logger.log(record.levelno, text, logger=record.name, exc_info=record.exc_info)
