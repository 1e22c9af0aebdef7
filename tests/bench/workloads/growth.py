"""How Usher's cost grows with users, partitions, handlers and the size of records: it is to be linear, so a unit costs the same."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

from tests.bench.contenders import USHER, python
from tests.bench.job import Job, Run
from tests.bench.outcome import Growth, Outcome, Point
from tests.bench.records import USERS, grown, mix
from tests.bench.scene import PARTITIONS, Scene
from tests.bench.turns import microseconds
from tests.kafka import unique
from tests.measures import Measure
from tests.stats import median, ratio

LINEAR = 1.25
"""A unit may cost so much at the largest size, of what it costs at the smallest: growth with its square would be 10 and more."""
_PLAIN = 1.3
"""Size of a record that was not grown, in kB."""


@dataclass(frozen=True, slots=True)
class Size:
    """One size of what grows. *units* are in one delivery; *share* is the part of the usual count of records that is read."""

    label: str
    users: int = USERS
    partitions: int = PARTITIONS
    handlers: int = 1
    kilobytes: float = _PLAIN
    units: float = 1.0
    share: float = 1.0


@dataclass(frozen=True, slots=True)
class Axis:
    what: str
    unit: str
    sizes: Sequence[Size]


AXES: Mapping[str, Axis] = {
    "users": Axis("users", "record", [Size(f"{count:,}", users=count) for count in (1_000, 10_000, 100_000)]),
    "partitions": Axis("partitions", "record", [Size(f"{count}", partitions=count) for count in (6, 20, 64)]),
    "handlers": Axis(
        "handlers of an event",
        "delivery",
        [Size(f"{count}", handlers=count, share=1 / count**0.5) for count in (1, 3, 10)],
    ),
    "size": Axis(
        "size of a record",
        "kB",
        [Size(f"{size:g} kB", kilobytes=size, units=size, share=(_PLAIN / size) ** 0.5) for size in (_PLAIN, 5, 20)],
    ),
}


def growing(scene: Scene, axis: Axis) -> Outcome:
    """The sizes in turns. Handlers take no time and read their events: nothing else hides what grows."""
    jobs = [partial(_run, scene, _job(scene, size)) for size in axis.sizes] if scene.takes_part(USHER) else []
    runs: dict[str, list[Run]] = defaultdict(list)
    for _ in range(scene.rounds):
        for size, run in zip(axis.sizes, jobs, strict=False):
            runs[size.label].append(run())
            last = runs[size.label][-1]
            print(
                f"  {axis.what}: {size.label:<8} {last.handled / last.seconds:>8,.0f}/s {last.memory:>5,.0f} MB "
                f"{microseconds(last) / size.units:>7,.1f} µs a {axis.unit}",
                flush=True,
            )
    return grown_by(axis.what, axis.unit, [_point(size, runs[size.label]) for size in axis.sizes])


def grown_by(what: str, unit: str, points: Sequence[Point]) -> Outcome:
    """The outcome where *what* grows: whether a *unit* costs the same at the largest size as at the smallest."""
    first, last = points[0], points[-1]
    work = f"{what}, {first.label} → {last.label}"
    steadiness = Measure(work, f"CPU a {unit}, of that at {first.label}", ratio(last.cpu, first.cpu), LINEAR)
    return Outcome([steadiness], growth=Growth(what, unit, points))


def _job(scene: Scene, size: Size) -> Job:
    count = round((150_000 if scene.full else 40_000) * size.share)
    pairs = mix(count, at=time.time(), users=size.users)
    more = round((size.kilobytes - _PLAIN) * 1000)
    topic = scene.topic("growth", (grown(pair, more) for pair in pairs), size.partitions)
    options = {"reads": 1.0, "handlers": float(size.handlers)}
    return Job(
        scene.broker.servers, topic, "", "", handled=count * size.handlers, profile=scene.profile, options=options
    )


def _run(scene: Scene, job: Job) -> Run:
    return USHER.run(python("usher"), replace(job, group=unique("growth")))


def _point(size: Size, runs: Sequence[Run]) -> Point:
    return Point(
        size.label,
        median([run.handled * size.units / run.seconds for run in runs]),
        median([microseconds(run) / size.units for run in runs]),
        max((run.memory for run in runs), default=float("nan")),
    )
