"""From settings to the parts that a command works with: the same that the worker has, less the worker."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NoReturn

from usher.engine.port import Browser
from usher.eventlog import open_browser
from usher.parts import log_config
from usher.settings import Settings
from usher.sources import Source
from usher.systems import open_systems


def browser(settings: Settings) -> Browser:
    """A look at the log that *settings* name; entering it connects.

    Raises:
        LogUnavailable, LogMisconfigured: when it is entered.
    """
    return open_browser(settings.log, log_config(settings))


def sources_of_topics(settings: Settings) -> Mapping[str, Source]:
    """What reads the topics that hold a system's own events."""
    return open_systems(settings, _no_session).sources_of_topics(settings)


def _no_session() -> NoReturn:
    raise RuntimeError("reading a topic asks nobody")
