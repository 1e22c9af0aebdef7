"""The history of a schedule, seen from outside: attempts, claims, faults, and all records that were written.

It is only recorded here; `tests.simulation.check` and `tests.simulation.repeats` say what may happen. Times are Unix seconds.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from usher.delivery import Delivery, StoredRecord
from usher.delivery.headers import ORIGINAL_GROUP, Head, read_delivery
from usher.engine.dead_letters import REQUEST_PREFIX
from usher.eventlog.port import Claim, TopicPartition

FOREVER = float("inf")
STRANGER = b"another"
"""The group that writes to our retry topic, and should not."""
FORGED = "forged"
"""The header of a record that no worker has written."""


@dataclass(frozen=True)
class Sent:
    """An event as it lies in the log. *ours*: some handler is for it. *again*: it was appended before."""

    event: str
    user: str
    topic_partition: TopicPartition
    offset: int
    decodable: bool = True
    ours: bool = True
    again: bool = False
    topic_id: str = ""


@dataclass
class Life:
    """A process. *strays* are the spans in which it may believe to have the claims of another: it is frozen or evicted, and does not know.

    *stopping* is when it was asked to stop, *ended* when it was killed or had stopped, *killed* whether nobody asked it.
    """

    name: str
    stopping: float = FOREVER
    ended: float = FOREVER
    killed: bool = False
    strays: list[list[float]] = field(default_factory=list)

    def strayed(self, since: float, until: float) -> bool:
        """Whether it was astray at any time between the two."""
        return any(begin <= until and end >= since for begin, end in self.strays)


@dataclass(eq=False)
class Tenure:
    """One claim seen from outside: when it was given, when it was asked back, and from when on another may have it.

    *known* is how many records of the retry partition had been written when it began: the owner folds these at least.
    """

    process: str
    claim: Claim
    began: float
    known: int
    asked_back: float = FOREVER
    ended: float = FOREVER


@dataclass(eq=False)
class Attempt:
    """One attempt of a handler, as the world saw it."""

    process: str
    handler: str
    event: str
    number: int
    partition: int
    offset: int
    tenure: Tenure
    began: float
    topic_id: str
    request: str = ""
    """The id of the operator's request that it carries out; empty where it is no replay."""
    ended: float = FOREVER
    result: str = "running"
    not_before: float = 0.0
    """When the next attempt may begin at the earliest, by what the handler or the policy said."""

    @property
    def delivery(self) -> tuple[str, str]:
        return self.handler, self.event

    @property
    def short(self) -> str:
        return f"{self.handler}({self.event})@{self.offset}"

    @property
    def about(self) -> str:
        """What the records in the retry partition call it: a request and a delivery end by tombstones of their own."""
        return REQUEST_PREFIX + self.request if self.request else self.short


class Written(NamedTuple):
    """One record of a retry partition and when it landed; *parked* is None for a tombstone."""

    at: float
    parked: Delivery | None


class Trouble(NamedTuple):
    """A span in which the log could not be relied on, with what its users need to recover."""

    begin: float
    end: float


class History:
    """Filled by the world while a schedule is played."""

    def __init__(self) -> None:
        self.attempts: list[Attempt] = []
        self.sent: list[Sent] = []
        self.lives: dict[str, Life] = {}
        self.tenures: list[Tenure] = []
        self.troubles: list[Trouble] = []
        self.resets: list[tuple[float, int, int]] = []
        """When an offset was set back, of which partition, and to what."""
        self.clocks_set: list[float] = []
        """When the wall clock of a worker was set."""
        self.requests: dict[str, str] = {}
        """The ids of the requests of operators, each with the id of its dead letter."""
        self.strangers: set[str] = set()
        """The keys of another group's records in our retry topic."""
        self.deaths: Counter[tuple[str, str]] = Counter()
        """How many processes (handler, event) has ended."""
        self.handed_over: list[tuple[str, float, str, str]] = []
        """Which process had (handler, event) queued or running when it heard that their topic was made anew, and when."""
        self.violations: list[str] = []
        self.retry: dict[int, list[StoredRecord]] = defaultdict(list)
        """All that ever landed in a retry partition, compacted or not."""
        self.parking: set[tuple[Claim, str]] = set()
        """Of which claim which delivery (``handler(event)@offset``) is being parked by its owner at the moment."""
        self.compactions: list[tuple[int, int]] = []
        """Of which retry partition, and how many records it had ever had by then."""
        self._read_back: dict[tuple[int, str], list[tuple[int, Written]]] | None = None

    def violate(self, sentence: str) -> None:
        if sentence not in self.violations:
            self.violations.append(sentence)

    def tenure(self, process: str, partition: int) -> Tenure:
        """The latest claim of *partition* by *process*.

        Raises:
            LookupError: it never had one.
        """
        for tenure in reversed(self.tenures):
            if tenure.process == process and tenure.claim.partition == partition:
                return tenure
        raise LookupError(f"{process} never had partition {partition}")

    def writes(self, attempt: Attempt) -> list[Written]:
        """All that was ever written about the delivery of *attempt*; of a replay, about its request."""
        return [written for _, written in self._about(attempt)]

    def known(self, attempt: Attempt) -> Written | None:
        """What the retry partition said about it when its claim began; compaction keeps the last write only."""
        partition, known = attempt.partition, attempt.tenure.known
        lost = max((length for where, length in self.compactions if where == partition and length <= known), default=0)
        before = [(number, written) for number, written in self._about(attempt) if number < known]
        compacted = [written for number, written in before if number < lost][-1:]
        return fold(compacted + [written for number, written in before if number >= lost])

    def _about(self, attempt: Attempt) -> list[tuple[int, Written]]:
        return self._by_key().get((attempt.partition, attempt.about), [])

    def _by_key(self) -> Mapping[tuple[int, str], list[tuple[int, Written]]]:
        if self._read_back is None:
            self._read_back = defaultdict(list)
            for partition, records in self.retry.items():
                for number, record in enumerate(records):
                    key = (record.key or b"").decode()
                    if not is_strange(record):
                        about = key if key.startswith(REQUEST_PREFIX) else shortened(key)
                        parked = None if record.value is None else read_delivery(record)
                        written = Written(record.timestamp / 1000, parked)
                        self._read_back[partition, about].append((number, written))
        return self._read_back


def shortened(key: str) -> str:
    """``handler(event)@offset`` of a delivery's key: within one partition that says which."""
    delivery, _, at = key.rpartition("@")
    return f"{key.partition('/')[0]}({delivery.rpartition('/')[2]})@{at.rpartition('-')[2]}"


def is_strange(record: StoredRecord) -> bool:
    """Whether a record of the retry topic is another group's, or forged."""
    head = Head(record.headers)
    return head.get(ORIGINAL_GROUP) == STRANGER or head.get(FORGED) is not None


def fold(writes: list[Written]) -> Written | None:
    """What a table makes of the writes about one delivery: the last tombstone, or of what came since the most attempts, due last."""
    found: Written | None = None
    for written in writes:
        if (
            found is None
            or found.parked is None
            or written.parked is None
            or _rank(written.parked) >= _rank(found.parked)
        ):
            found = written
    return found


def _rank(parked: Delivery) -> tuple[int, int]:
    return parked.attempt, parked.due or 0
