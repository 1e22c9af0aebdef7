"""What a schedule is about: how many events, which faults, how slow the log is. All of it follows from a seed.

Most schedules belong to a family, which leans towards the situations that one part of the protocol is for; chance alone
would rarely bring them about. Seed modulo the number of families is the family, so a seed is still all there is to know.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

FAULTS = (
    "ambush",
    "clock",
    "commits-refused",
    "compact",
    "crash",
    "disk-full",
    "evict",
    "freeze",
    "graceful",
    "hand-back",
    "join",
    "outage",
    "refuse",
    "reset",
    "slow",
)
KINDS = ("fail", "fail", "later", "next year", "hold", "hang", "stubborn", "unknown", "slow")
"""How an attempt of a handler may end, beside well and with a rejection."""


@dataclass(frozen=True)
class Family:
    """A lean. *faults* are all that may happen, each with likelihood *share*; *pause* is the most seconds between events.

    *latencies* are what a write may take, *kinds* how attempts fail, *failing* how many do. *ambushes* are the writes at
    which a process may be killed, *small* whether the limits of memory are, *between* the most seconds between faults. *twice*
    is how many events are appended again, *ahead* how many records are of producers without a right clock, *deadly* how
    likely each delivery is the one that ends all processes that try it.
    """

    name: str
    faults: Sequence[str] = FAULTS
    share: float = 0.35
    events: tuple[int, int] = (2, 12)
    users: tuple[int, int] = (1, 4)
    rounds: tuple[int, int] = (0, 7)
    pause: float = 2.0
    between: float = 12.0
    latencies: tuple[float, ...] = (0.0, 0.0, 0.005, 0.3)
    kinds: Sequence[str] = KINDS
    failing: float = 0.5
    ambushes: Sequence[str] = ("park", "tombstone", "dead-letter", "receipts", "commit")
    replays: float = 0.4
    twice: float = 0.1
    ahead: float = 0.1
    deadly: float = 0.0
    small: bool = False

    @property
    def slowest(self) -> float:
        """The longest that the log takes for a write while nothing is wrong with it."""
        return max(self.latencies) + 0.01


FAMILIES = (
    Family("anything"),
    Family(  # what a worker wrote lands when the partition has long been another's
        "late writes",
        faults=("freeze", "evict", "crash", "refuse", "compact"),
        share=0.8,
        events=(1, 6),
        users=(1, 3),
        rounds=(2, 7),
        pause=0.5,
        between=6.0,
        latencies=(0.0, 0.3, 1.0),
        kinds=("fail", "soon", "later"),
        failing=0.8,
        replays=0.0,
    ),
    Family(  # what was handed over is in the table, and the commit does not say so
        "uncommitted",
        faults=("commits-refused", "ambush"),
        share=1.0,
        events=(1, 8),
        rounds=(2, 6),
        kinds=("fail", "soon", "soon", "later"),
        failing=0.7,
        ambushes=("park", "tombstone"),
        between=3.0,
        replays=0.0,
    ),
    Family(  # a user gets many events at once, and the first of them fails
        "burst",
        faults=("ambush", "crash", "hand-back"),
        share=0.8,
        events=(3, 9),
        users=(1, 3),
        rounds=(1, 4),
        pause=0.05,
        between=2.0,
        latencies=(0.0, 0.005, 0.3, 1.0),
        kinds=("fail", "later", "soon"),
        failing=0.7,
        ambushes=("park",),
        replays=0.0,
    ),
    Family(  # nothing breaks: workers come and go in good order, while handlers take their time
        "moves",
        faults=("graceful", "join", "hand-back"),
        share=0.8,
        events=(3, 12),
        rounds=(4, 9),
        pause=0.8,
        between=2.0,
        latencies=(0.0, 0.005, 0.3, 1.0),
        kinds=("slow", "slow", "slow failure", "slow failure", "fail", "soon", "stubborn"),
        failing=0.6,
        replays=0.0,
        twice=0.25,
    ),
    Family(  # far more than there is room for
        "flood",
        faults=("graceful", "slow", "crash", "outage"),
        events=(25, 45),
        users=(2, 20),
        rounds=(0, 3),
        pause=0.01,
        kinds=("fail", "slow", "later"),
        failing=0.3,
        replays=0.0,
        small=True,
    ),
    Family(  # much is given up, dead letters take their time, and operators ask for them again
        "dead-letters",
        faults=("ambush", "crash", "slow", "refuse", "reset", "hand-back"),
        share=0.6,
        rounds=(1, 5),
        between=3.0,
        latencies=(0.0, 0.3, 2.0),
        kinds=("reject", "reject", "reject", "fail", "soon"),
        failing=0.7,
        ambushes=("dead-letter", "dead-letter", "park"),
        replays=0.6,
    ),
    Family(  # the disk under the parking table refuses
        "disks",
        faults=("disk-full", "disk-full", "disk-full", "crash", "graceful", "refuse"),
        share=0.7,
        events=(3, 12),
        users=(1, 3),
        rounds=(3, 9),
        pause=0.5,
        between=1.5,
        latencies=(0.0, 0.005, 0.3, 1.0),
        kinds=("fail", "soon", "later", "slow", "slow failure"),
        failing=0.7,
        replays=0.3,
    ),
    Family(  # wall clocks are set, and providers ask for long waits
        "clocks",
        faults=("clock", "clock", "clock", "crash", "graceful", "freeze"),
        share=0.8,
        events=(2, 8),
        rounds=(2, 8),
        between=3.0,
        kinds=("fail", "fail", "later", "soon", "hold", "next year"),
        failing=0.8,
        replays=0.0,
    ),
    Family(  # the source topic is deleted and made again, and others write to our retry topic
        "another topic",
        faults=("remake", "remake", "strangers", "strangers", "forge", "evict", "refuse", "graceful"),
        share=0.6,
        events=(3, 12),
        users=(1, 3),
        rounds=(2, 6),
        pause=1.0,
        between=4.0,
        latencies=(0.0, 0.005, 0.3),
        kinds=("fail", "fail", "soon", "later", "slow failure", "hang"),
        failing=0.7,
        replays=0.0,
    ),
    Family(  # worker after worker ends, and what one of them has written lands when another runs one delivery at a time
        "bad starts",
        faults=("ambush", "ambush", "crash", "evict"),
        share=0.9,
        events=(3, 9),
        users=(2, 5),
        rounds=(4, 9),
        pause=0.3,
        between=1.0,
        latencies=(0.0, 0.005, 0.3),
        kinds=("soon", "soon", "slow", "slow failure"),
        failing=0.9,
        ambushes=("tombstone", "park"),
        replays=0.0,
    ),
    Family(  # a delivery ends each worker that tries it
        "deadly",
        faults=(),
        events=(2, 9),
        users=(1, 4),
        pause=1.0,
        kinds=("fail", "soon", "slow"),
        failing=0.4,
        deadly=0.3,
        replays=0.0,
    ),
)


@dataclass(frozen=True)
class Plan:
    """Everything about a schedule that is not chance of the moment: what `shrink` makes smaller."""

    seed: int
    events: int
    users: int
    partitions: int
    handlers: int
    faults: tuple[str, ...]
    rounds: int
    replays: bool

    @classmethod
    def of(cls, seed: int) -> Plan:
        rng = random.Random(seed)
        family = FAMILIES[seed % len(FAMILIES)]
        return cls(
            seed=seed,
            events=rng.randrange(*family.events),
            users=rng.randrange(*family.users),
            partitions=rng.choice((1, 1, 2)),
            handlers=rng.choice((1, 1, 2)),
            faults=tuple(fault for fault in family.faults if rng.random() < family.share),
            rounds=rng.randrange(*family.rounds),
            replays=rng.random() < family.replays,
        )

    @property
    def family(self) -> Family:
        return FAMILIES[self.seed % len(FAMILIES)]


def seeds_of(family: str, first: int, count: int) -> range:
    """*count* seeds of a family, from the first that is not below *first*.

    Raises:
        ValueError: there is no family of this name.
    """
    names = [each.name for each in FAMILIES]
    start = first + (names.index(family) - first) % len(names)
    return range(start, start + count * len(names), len(names))
