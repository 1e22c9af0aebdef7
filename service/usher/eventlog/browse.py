"""The Browser port: what the command line needs of an event log, beside a running worker or without one."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from usher.delivery import Headers, Record
from usher.eventlog.notes import GroupStart
from usher.eventlog.port import TopicPartition


class TopicState(NamedTuple):
    """What a topic is. *partitions* is 0 where it is missing, *compacted* None where the event log does not say.

    *writable* is None where only a write could show it. *wrong* says why it can't be used as it is, *remedy* is the command.
    """

    topic: str
    kind: str
    partitions: int
    compacted: bool | None
    writable: bool | None
    remedy: str = ""
    wrong: str = ""


@dataclass(frozen=True, slots=True)
class Committed:
    """What a group has committed for one partition. *next* is None where it has committed nothing yet.

    *first* and *end* are the offset of the first record and the one after the last.
    """

    topic_partition: TopicPartition
    next: int | None
    mark: str = ""
    first: int = 0
    end: int = 0


@dataclass(frozen=True, slots=True)
class ReceiptsState:
    """Where the receipts of a group lie. *topic_id* is another one once they were made anew: then their offsets begin again.

    Brokers before 2.8 give no ids, and it is empty. There an end before what was read shows it.

    *partitions* maps each partition to the offset of the first record that is kept, and the one after the last.
    """

    topic_id: str
    partitions: Mapping[int, tuple[int, int]]


class Browser(Protocol):
    """Reads everything in an event log. It joins no group and commits nothing."""

    async def __aenter__(self) -> Browser: ...
    async def __aexit__(self, *exc: object) -> None: ...

    async def topics(self) -> Sequence[TopicState]:
        """Describe the source topics, and our own, whether they exist or not.

        Raises:
            LogUnavailable
        """

    async def existing(self) -> Collection[str]:
        """Return the names of those of the source topics and our own that exist. Quicker than `topics`.

        Raises:
            LogUnavailable
        """

    async def create_topics(self) -> Sequence[str]:
        """Create what is missing of our own topics. Returns the names of those it created."""

    async def committed(self, topic: str) -> Sequence[Committed]:
        """Return what the group has committed for each partition of a source topic."""

    def scan(
        self, topic: str, partition: int | None = None, *, first: Mapping[int, int] | None = None
    ) -> AsyncIterator[Sequence[Record]]:
        """Read a topic (or one partition) to the end that it had at the call, in batches: each partition from its beginning.

        With *first* only the partitions in it are read, each from the offset there, or from the first one that is kept.
        """

    async def offsets_since(self, topic: str, moment: float) -> Mapping[int, int]:
        """Return for each partition the offset of the first record stamped at or after *moment* (Unix seconds), or the end.

        Raises:
            LogUnavailable
        """

    async def records_at(self, places: Collection[tuple[TopicPartition, int]]) -> Sequence[Record]:
        """Return the records at these offsets of their partitions, in any order, as far as they are kept.

        Raises:
            LogUnavailable
        """

    async def count(self, topic_partition: TopicPartition, first: int, end: int) -> int:
        """Return how many records lie between two offsets, the second one left out; on Kafka a few more after transactions.

        Raises:
            LogUnavailable
        """

    async def receipts_state(self) -> ReceiptsState | None:
        """Say where the group's receipts lie; None where it has none.

        Raises:
            LogUnavailable
        """

    def receipts(self, positions: Mapping[int, int]) -> AsyncIterator[Sequence[Record]]:
        """Read the receipts of each partition from the offset in *positions* to the end at the call, in order, in batches.

        Partitions that are not in *positions* are read from their beginning, as are those whose offset is not kept any more.

        Raises:
            LogUnavailable
        """

    async def starts(self) -> Mapping[TopicPartition, GroupStart]:
        """Return where the group began to read each partition, as far as that is known: what lies before, it never reads."""

    async def address_key(self) -> bytes | None:
        """Return the group's own key for the HMAC of addresses; None where it has none."""

    def uncommitted(self, topic: str) -> AsyncIterator[Sequence[Record]]:
        """Read what is in a topic and may not be read yet, because a transaction is open: `scan` ends before it."""

    async def append(
        self, topic: str, key: bytes | None, value: bytes | None, headers: Headers = (), partition: int | None = None
    ) -> TopicPartition:
        """Append one record to *partition*, or to the partition of its key. Returns once it is acknowledged.

        Raises:
            TooLarge, LogUnavailable
        """
