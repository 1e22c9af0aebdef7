"""The EventLog port: what a worker needs of an event log.

The words: a *claim* is one partition, from its assignment to this worker until it is taken back. A later claim of the same
partition is another claim. Beside each source topic the event log has two topics of our own, partition p for partition p:

* ``<group>.<topic>-retry``, compacted: the table of parked deliveries, and the requests of operators. Key: the delivery.
  A record with a value says that it is parked, one without a value that it is done.
* ``<group>.<topic>-dlt``: dead letters, and (as records without a value) what became of them.

``<group>.receipts`` is there once for the group: what became of deliveries, deleted by age. Those of source partition p lie in its
partition p mod n. ``<group>.checkpoints`` has one partition, compacted. Key: the name of a checkpoint (see `EventLog.lease`), or what
`usher.eventlog.notes` writes; on Kafka also a source partition, of which it says which topic the offsets are of.

Every write is durable when it returns. A write that is cancelled, or that raises `LogUnavailable`, may still happen: that
is part of the contract, and the engine expects it.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from usher.delivery import Headers, Record


class TopicPartition(NamedTuple):
    """One partition of a source topic."""

    topic: str
    partition: int


@dataclass(frozen=True, eq=False, slots=True)
class Claim:
    """One partition while this worker has it. Compared by identity: the next claim of the same partition is another one.

    *start* is the committed offset (the next to read) and *mark* its metadata, both as they were when the claim began.
    *topic_id* is the id of the topic, which another one has that is made anew under this name; empty where the event log does
    not know. *remade*: the group has read an earlier topic of this name. Records of ours without an id are about that one.
    """

    topic: str
    partition: int
    start: int
    mark: str = ""
    topic_id: str = ""
    remade: bool = False

    @property
    def topic_partition(self) -> TopicPartition:
        return TopicPartition(self.topic, self.partition)


@dataclass(frozen=True, slots=True)
class Batch:
    """The result of one read of one claim: records in offset order, and the offset to read *next*.

    *next* may lie past the last record: control records and compaction leave gaps. *passed* counts the records that the sieve
    left out, and *before* says of each record how many of them lie before it; it may be empty where none was left out.
    """

    claim: Claim
    records: Sequence[Record]
    next: int
    passed: int = 0
    before: Sequence[int] = ()

    def place(self, index: int) -> int:
        """Return the place of ``records[index]`` among all records that were read, from 1 on."""
        return index + 1 + (self.before[index] if self.before else 0)

    def cut(self, at: int) -> tuple[Batch, Batch]:
        """Return two batches: the first *at* records with all that was left out up to the record after them, and what remains."""
        at_end = at >= len(self.records)
        following, passed = (self.next, self.passed) if at_end else (self.records[at].offset, self.place(at) - at - 1)
        taken = Batch(self.claim, self.records[:at], following, passed, self.before[:at])
        before = [each - passed for each in self.before[at:]]
        return taken, Batch(self.claim, self.records[at:], self.next, self.passed - passed, before)


@dataclass(frozen=True, slots=True)
class Position:
    """A commit: *next* is the offset that a new owner reads first, *mark* (at most 4,096 characters) says what is done after it."""

    next: int
    mark: str = ""


Sieve = Callable[[bytes | None, Headers], bool]
"""Returns of a value and its headers whether the record may be ours. The event log may leave out a record for which it says no."""
Sieves = Callable[[str], Sieve]
"""Returns the sieve of a topic."""


def everything(_value: bytes | None, _headers: Headers) -> bool:
    """Let every record through: the sieve of a topic that is read whole."""
    return True


def unsieved(_topic: str) -> Sieve:
    """Have every topic read whole."""
    return everything


class CaughtUp:
    """In a stream of a retry partition: everything that had been written when the stream began has been delivered."""


CAUGHT_UP = CaughtUp()


class Owner(Protocol):
    """The owner of the claims. The event log calls it when claims come and go."""

    async def claimed(self, claims: Sequence[Claim]) -> None:
        """Begin with *claims*; it is empty where there are none for this worker now.

        Must return quickly. Reading may begin at once, loading goes on in the background.
        """

    async def remade(self, claims: Sequence[Claim]) -> None:
        """Hand over what was read of *claims* and is not done: their topics were deleted, or made anew. Nobody can read it again.

        Must return quickly. `released` follows.
        """

    async def released(self, claims: Sequence[Claim]) -> None:
        """Drain, commit and forget *claims*, which are about to go. The event log waits for this, within its budget."""


class Lease(Protocol):
    """The right to do what only one worker of the group may do, with small checkpoints that outlive it.

    A worker that was frozen beyond its session learns of the loss a moment after it thaws: until then two workers may act.
    """

    def checkpoint(self, name: str) -> bytes | None:
        """Return what any worker last kept under *name*; None where nothing was kept."""

    async def keep(self, name: str, checkpoint: bytes) -> None:
        """Keep *checkpoint*, a small text, under *name*. It is written as a whole, and the last one counts.

        A write that raised or was cancelled may land later, over a newer one: an older checkpoint may cost repeats only.

        Raises:
            LeaseLost, TooLarge, LogUnavailable
        """

    async def lost(self) -> None:
        """Return once this worker has the lease no more."""


class EventLog(Protocol):
    """Keeps events, parked deliveries, dead letters and commits."""

    async def open(self, owner: Owner, sieves: Sieves = unsieved) -> None:
        """Connect, verify the topics (create our own where allowed), commit the start of a new group, begin to claim.

        `read` leaves out what the sieve of its topic says no to, and counts it, so that no object is made of it. It may let
        some of it through, so the caller asks its sieve too.

        Raises:
            LogMisconfigured: says what is missing, and the command to run.
        """

    async def close(self) -> None:
        """Leave. Does not call `Owner.released`: the caller has drained and committed. Safe to call twice."""

    async def read(self, claims: Collection[Claim], limit: int, wait: float) -> Sequence[Batch]:
        """Read the next records of *claims*, at most about *limit* in all. Wait up to *wait* seconds while there are none.

        Those that the sieve leaves out may come on top: some thousands at most, so that a call does not hold the loop.

        Claims that are left out rest: none of their records is read, lost or fetched twice. With no claims it only waits.
        Must be called regularly: it also keeps the membership alive. Returns no records of a claim that has ended.
        """

    async def commit(self, positions: Mapping[Claim, Position]) -> None:
        """Commit *positions*: a new owner starts there.

        Raises:
            ClaimLost, LogUnavailable
        """

    async def park(self, claim: Claim, key: str, value: bytes, headers: Headers) -> None:
        """Write a parked delivery, or a request, under *key* to the retry partition. Allowed after the claim has ended.

        Raises:
            TooLarge, LogUnavailable
        """

    async def unpark(self, claim: Claim, key: str, headers: Headers = ()) -> None:
        """Write the tombstone of *key* to the retry partition. Allowed after the claim has ended.

        Raises:
            LogUnavailable
        """

    async def bury(self, claim: Claim, key: bytes | None, value: bytes | None, headers: Headers) -> None:
        """Append to the partition of the dead-letter topic.

        Raises:
            TooLarge, LogUnavailable
        """

    async def file(self, claim: Claim, values: Sequence[bytes]) -> None:
        """Append records to the receipts of the group, in any order. Allowed after the claim has ended.

        Raises:
            TooLarge, LogUnavailable
        """

    async def address_key(self) -> bytes:
        """Return the group's own key for the HMAC of addresses; make and keep one where there is none. Works once `open` has returned.

        Of workers that make one at the same time all get the same.

        Raises:
            LogUnavailable
        """

    def parked(self, claim: Claim) -> AsyncGenerator[Sequence[Record] | CaughtUp, None]:
        """Stream the retry partition from its beginning, in order, in batches; then `CAUGHT_UP` once; then what is added.

        The end that counts for `CAUGHT_UP` is read when the iteration begins: after the *start* of the claim was. Tombstones
        are delivered as records without a value. Waits by itself while the event log is unavailable. Ends when the event log is
        closed. Close it: where nobody takes what it has, other streams of the partition may wait for that.
        """

    def history(self, claim: Claim, window: float, limit: int) -> AsyncIterator[Sequence[Record]]:
        """Read the records before the *start* of the claim, younger than *window* seconds: about the last *limit* at most.

        The age counts from the timestamp of the record at *start*, or from now where there is none.
        """

    async def append(self, topic: str, key: bytes | None, value: bytes, headers: Headers = ()) -> TopicPartition:
        """Append an event to a source topic, on the partition of its key. Works as soon as `open` has returned.

        Raises:
            TooLarge, LogUnavailable
        """

    def lease(self) -> AbstractAsyncContextManager[Lease]:
        """Wait for the lease of the group, however long that takes. Leaving the block gives it back within seconds.

        Use it between `open` and `close`. Waits by itself while the event log is unavailable. A group has one lease.

        Raises:
            LogMisconfigured: the topic of checkpoints is missing or does not fit. Says the command to run.
        """

    def since(self, topic: str, moment: float) -> AsyncIterator[Sequence[Record]]:
        """Read the records of a source topic appended at or after *moment* (Unix seconds), to the end that it had at the call.

        All partitions, each in order. Records that are appended meanwhile may come too, or not.

        Raises:
            LogUnavailable
        """

    async def ends(self, claims: Collection[Claim]) -> Mapping[Claim, int]:
        """Return for each claim the offset after its last record, whether it may be read yet or not. The lag is that less the position.

        A claim whose end is not known now is left out.
        """

    def complaints(self) -> Sequence[str]:
        """Return what is wrong with the topics, each with the way out: while there is anything, the worker is not ready."""

    async def writable(self) -> bool:
        """Return whether the event log would take a write now: for readiness. Cheap, and writes nothing."""

    def stopped(self) -> Mapping[TopicPartition, str]:
        """Return the partitions that are this worker's and stand still, each with the reason and the way out. Never waits."""

    def needs_restart(self) -> str:
        """Return why only a new process could help; empty while all is well, or may get well by itself. Never waits."""


@dataclass(frozen=True, slots=True)
class LogConfig:
    """The configuration of every event log. *topics* are the source topics.

    *start_from* is ``latest``, ``earliest`` or Unix seconds. *drain* is the budget of `Owner.released` in seconds. *receipts*: they are
    written, and need a topic. *keep* is how many seconds they are kept; what was written is not kept longer where none are written now.
    """

    group: str
    topics: tuple[str, ...]
    start_from: str | float = "latest"
    drain: float = 20.0
    receipts: bool = True
    keep: float = 90 * 86_400.0


def has_shrunk(end: int, position: int) -> bool:
    """Return whether a partition ends before *position*, which was read: it was truncated or made anew."""
    return end < position
