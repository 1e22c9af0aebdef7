"""Opens the event log that a URL names. A client is imported only when it is needed: the one for Kafka is heavy."""

from __future__ import annotations

from pathlib import Path

from usher.eventlog.browse import Browser
from usher.eventlog.port import EventLog, LogConfig

_EXPECTED = "write sqlite:///usher.db, sqlite:////absolute/path/usher.db or kafka://host:port[,host:port]"


def open_log(url: str, config: LogConfig) -> EventLog:
    """Make the event log that *url* names. It is not open yet.

    Raises:
        ValueError: the URL names no event log.
    """
    scheme, where = _parsed(url)
    if scheme == "sqlite":
        from usher.eventlog.sqlite import SqliteLog  # noqa: PLC0415

        return SqliteLog(Path(where), config)
    from usher.eventlog.kafka import KafkaLog  # noqa: PLC0415

    return KafkaLog(where, config)


def open_browser(url: str, config: LogConfig) -> Browser:
    """Make the browser of the event log that *url* names. To enter it is to connect.

    Raises:
        ValueError: the URL names no event log.
    """
    scheme, where = _parsed(url)
    if scheme == "sqlite":
        from usher.eventlog.sqlite import SqliteBrowser  # noqa: PLC0415

        return SqliteBrowser(Path(where), config)
    from usher.eventlog.kafka import KafkaBrowser  # noqa: PLC0415

    return KafkaBrowser(where, config)


def _parsed(url: str) -> tuple[str, str]:
    """Return ``sqlite`` and the path, or ``kafka`` and the servers, separated by commas."""
    scheme, separator, rest = url.partition("://")
    if scheme == "sqlite" and separator:
        path = rest.removeprefix("/")
        if not rest.startswith("/") or not path or path.endswith("/") or path == ":memory:":
            raise ValueError(f"the event log {url!r} names no file: {_EXPECTED}")
        return scheme, path
    if scheme == "kafka" and separator:
        servers = [server.strip() for server in rest.rstrip("/").split(",")]
        for server in servers:
            host, _, port = server.rpartition(":")
            if not host or "@" in host or not port.isdecimal():
                raise ValueError(
                    "a server in the kafka:// URL of the event log is not host:port (credentials go into USHER_KAFKA__…): "
                    f"{_EXPECTED}"
                )
        return scheme, ",".join(servers)
    raise ValueError(f"the URL of the event log has the scheme {scheme if separator else ''!r}: {_EXPECTED}")
