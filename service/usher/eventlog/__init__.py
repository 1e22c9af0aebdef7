"""Which log an address means. The clients are imported when they are wanted: Kafka's is heavy, the embedded one is not."""

from __future__ import annotations

from usher.addresses import LogAddress, SqliteAddress
from usher.engine.port import Browser, EventLog, LogConfig
from usher.kafka_options import NO_OPTIONS, KafkaOptions


def open_log(address: LogAddress, config: LogConfig, options: KafkaOptions = NO_OPTIONS) -> EventLog:
    """The log at *address*, not open yet; *options* are for Kafka's client."""
    if isinstance(address, SqliteAddress):
        from usher.eventlog.sqlite import SqliteLog  # noqa: PLC0415

        return SqliteLog(address.path, config)
    from usher.eventlog.kafka import KafkaLog  # noqa: PLC0415

    return KafkaLog(address, config, options)


def open_browser(address: LogAddress, config: LogConfig, options: KafkaOptions = NO_OPTIONS) -> Browser:
    """The browser of the log at *address*; entering it connects."""
    if isinstance(address, SqliteAddress):
        from usher.eventlog.sqlite import SqliteBrowser  # noqa: PLC0415

        return SqliteBrowser(address.path, config)
    from usher.eventlog.kafka import KafkaBrowser  # noqa: PLC0415

    return KafkaBrowser(address, config, options)
