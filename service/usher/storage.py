"""Open the event log that the settings name. Hides which log that is, and how it is configured."""

from __future__ import annotations

from usher.addresses import SqliteAddress
from usher.eventlog import open_browser, open_log
from usher.eventlog.browse import Browser
from usher.eventlog.names import checkpoints_topic
from usher.eventlog.port import EventLog, LogConfig
from usher.receipts.keys import AddressKeys
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
        receipts=settings.receipts.on,
        keep=settings.receipts.keep,
    )


async def writing_keys(settings: Settings, event_log: EventLog) -> AddressKeys:
    """The keys for the HMAC of addresses with which a worker writes receipts: those of the settings, else the one in the log.

    Raises:
        LogUnavailable
    """
    return AddressKeys(settings.receipts.keys or [await event_log.address_key()])


async def reading_keys(settings: Settings, event_log: Browser) -> AddressKeys | None:
    """The keys with which receipts may have been written: those of the settings, and the one in the log. None: there is none.

    Raises:
        LogUnavailable
    """
    kept = await event_log.address_key()
    keys = [*settings.receipts.keys, *([] if kept is None else [kept])]
    return AddressKeys(keys) if keys else None


def exposed_key(settings: Settings) -> str:
    """Say what is wrong with the key for the HMAC of addresses where others may read it in the event log; empty where all is well."""
    if not settings.receipts.on or settings.receipts.key or isinstance(settings.event_log, SqliteAddress):
        return ""
    topic = checkpoints_topic(settings.group)
    return (
        f"is not set, so the key of receipts lies in the topic {topic}: who reads that can find out whether a receipt is about an "
        "address that they know; set a secret of your own, the same for all workers"
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
