"""The EventLog port on one SQLite file: the embedded log."""

from usher.eventlog.sqlite.browser import SqliteBrowser
from usher.eventlog.sqlite.log import SqliteLog

__all__ = ["SqliteBrowser", "SqliteLog"]
