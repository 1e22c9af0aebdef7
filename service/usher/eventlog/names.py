"""The names of the topics that a group writes for itself. An embedded log has them too: they tell its records apart."""

from __future__ import annotations

from collections.abc import Iterable, Iterator


def retry_topic(group: str, topic: str) -> str:
    return f"{group}.{topic}-retry"


def dead_letter_topic(group: str, topic: str) -> str:
    return f"{group}.{topic}-dlt"


def checkpoints_topic(group: str) -> str:
    return f"{group}.checkpoints"


def receipts_topic(group: str) -> str:
    return f"{group}.receipts"


def own_topics(group: str, topics: Iterable[str]) -> Iterator[str]:
    """Yield the names of all topics that *group* writes for itself, beside the source *topics*."""
    for topic in topics:
        yield retry_topic(group, topic)
        yield dead_letter_topic(group, topic)
    yield receipts_topic(group)
    yield checkpoints_topic(group)
