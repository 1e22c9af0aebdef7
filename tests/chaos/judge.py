"""The judge: which promises were kept, given what was sent, what the provider saw, and what happened to the workers.

Pure; the tests of this file break each promise once and see that it is noticed.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from tests.chaos.fleet import Mishap
from tests.chaos.provider import Attempt
from tests.chaos.traffic import Sent

COMMIT_WINDOW = 3.0
"""Seconds: commits are made twice a second; a worker that is killed repeats what ended since the last one."""
COINCIDENCES = 2
"""After so many kills from outside, each while one delivery ran alone, that delivery seems to be the cause."""
NOTICE = 12.0
"""The most seconds until a thawed worker knows that its partitions are another's, and until all know that a broker is back."""

_UNEXPECTED = (
    "lost",
    "order",
    "twice",
    "repeats_unexplained",
    "not_ours",
    "dead_letters_unexpected",
    "unreceipted",
    "wrong",
)


@dataclass
class Findings:
    """What was found. Lists name each case in words; `holds` where no promise was broken."""

    events: int = 0
    deliveries: int = 0
    delivered: int = 0
    lost: list[str] = field(default_factory=list)
    order: list[str] = field(default_factory=list)
    twice: list[str] = field(default_factory=list)
    twice_frozen: int = 0
    repeats: Counter[str] = field(default_factory=Counter)
    repeats_of: dict[Mishap, int] = field(default_factory=dict)
    at_risk: dict[Mishap, int] = field(default_factory=dict)
    repeats_unexplained: list[str] = field(default_factory=list)
    not_ours: list[str] = field(default_factory=list)
    dead_letters: Counter[str] = field(default_factory=Counter)
    dead_letters_unexpected: list[str] = field(default_factory=list)
    unreceipted: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    standstill: float = 0.0

    @property
    def broken(self) -> dict[str, list[str]]:
        return {name: found for name in _UNEXPECTED if (found := getattr(self, name))}

    @property
    def holds(self) -> bool:
        return not self.broken


def judge(
    *,
    handlers: Sequence[str],
    sent: Sequence[Sent],
    garbage: Iterable[tuple[int, int]],
    attempts: Sequence[Attempt],
    mishaps: Sequence[Mishap],
    dead_letters: Sequence[Mapping[str, Any]],
    receipts: Collection[tuple[str, str]],
) -> Findings:
    """Compare what happened with the promises. *dead_letters* are rows of ``usher dlq list --json``, *receipts* (handler, event)."""
    ours = [event for event in sent if event.sort != "foreign"]
    found = Findings(events=len(sent), deliveries=len(ours) * len(handlers))
    by_event = _by_event(attempts)
    _not_ours(found, ours, attempts)
    _losses(found, handlers, ours, list(garbage), by_event, dead_letters)
    _dead_letters(found, ours, dead_letters, attempts, mishaps)
    ended = {*by_event, *((row["handler"], row["event_id"]) for row in dead_letters)}
    found.unreceipted = [f"{handler}: {event}" for handler, event in sorted(ended - {*receipts})]
    _order(found, ours, attempts)
    _two_at_once(found, attempts, mishaps)
    _repeats(found, by_event, attempts, mishaps)
    found.at_risk = {each: _at_risk(each, attempts, mishaps) for each in mishaps if each.pid}
    found.standstill = _standstill(ours, handlers, by_event)
    return found


def _by_event(attempts: Iterable[Attempt]) -> dict[tuple[str, str], list[Attempt]]:
    """What the provider accepted or refused, by handler and event, the earliest first."""
    settled: dict[tuple[str, str], list[Attempt]] = defaultdict(list)
    for attempt in sorted((each for each in attempts if each.settled is not None), key=_settled):
        settled[attempt.handler, attempt.event].append(attempt)
    return settled


def _settled(attempt: Attempt) -> float:
    return attempt.settled or 0.0


def _not_ours(found: Findings, ours: Iterable[Sent], attempts: Iterable[Attempt]) -> None:
    known = {event.event for event in ours}
    found.not_ours = [f"{each.event} is not for {each.handler}" for each in attempts if each.event not in known]


def _losses(
    found: Findings,
    handlers: Sequence[str],
    ours: Sequence[Sent],
    garbage: Sequence[tuple[int, int]],
    by_event: Mapping[tuple[str, str], Sequence[Attempt]],
    dead_letters: Sequence[Mapping[str, Any]],
) -> None:
    """Lost is what was neither accepted nor, where that is its end, dead-lettered."""
    dead = {(row["reason"], row["handler"], row["event_id"]) for row in dead_letters}
    undecodable = {(row["partition"], row["offset"]) for row in dead_letters if row["reason"] == "undecodable"}
    reasons = {"refused": "rejected", "huge": "too-large"}
    for event in ours:
        for handler in handlers:
            reason = reasons.get(event.sort)
            settled = by_event if reason is None else dead
            there = ((handler, event.event) if reason is None else (reason, handler, event.event)) in settled
            found.delivered += there
            if not there:
                found.lost.append(f"{handler}: {event.sort} event {event.event}, {event.user} {event.sequence}")
    found.lost += [f"undecodable record {where}" for where in garbage if where not in undecodable]


def _dead_letters(
    found: Findings,
    ours: Iterable[Sent],
    dead_letters: Iterable[Mapping[str, Any]],
    attempts: Sequence[Attempt],
    mishaps: Sequence[Mishap],
) -> None:
    expected = {event.event: {"refused": "rejected", "huge": "too-large"}.get(event.sort) for event in ours}
    for row in dead_letters:
        reason, event = row["reason"], row["event_id"]
        found.dead_letters[reason] += 1
        if reason == "crashed-the-worker" and _killed_under(row["handler"], event, attempts, mishaps) >= COINCIDENCES:
            found.dead_letters["crashed-the-worker, by kills from outside"] += 1
        elif reason != "undecodable" and expected.get(event) != reason:
            found.dead_letters_unexpected.append(f"{row['handler']}: {event} {reason}: {row['error']}")


def _killed_under(handler: str, event: str, attempts: Iterable[Attempt], mishaps: Sequence[Mishap]) -> int:
    """Count the workers that were killed before a commit said how their attempt of this delivery had ended.

    The next worker can't know that it was not the cause.
    """
    tried = [each for each in attempts if (each.handler, each.event) == (handler, event)]
    return sum(
        any(_not_committed(each, kill, _uncommitted_since(kill, mishaps)) for each in tried)
        for kill in mishaps
        if kill.kind == "kill"
    )


def _not_committed(attempt: Attempt, mishap: Mishap, since: float) -> bool:
    """Whether the worker had begun *attempt*, and had not surely committed its end: what ended after *since*."""
    return attempt.pid == mishap.pid and attempt.began <= mishap.began and (attempt.ended or mishap.began) >= since


def _order(found: Findings, ours: Iterable[Sent], attempts: Iterable[Attempt]) -> None:
    """No attempt begins while an earlier event of its user is not settled; what the provider never takes is left out."""
    expected: dict[str, list[Sent]] = defaultdict(list)
    for event in ours:
        if event.sort != "huge":
            expected[event.user].append(event)
    first: dict[tuple[str, str], float] = {}
    for attempt in attempts:
        if attempt.settled is not None:
            key = attempt.handler, attempt.event
            first[key] = min(attempt.settled, first.get(key, attempt.settled))
    for events in expected.values():
        events.sort(key=lambda event: event.sequence)
    done: Counter[tuple[str, str]] = Counter()  # how many of the lane's events are settled, from its first
    for attempt in sorted(attempts, key=lambda each: each.began):
        events, lane = expected[attempt.user], attempt.lane
        while done[lane] < len(events) and _before(first, attempt, events[done[lane]]):
            done[lane] += 1
        waiting = events[done[lane]] if done[lane] < len(events) else None
        if waiting is not None and waiting.sequence < attempt.sequence:
            found.order.append(
                f"{attempt.handler}: {attempt.user} {attempt.sequence} began at pid {attempt.pid} "
                f"before {waiting.sequence} ({waiting.event}) was done"
            )


def _before(first: Mapping[tuple[str, str], float], attempt: Attempt, event: Sent) -> bool:
    return first.get((attempt.handler, event.event), float("inf")) <= attempt.began


def _two_at_once(found: Findings, attempts: Iterable[Attempt], mishaps: Sequence[Mishap]) -> None:
    under_way: dict[tuple[str, str], list[Attempt]] = defaultdict(list)
    for attempt in sorted(attempts, key=lambda each: each.began):
        lane = under_way[attempt.lane]
        lane[:] = [other for other in lane if other.ended is None or other.ended > attempt.began]
        for other in lane:
            frozen = other.pid != attempt.pid and any(_zombie(mishap, attempt, other) for mishap in mishaps)
            if frozen:
                found.twice_frozen += 1
            else:
                found.twice.append(
                    f"{attempt.handler}: {attempt.user} {other.sequence} at pid {other.pid} "
                    f"and {attempt.sequence} at pid {attempt.pid}"
                )
        lane.append(attempt)


def _zombie(mishap: Mishap, *attempts: Attempt) -> bool:
    """Whether one of them was made by a worker that was frozen about then."""
    return mishap.kind == "freeze" and any(
        each.pid == mishap.pid and (each.ended or mishap.ended) >= mishap.began and each.began <= mishap.ended + NOTICE
        for each in attempts
    )


def _repeats(
    found: Findings,
    by_event: Mapping[tuple[str, str], Sequence[Attempt]],
    attempts: Iterable[Attempt],
    mishaps: Sequence[Mishap],
) -> None:
    tried: dict[tuple[str, str], list[Attempt]] = defaultdict(list)
    for attempt in attempts:
        tried[attempt.lane].append(attempt)
    for (handler, event), settled in by_event.items():
        for earlier, later in pairwise(settled):
            mishap = _culprit(earlier, later, mishaps) or _late_park(earlier, later, tried[later.lane], mishaps)
            if not earlier.answered and (mishap is None or mishap.kind != "kill"):
                found.repeats["no answer came"] += 1
            elif mishap is not None:
                found.repeats[mishap.kind] += 1
                found.repeats_of[mishap] = found.repeats_of.get(mishap, 0) + 1
            else:
                found.repeats_unexplained.append(
                    f"{handler}: {event} ({later.user} {later.sequence}), done by pid {earlier.pid} at "
                    f"{_settled(earlier):.2f}, again by pid {later.pid} at {_settled(later):.2f}"
                )


def _culprit(earlier: Attempt, later: Attempt, mishaps: Sequence[Mishap]) -> Mishap | None:
    """Return the mishap because of which the worker of *later* did not know what *earlier* had done."""
    done = _settled(earlier)
    for mishap in sorted(mishaps, key=lambda each: each.kind == "broker-kill"):  # a mishap of one worker says more
        if mishap.began > _settled(later):
            continue
        if mishap.kind == "kill" and mishap.pid == earlier.pid and _uncommitted_since(mishap, mishaps) <= done:
            return mishap
        if mishap.kind == "freeze" and (
            (mishap.pid == earlier.pid and mishap.began - COMMIT_WINDOW <= done <= mishap.ended + NOTICE)
            or (
                mishap.pid == later.pid
                and mishap.began - COMMIT_WINDOW <= done
                and later.began <= mishap.ended + NOTICE
            )
        ):
            return mishap
        if mishap.kind == "broker-kill" and mishap.began - COMMIT_WINDOW <= done <= mishap.ended + NOTICE:
            return mishap
    return None


def _late_park(earlier: Attempt, later: Attempt, tried: Iterable[Attempt], mishaps: Iterable[Mishap]) -> Mishap | None:
    """Return the freeze of a third worker that had it: until it hears of its loss it may park what was done meanwhile.

    *tried* are the attempts in the lane. It had what it tried, and what waited behind that; not what it tried only when it had
    heard. That the owner handed the partition on before it could answer can't be seen: all partitions move when a worker comes back.
    """
    for mishap in mishaps:
        heard = mishap.ended + NOTICE
        meanwhile = mishap.began <= _settled(earlier) <= heard and later.began >= mishap.ended
        had = any(
            each.pid == mishap.pid and each.sequence <= later.sequence and each.began <= heard
            for each in tried
            if each is not later
        )
        if mishap.kind == "freeze" and had and meanwhile:
            return mishap
    return None


def _uncommitted_since(mishap: Mishap, mishaps: Iterable[Mishap]) -> float:
    """Since when what the worker did may not be committed: longer where it could not commit, or had been frozen."""
    since = mishap.began - COMMIT_WINDOW
    for other in sorted(mishaps, key=lambda each: each.began, reverse=True):
        hinders = other.kind == "broker-kill" or (other.kind == "freeze" and other.pid == mishap.pid)
        if hinders and other.began <= mishap.began and other.ended + NOTICE >= since:
            since = min(since, other.began - COMMIT_WINDOW)
    return since


def _at_risk(mishap: Mishap, attempts: Iterable[Attempt], mishaps: Sequence[Mishap]) -> int:
    """How many deliveries of the worker were in flight, or had ended since what it had surely committed."""
    since = _uncommitted_since(mishap, mishaps)
    return sum(_not_committed(each, mishap, since) for each in attempts)


def _standstill(
    ours: Iterable[Sent], handlers: Sequence[str], by_event: Mapping[tuple[str, str], Sequence[Attempt]]
) -> float:
    """The longest time in which nothing was accepted though something could have been: seconds."""
    changes: list[tuple[float, int]] = []
    for event in ours:
        for handler in handlers:
            if event.sort == "plain" and (settled := by_event.get((handler, event.event))):
                changes += [(event.at, 1), (max(event.at, _settled(settled[0])), -1)]
    longest, waiting, since = 0.0, 0, 0.0
    for at, change in sorted(changes):
        if change < 0:
            longest = max(longest, at - since)
            since = at
        elif not waiting:
            since = at
        waiting += change
    return longest
