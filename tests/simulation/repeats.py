"""Judges the deliveries that were done more than once: a fault must have hit them in flight, or before a write about them.

The question for each repeat is whether its worker could have known of the first. A success is *known* when a commit covers
it, or a tombstone is there, by the time the other worker took its claim. One that should have been known and was not needs
a reason, and each reason ends: a crash with what had just ended, a late attempt with its tombstone, an outage with its recovery.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator
from itertools import combinations

from tests.simulation.history import FOREVER, Attempt, History, Tenure, Trouble, fold

from usher.engine.ledger import Mark

_COMMIT_EVERY = 0.5
_TURN = 0.3
"""Seconds for what takes a few turns of the loop, and for a poll that had to be woken."""


class Repeats:
    """Judges the repeats in *history*, where a healthy log takes *slowest* seconds for a write at most."""

    def __init__(self, history: History, handlers: Collection[str], *, slowest: float, drain: float) -> None:
        self._history = history
        self._bits = {name: 1 << index for index, name in enumerate(sorted(handlers))}
        self._slowest = slowest
        self._drain = drain
        self._unknown_for = _COMMIT_EVERY + 2 * slowest + _TURN
        """Seconds after which an end is committed: one commit may be under way when it comes, the next covers it."""
        self._troubles: list[Trouble] = []
        for trouble in sorted(history.troubles):
            if (
                self._troubles and trouble.begin <= self._troubles[-1].end + self._unknown_for
            ):  # no time to recover between
                begin, end = self._troubles.pop()
                trouble = Trouble(begin, max(end, trouble.end))
            self._troubles.append(trouble)

    def violations(self) -> Iterator[str]:
        """Return a sentence for each delivery that was repeated without a reason, and for each late success that was not written."""
        effects: dict[tuple[tuple[str, str], str], list[Attempt]] = defaultdict(list)
        for attempt in self._history.attempts:
            if attempt.result == "done":  # each request of an operator is good for one, too
                effects[attempt.delivery, attempt.request].append(attempt)
        for attempts in effects.values():
            attempts.sort(key=lambda attempt: attempt.ended)
            wrong = [why for first, again in combinations(attempts, 2) if (why := self._against(first, again))]
            if wrong:
                handler, event = attempts[0].delivery
                yield f"twice: {handler}({event}) was done again {wrong[-1]}"
        yield from self._late_and_unwritten()
        yield from self._ignored_tombstones()

    def _against(self, first: Attempt, again: Attempt) -> str:
        """Why *again* should not have happened after *first*; empty where it may."""
        if first.offset != again.offset:
            return "for its second arrival"
        if first.tenure is again.tenure:
            return "" if self._parked_anew(first, again) else "by the same worker in the same claim"
        if again.began < first.ended:
            return self._against_beside(first, again)
        if self._parked_anew(first, again) or self._set_back(first, again) or self._astray(again, again.began):
            return ""
        if (how := self._knowable(first, again)) and not self._could_not_read(first, again):
            return how
        return self._against_unknown(first, again)

    def _against_beside(self, first: Attempt, again: Attempt) -> str:
        """It began while the other ran: that one's claim has to have been lost, or to have used up its drain."""
        for one, other in ((first, again), (again, first)):
            if self._astray(one, other.began) or other.tenure.began >= one.tenure.asked_back + self._drain - _TURN:
                return ""
        return "while it ran elsewhere, and the drain was not over"

    def _parked_anew(self, first: Attempt, again: Attempt) -> bool:
        """Return whether a park record landed when no worker was there to take it back: the table says that it is parked."""
        known = self._history.known(again)
        if known is None or known.parked is None or known.at < first.ended - 0.001:
            return False
        return not any(
            tenure.began + self._unknown_for
            < known.at
            < min(tenure.asked_back, self._lost(tenure)) - self._slowest - _TURN
            and not self._troubled(known.at, known.at)
            for tenure in self._history.tenures
            if tenure.claim.partition == again.partition
        )

    def _set_back(self, first: Attempt, again: Attempt) -> bool:
        return any(
            partition == first.partition and offset <= first.offset and first.ended <= at <= again.tenure.began
            for at, partition, offset in self._history.resets
        )

    def _knowable(self, first: Attempt, again: Attempt) -> str:
        """How the worker that repeated could have known, if it could."""
        known = self._history.known(again)
        if known is not None and known.parked is None:
            return "though its claim began with a tombstone"
        now = fold([each for each in self._history.writes(again) if each.at <= self._sees(again)])
        if now is not None and now.parked is None:
            return "though a tombstone had come"
        if again.request:  # no commit says anything about a replay
            return ""
        for tenure in self._history.tenures:
            if (
                tenure.claim.partition == again.partition
                and first.ended <= tenure.began <= again.tenure.began
                and (known is None or known.parked is None)
                and self._committed(tenure, first)
            ):
                return "though a commit said that it was done"
        return ""

    def _committed(self, tenure: Tenure, attempt: Attempt) -> bool:
        start = tenure.claim.start
        if tenure.claim.topic_id != attempt.topic_id:
            return False
        if attempt.offset < start:
            return True
        mark = Mark.decode(tenure.claim.mark, start)
        if mark is None or attempt.offset >= mark.seen:
            return False
        return attempt.offset not in mark.undone or bool(mark.undone[attempt.offset] & self._bits[attempt.handler])

    def _could_not_read(self, first: Attempt, again: Attempt) -> bool:
        """Return whether the worker was astray, or could not read: then it does not see a tombstone."""
        return self._astray(again, again.began) or self._troubled(first.ended, again.began)

    def _against_unknown(self, first: Attempt, again: Attempt) -> str:
        """Judge a repeat whose worker could not know of the first: there has to be a reason why that was not written."""
        ended, life = first.ended, self._history.lives[first.process]
        if self._astray(first, ended):
            return ""
        lost = self._lost(first.tenure)
        if any(
            trouble.begin - self._unknown_for <= ended <= trouble.end and lost <= trouble.end + self._unknown_for
            for trouble in self._troubles
        ):
            return ""
        if life.killed and ended >= life.ended - self._unknown_for:
            return ""
        if any(begin - self._unknown_for <= ended <= end for begin, end in life.strays):
            return ""
        written = self._slowest * self._writes_of(first) + _TURN
        if ended >= first.tenure.ended - written:  # late: the excuse ends with its tombstone
            opening = self._opening(again) and again.tenure.began <= ended + written
            if again.began <= ended + written or opening or life.ended <= ended + written:
                return ""
            return "though the late attempt had ended before"
        return "and nothing had prevented the write that says so"

    def _writes_of(self, attempt: Attempt) -> int:
        """How many writes, one after the other, say that it was done: a replay has a state of its dead letter, and an answer."""
        return 2 if attempt.request else 1

    def _late_and_unwritten(self) -> Iterator[str]:
        """Check rule 9: a success that comes when its claim has gone gets a tombstone, parked before or not."""
        for attempt in self._history.attempts:
            ended, life, tenure = attempt.ended, self._history.lives[attempt.process], attempt.tenure
            by = ended + self._slowest * self._writes_of(attempt) + _TURN
            if (
                attempt.result == "done"
                and ended > min(tenure.ended, tenure.asked_back + self._drain) + 0.001
                and life.ended > by
                and not life.strayed(attempt.began, by)
                and not self._troubled(tenure.asked_back, by)
                and not self._written(attempt)
            ):
                yield f"unwritten: {attempt.handler}({attempt.event}) was done when its claim had gone, and no tombstone says so"

    def _ignored_tombstones(self) -> Iterator[str]:
        """Check rule 8: no worker that can read begins a delivery that a tombstone says is done."""
        for attempt in self._history.attempts:
            now = fold([write for write in self._history.writes(attempt) if write.at <= attempt.began])
            if (
                now is not None
                and now.parked is None
                and now.at < self._sees(attempt)
                and not self._astray(attempt, attempt.began)
                and not self._troubled(now.at, attempt.began)
            ):
                yield f"ignored: {attempt.handler}({attempt.event}) began {attempt.began - now.at:.3f} s after a tombstone"

    def _sees(self, attempt: Attempt) -> float:
        """Until when its worker sees what lands in the retry partition: while a claim is loaded, only what lay there before."""
        sees = attempt.began - self._slowest - _TURN
        return min(sees, attempt.tenure.began) if self._opening(attempt) else sees

    def _opening(self, attempt: Attempt) -> bool:
        """Whether it may have begun when its claim was opened: a slow load and a commit after the claim began."""
        return attempt.began <= attempt.tenure.began + 2 * self._slowest + _TURN

    def _written(self, attempt: Attempt) -> bool:
        """Whether a success is known by a tombstone, or by the commit that was made when its claim ended."""
        if any(write.parked is None and write.at >= attempt.ended - 0.001 for write in self._history.writes(attempt)):
            return True
        followers = (
            tenure
            for tenure in self._history.tenures
            if tenure.claim.partition == attempt.partition and tenure.began >= attempt.tenure.ended >= attempt.ended
        )
        following = next(followers, None)
        return following is not None and self._committed(following, attempt)

    def _astray(self, attempt: Attempt, at: float) -> bool:
        """Whether the claim of *attempt* may have been another's at *at* without its process knowing."""
        life = self._history.lives[attempt.process]
        return any(
            begin <= at and attempt.tenure.began <= end and at <= end + self._drain for begin, end in life.strays
        )

    def _lost(self, tenure: Tenure) -> float:
        """When the worker could no longer act for a claim: it ended, or the process was killed, or went astray."""
        life = self._history.lives[tenure.process]
        strays = (begin for begin, _ in life.strays if begin >= tenure.began)
        return min(tenure.ended, life.ended if life.killed else FOREVER, *strays, FOREVER)

    def _troubled(self, since: float, until: float) -> bool:
        return any(trouble.begin <= until and trouble.end >= since for trouble in self._troubles)
