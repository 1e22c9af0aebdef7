"""The exit codes of commands, and the exit code of each error."""

from __future__ import annotations

from enum import IntEnum


class Exit(IntEnum):
    """The exit codes of all `usher` commands; `usher.cli` describes them."""

    OK = 0
    FAILED = 1
    USAGE = 2
    LOG_UNREACHABLE = 3
    NOT_FOUND = 4
    INTERRUPTED = 130


class Stop(Exception):
    """Ends a command with a sentence on stderr and an exit code. Commands raise it, `usher.cli.main` catches it."""

    def __init__(self, message: str, code: Exit = Exit.FAILED) -> None:
        super().__init__(message)
        self.code = code


def code_of(error: Exception) -> Exit | None:
    """Return the exit code of an error that an operator can mend; None: it is a bug, and its traceback is needed."""
    if isinstance(error, Stop):
        return error.code
    from usher.demo.outbox import OutboxError
    from usher.eventlog.errors import LogError, LogUnavailable
    from usher.handler import HandlerError
    from usher.operate.errors import NotFound, OperateError
    from usher.settings import SettingsError

    if isinstance(error, SettingsError | HandlerError):
        return Exit.USAGE
    if isinstance(error, LogUnavailable):
        return Exit.LOG_UNREACHABLE
    if isinstance(error, NotFound):
        return Exit.NOT_FOUND
    if isinstance(error, OperateError | OutboxError | LogError | OSError):
        return Exit.FAILED
    return None
