"""The EventLog port: all that the engine needs of a log, and what the command line needs beside it.

The words: a *claim* is one partition, ours from assignment to revocation; a later claim of the same partition is another
claim. Beside each source topic the log keeps two of Usher's own, partition p for partition p:

* ``<group>.<topic>-retry``, compacted: the table of parked deliveries and the operators' requests. Key: the delivery. A
  value means parked, no value means done.
* ``<group>.<topic>-dlt``: dead letters, and (records without a value) what became of them.

Once `EventLog.lease` is used there is ``<group>.checkpoints`` too: one partition, compacted; key: the name of a note.

Every write is durable when it returns. A write that is cancelled, or that raises `LogUnavailable`, may still happen: that
is part of the contract, and the engine is built for it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from usher.delivery import Headers, Record


class LogError(Exception):
    """The root of what a log raises on purpose."""


class LogUnavailable(LogError):
    """The log can't be reached or refuses for now. Wait and try again; nothing is lost by it."""


class ClaimLost(LogError):
    """The partition is not ours any more (or the write was for an older claim of it). Forget the claim."""


class TooLarge(LogError):
    """The record is larger than the log takes. It will never fit: write a stub that names the place instead."""


class LeaseLost(LogError):
    """The duty is another worker's now, or may be. Leave its block; what was kept before is kept."""


class LogMisconfigured(LogError):
    """A topic is missing, has another number of partitions, or may not be written: says what, and the command that mends it."""


class TopicPartition(NamedTuple):
    """One partition of a source topic."""

    topic: str
    partition: int


@dataclass(frozen=True, eq=False, slots=True)
class Claim:
    """One partition while it is ours. Compared by identity: the next claim of the same place is another one.

    *start* is the committed offset (the next to read) and *mark* its metadata, as they were when the claim began.
    """

    topic: str
    partition: int
    start: int
    mark: str = ""

    @property
    def topic_partition(self) -> TopicPartition:
        return TopicPartition(self.topic, self.partition)


@dataclass(frozen=True, slots=True)
class Batch:
    """What one read brought of one claim: records in offset order, and the offset to be read *next*.

    *next* may lie past the last record: control records and compaction leave gaps.
    """

    claim: Claim
    records: Sequence[Record]
    next: int


@dataclass(frozen=True, slots=True)
class Position:
    """A commit: *next* is the offset a new owner reads first, *mark* (at most 4,096 characters) tells it what is done after it."""

    next: int
    mark: str = ""


class CaughtUp:
    """In a stream of the retry partition: all that had been written when the stream began has been delivered."""


CAUGHT_UP = CaughtUp()


class Owner(Protocol):
    """Who holds the claims: called by the log when they come and go."""

    async def claimed(self, claims: Sequence[Claim]) -> None:
        """These are ours now; none, where there is nothing for us for now.

        Must return quickly; reading may begin at once, loading goes on in the background.
        """

    async def released(self, claims: Sequence[Claim]) -> None:
        """These are about to go: drain, commit, forget. The log waits for this, within its budget."""


class Lease(Protocol):
    """The right to do what only one worker of the group may do, with small notes that outlive it.

    A worker that was frozen beyond its session learns of its loss a moment after it thaws: until then two may act.
    """

    def checkpoint(self, name: str) -> bytes | None:
        """What was last kept under *name*, by whoever had the duty then; None where nothing was."""

    async def keep(self, name: str, checkpoint: bytes) -> None:
        """Keep *checkpoint* under *name*. A small text, written as a whole: the last one counts.

        One that raised or was cancelled may land later, over a newer one: an older note must cost no more than repeats.

        Raises:
            DutyLost, TooLarge, LogUnavailable
        """

    async def lost(self) -> None:
        """Return once the duty is ours no more."""


class EventLog(Protocol):
    """Where events, parked deliveries and dead letters are kept."""

    async def open(self, owner: Owner) -> None:
        """Connect, verify the topics (create our own two where allowed), make the start explicit, begin to claim.

        Raises:
            LogMisconfigured: says what is missing, and the command that mends it.
        """

    async def close(self) -> None:
        """Leave. Does not call `Owner.released`: who closes has drained and committed. Safe to call twice."""

    async def read(self, claims: Collection[Claim], limit: int, wait: float) -> Sequence[Batch]:
        """The next records of *claims*, at most about *limit* in all; waits up to *wait* seconds while there are none.

        Claims that are left out rest: nothing of theirs is read, lost or fetched twice. With no claims it just waits.
        Must be called regularly: it also keeps the membership alive. Records of a claim that has ended are not returned.
        """

    async def commit(self, positions: Mapping[Claim, Position]) -> None:
        """Make these the places where a new owner starts.

        Raises:
            ClaimLost, LogUnavailable
        """

    async def park(self, claim: Claim, key: str, value: bytes, headers: Headers) -> None:
        """Write a parked delivery (or request) under *key* to the claim's retry partition. Allowed after the claim ended.

        Raises:
            TooLarge, LogUnavailable
        """

    async def unpark(self, claim: Claim, key: str, headers: Headers = ()) -> None:
        """Write the tombstone of *key*. Allowed after the claim ended.

        Raises:
            LogUnavailable
        """

    async def bury(self, claim: Claim, key: bytes | None, value: bytes | None, headers: Headers) -> None:
        """Append to the claim's partition of the dead-letter topic.

        Raises:
            TooLarge, LogUnavailable
        """

    def parked(self, claim: Claim) -> AsyncIterator[Sequence[Record] | CaughtUp]:
        """The claim's retry partition from its beginning, in order, in batches; then `CAUGHT_UP` once; then what is added.

        The end that counts for `CAUGHT_UP` is read when the iteration begins: after the claim's *start* was. Tombstones
        are delivered as records without a value. Ends when it is closed; waits out an unavailable log by itself.
        """

    def history(self, claim: Claim, window: float, limit: int) -> AsyncIterator[Sequence[Record]]:
        """The records before the claim's *start* that are younger than *window* seconds, at most the last *limit* or so.

        Younger counts from the timestamp of the record at *start*, or from now where there is none.
        """

    async def append(self, topic: str, key: bytes | None, value: bytes, headers: Headers = ()) -> TopicPartition:
        """Append an event to a source topic, on the partition of its key. Usable as soon as `open` has returned.

        Raises:
            TooLarge, LogUnavailable
        """

    def lease(self) -> AbstractAsyncContextManager[Lease]:
        """Wait until the group's duty is ours, however long that takes; leaving the block gives it back within seconds.

        To be used from `open` to `close`; waits out an unavailable log by itself. There is one duty a group.

        Raises:
            LogMisconfigured: the topic of the notes is missing or does not fit: says the command that mends it.
        """

    def since(self, topic: str, moment: float) -> AsyncIterator[Sequence[Record]]:
        """The records of a source topic appended at or after *moment* (Unix seconds), up to what was the end at the call.

        All partitions; in order within each. What is appended meanwhile may come too, or not.

        Raises:
            LogUnavailable
        """

    async def ends(self, claims: Collection[Claim]) -> Mapping[Claim, int]:
        """For each claim the offset after its last record: lag is that less the position."""

    async def writable(self) -> bool:
        """Whether a write would be taken now; for readiness. Cheap, writes nothing."""


class TopicState(NamedTuple):
    """What a topic is, as the log tells: *partitions* is 0 where it is missing, *compacted* None where it can't be told.

    *writable* is None where the log can't tell without writing.
    """

    topic: str
    kind: str
    partitions: int
    compacted: bool | None
    writable: bool | None
    remedy: str = ""


@dataclass(frozen=True, slots=True)
class Committed:
    """What a group has committed for one partition; *next* is None where there is nothing yet. *first* and *end* bound it."""

    topic_partition: TopicPartition
    next: int | None
    mark: str = ""
    first: int = 0
    end: int = 0


class Browser(Protocol):
    """The command line's look at a log, beside a running worker: reads everything, joins no group, commits nothing."""

    async def __aenter__(self) -> Browser: ...
    async def __aexit__(self, *exc: object) -> None: ...

    async def topics(self) -> Sequence[TopicState]:
        """The source topics and our own two for each, whether they exist or not.

        Raises:
            LogUnavailable
        """

    async def create_topics(self) -> Sequence[str]:
        """Create what is missing of our own two topics a source topic; the names of those it created."""

    async def committed(self, topic: str) -> Sequence[Committed]:
        """For each partition of a source topic, what the group has committed."""

    def scan(self, topic: str, partition: int | None = None) -> AsyncIterator[Sequence[Record]]:
        """All records of a topic (or one partition) from its beginning to what was its end at the call, in batches."""

    async def append(
        self, topic: str, key: bytes | None, value: bytes | None, headers: Headers = (), partition: int | None = None
    ) -> TopicPartition:
        """Append one record: to *partition*, or to the one of its key. Returns once it is acknowledged.

        Raises:
            TooLarge, LogUnavailable
        """


@dataclass(frozen=True, slots=True)
class LogConfig:
    """What every log is told. *topics* are the source topics, *start_from* is ``latest``, ``earliest`` or Unix seconds.

    *drain* is the budget of `Owner.released` in seconds.
    """

    group: str
    topics: tuple[str, ...]
    start_from: str | float = "latest"
    drain: float = 20.0


def retry_topic(group: str, topic: str) -> str:
    return f"{group}.{topic}-retry"


def dead_letter_topic(group: str, topic: str) -> str:
    return f"{group}.{topic}-dlt"


def checkpoints_topic(group: str) -> str:
    return f"{group}.checkpoints"
