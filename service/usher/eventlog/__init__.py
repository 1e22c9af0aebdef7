"""Opens the event log at an address. A client is imported only when it is needed: the one for Kafka is heavy."""

from __future__ import annotations

from usher.addresses import LogAddress, SqliteAddress
from usher.eventlog.browse import Browser
from usher.eventlog.port import EventLog, LogConfig
from usher.kafka_options import NO_OPTIONS, KafkaOptions


def open_log(address: LogAddress, config: LogConfig, options: KafkaOptions = NO_OPTIONS) -> EventLog:
    """Make the event log at *address*. It is not open yet; *options* are for the client of Kafka."""
    if isinstance(address, SqliteAddress):
        from usher.eventlog.sqlite import SqliteLog  # noqa: PLC0415

        return SqliteLog(address.path, config)
    from usher.eventlog.kafka import KafkaLog  # noqa: PLC0415

    return KafkaLog(address, config, options)


def open_browser(
    address: LogAddress, config: LogConfig, options: KafkaOptions = NO_OPTIONS, *, create: bool = False
) -> Browser:
    """Make the browser of the event log at *address*. To enter it is to connect; *create*: also an embedded log that is missing."""
    if isinstance(address, SqliteAddress):
        from usher.eventlog.sqlite import SqliteBrowser  # noqa: PLC0415

        return SqliteBrowser(address.path, config, create=create)
    from usher.eventlog.kafka import KafkaBrowser  # noqa: PLC0415

    return KafkaBrowser(address, config, options)
