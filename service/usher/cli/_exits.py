"""What a command's exit code means, and which error ends in which."""

from __future__ import annotations

from enum import IntEnum


class Exit(IntEnum):
    """The exit codes of every `usher` command; the table for readers is in `usher.cli`."""

    OK = 0
    FAILED = 1
    USAGE = 2
    LOG_UNREACHABLE = 3
    NOT_FOUND = 4
    INTERRUPTED = 130


class Stop(Exception):
    """Ends a command with a sentence on stderr and an exit code. Raised by commands; `usher.cli.main` turns it into both."""

    def __init__(self, message: str, code: Exit = Exit.FAILED) -> None:
        super().__init__(message)
        self.code = code


def code_of(error: Exception) -> Exit | None:
    """The exit code of an error that is the user's or the log's to mend; None: a bug, which deserves its traceback."""
    if isinstance(error, Stop):
        return error.code
    from usher.eventlog.errors import LogError, LogUnavailable
    from usher.handler import HandlerError
    from usher.settings import SettingsError

    if isinstance(error, SettingsError | HandlerError):
        return Exit.USAGE
    if isinstance(error, LogUnavailable):
        return Exit.LOG_UNREACHABLE
    if isinstance(error, LogError | OSError):
        return Exit.FAILED
    return None
