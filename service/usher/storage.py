"""Open the event log that the settings name. Hides which log that is, and how it is configured."""

from __future__ import annotations

from usher.eventlog import open_browser, open_log
from usher.eventlog.browse import Browser
from usher.eventlog.port import EventLog, LogConfig
from usher.settings import Settings

COMMIT, ENDING, CALLS, LEAVE = 5.0, 2.0, 2.0, 2.0
"""What a stop may take after the drain, in seconds: the last commit, handlers that will not end, open calls, leaving."""


def log_config(settings: Settings) -> LogConfig:
    """The configuration of the log."""
    return LogConfig(
        group=settings.group,
        topics=settings.topic_names,
        start_from=settings.start_from,
        drain=drain_budget(settings),
    )


def drain_budget(settings: Settings) -> float:
    """Seconds that what is in flight has, when a claim goes or the service stops."""
    after = COMMIT + ENDING + CALLS + LEAVE
    return max(settings.shutdown_grace - after, settings.shutdown_grace / 2)


def open_storage(settings: Settings) -> EventLog:
    """The log itself, not open yet."""
    return open_log(settings.event_log, log_config(settings), settings.kafka)


def browser(settings: Settings, *, create: bool = False) -> Browser:
    """A look at the log, beside a worker; entering it connects. *create*: for those who write to a log that may be new.

    Raises:
        LogMissing, LogUnavailable, LogMisconfigured: when it is entered.
    """
    return open_browser(settings.event_log, log_config(settings), settings.kafka, create=create)
