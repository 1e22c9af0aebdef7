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
    """Check all topics, each source topic before Usher's own topics for it.

    Raises:
        LogUnavailable, LogMisconfigured
    """
    async with browser(settings) as event_log:
        states = await event_log.topics()
    return [TopicCheck(state, _wrong(state, states)) for state in states]


async def create_topics(settings: Settings) -> tuple[Sequence[str], Sequence[TopicState]]:
    """Create those of Usher's own topics that are missing. Return the names of those created, and all topics.

    Raises:
        LogUnavailable, LogMisconfigured
    """
    async with browser(settings, create=True) as event_log:
        created = await event_log.create_topics()
        return created, await event_log.topics()


def _wrong(state: TopicState, among: Sequence[TopicState]) -> str:
    """Say what is wrong with the topic, or nothing. *among* are all topics, in the order that `Browser.topics` gives."""
    if not state.partitions:
        return MISSING
    expected = _source_of(state, among).partitions
    if expected and state.partitions != expected:
        return f"{state.partitions} partitions, its source topic has {expected}"
    if state.kind == "retry" and state.compacted is False:
        return "not compacted: parked deliveries would be deleted by age"
    if state.kind != "retry" and state.compacted:
        return "compacted: records would be deleted"
    if state.writable is False:
        return "may not be written"
    return ""


def _source_of(state: TopicState, among: Sequence[TopicState]) -> TopicState:
    """Return the source topic that the topic belongs to: itself, or the last one before it."""
    before = among[: among.index(state) + 1]
    return next((other for other in reversed(before) if other.kind == "source"), state)
