"""The sources that read topics with a system's own events, for commands: no API is called."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NoReturn

from usher.settings import Settings
from usher.sources import Source
from usher.systems import open_systems


def sources_of_topics(settings: Settings) -> Mapping[str, Source]:
    """Return the sources by topic; a topic in the canonical form has none."""
    if not any(topic.source for topic in settings.topics):
        return {}
    return open_systems(settings, _no_session).sources_of_topics(settings)


def _no_session() -> NoReturn:
    raise RuntimeError("reading a topic calls no API")
