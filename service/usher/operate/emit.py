"""Append events to the event log, in their order for each user."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator, Sequence

from usher.eventlog.port import TopicPartition
from usher.operate.event_files import FileItem
from usher.settings import Settings
from usher.storage import browser

_AT_ONCE = 100
"""Records that wait for the event log's acknowledgement at the same time."""


async def append(settings: Settings, items: Sequence[FileItem]) -> list[TopicPartition]:
    """Append *items* to the topic that webhooks append to. Return where each went, once all are acknowledged.

    Raises:
        LogUnavailable, LogMisconfigured, TooLarge
    """
    topic_partitions: list[TopicPartition] = []
    async with browser(settings, create=True) as event_log:
        for wave in _waves(items):
            topic_partitions += await asyncio.gather(
                *(event_log.append(settings.ingest_topic, item.key, item.value) for item in wave)
            )
    return topic_partitions


def _waves(items: Iterable[FileItem]) -> Iterator[list[FileItem]]:
    """Split *items* into waves, none with two events of one key: those must be acknowledged one after the other."""
    wave: list[FileItem] = []
    keys: set[bytes | None] = set()
    for item in items:
        if item.key in keys or len(wave) == _AT_ONCE:
            yield wave
            wave, keys = [], set()
        wave.append(item)
        keys.add(item.key)
    if wave:
        yield wave
