"""From settings to the parts that a command works with: the same that the worker has, less the worker."""

from __future__ import annotations

from usher.app import log_config
from usher.engine.port import Browser
from usher.eventlog import open_browser
from usher.settings import Settings


def browser(settings: Settings) -> Browser:
    """A look at the log that *settings* name; entering it connects.

    Raises:
        LogUnavailable, LogMisconfigured: when it is entered.
    """
    return open_browser(settings.log, log_config(settings))
