"""The topics that Usher needs: what is wrong with each, and how its own are created."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from usher.eventlog.browse import TopicState
from usher.settings import Settings
from usher.storage import browser

MISSING = "missing"


@dataclass(frozen=True, slots=True)
class TopicCheck:
    """A topic, and what is *wrong* with it: nothing, if it is as it must be."""

    state: TopicState
    wrong: str


async def check_topics(settings: Settings) -> list[TopicCheck]:
    """Check all topics.

    Raises:
        LogUnavailable, LogMisconfigured
    """
    async with browser(settings) as event_log:
        states = await event_log.topics()
    return [TopicCheck(state, _wrong(state)) for state in states]


async def create_topics(settings: Settings) -> tuple[Sequence[str], Sequence[TopicState]]:
    """Create those of Usher's own topics that are missing. Return the names of those created, and all topics.

    Raises:
        LogUnavailable, LogMisconfigured
    """
    async with browser(settings, create=True) as event_log:
        created = await event_log.create_topics()
        return created, await event_log.topics()


def _wrong(state: TopicState) -> str:
    """Say what is wrong with the topic, or nothing."""
    if not state.partitions:
        return MISSING
    return state.wrong or ("may not be written" if state.writable is False else "")
