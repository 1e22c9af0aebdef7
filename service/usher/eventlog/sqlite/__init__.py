"""The embedded log: the EventLog port on one SQLite file."""

from usher.eventlog.sqlite.browser import SqliteBrowser
from usher.eventlog.sqlite.log import SqliteLog

__all__ = ["SqliteBrowser", "SqliteLog"]
