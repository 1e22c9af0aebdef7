"""The partitions of a worker that stand still. Hides when a line about one is due: at once, and then once a minute."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping
from typing import Final

import structlog

from usher.eventlog.port import TopicPartition
from usher.redact import Ours

_logger = structlog.get_logger(__name__)
_AGAIN: Final = 60.0


class Stops:
    """What each partition stands still for. One that only waits for something of ours is here too, without a log line."""

    def __init__(self) -> None:
        self._waiting: dict[TopicPartition, str] = {}
        self._reasons: dict[TopicPartition, str] = {}
        self._said: dict[tuple[TopicPartition, str], float] = {}

    @property
    def reasons(self) -> Mapping[TopicPartition, str]:
        """The partitions that stand still now, each with the reason."""
        return self._waiting | self._reasons

    def wait(self, partitions: Collection[TopicPartition], reason: str) -> None:
        """*partitions* stand still until more is known about them: the claim is not open yet, or the reason is looked for."""
        self._waiting |= dict.fromkeys(partitions, reason)

    def stop(self, partition: TopicPartition, error: str, hint: str, **more: object) -> None:
        """*partition* stands still because of *error*; *hint* is the way out. Call it again while it lasts."""
        self._reasons[partition] = f"{error}: {hint}" if hint else error
        now = asyncio.get_running_loop().time()
        if now - self._said.get((partition, error), -_AGAIN) >= _AGAIN:
            self._said[partition, error] = now
            topic, number = partition
            _logger.error(
                "partition stopped", topic=topic, partition=number, error=Ours(error), hint=Ours(hint), **more
            )

    def go_on(self, partition: TopicPartition) -> None:
        """*partition* is read, or about to be."""
        self._waiting.pop(partition, None)
        self._reasons.pop(partition, None)

    def clear(self) -> None:
        """Forget all partitions: they are not ours any more. A line that was written is not repeated before its time."""
        self._waiting.clear()
        self._reasons.clear()
