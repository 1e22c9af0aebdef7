"""What is wrong with a topic."""

from __future__ import annotations

from collections.abc import Sequence

from usher.eventlog.browse import TopicState

MISSING = "missing"


def wrong(state: TopicState, among: Sequence[TopicState]) -> str:
    """What keeps Usher from working with the topic, or nothing. *among* are all, in the order `Browser.topics` gives."""
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
    """The source topic that the topic belongs to: itself, or the last one before it."""
    before = among[: among.index(state) + 1]
    return next((other for other in reversed(before) if other.kind == "source"), state)
