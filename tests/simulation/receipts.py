"""Promise 11, watched as it happens: what a commit or a tombstone calls done has its receipt on the log before."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from tests.simulation.history import Attempt, History, shortened

from usher.delivery import Record
from usher.engine.dead_letters import REQUEST_PREFIX
from usher.engine.ledger import Mark
from usher.eventlog.port import Claim, Position
from usher.receipts import ENDINGS, unpack


class Filed:
    """The receipts on the log. *handlers* are all there are."""

    def __init__(self, handlers: Sequence[str], history: History) -> None:
        self._bits = {name: 1 << number for number, name in enumerate(sorted(handlers))}
        self._history = history
        self._of_deliveries: set[str] = set()
        self._of_replay: set[str] = set()

    def landed(self, record: Record) -> None:
        """Take in a record of the receipts' topic."""
        for receipt in unpack(record.value or b""):
            if receipt.replay:
                self._of_replay.add(receipt.replay)
            elif receipt.state in ENDINGS:
                self._of_deliveries.add(f"{receipt.handler}({receipt.event_id})@{receipt.offset}")

    def has(self, handler: str, event: str, offset: int) -> bool:
        return f"{handler}({event})@{offset}" in self._of_deliveries

    def before_tombstone(self, key: str) -> None:
        """Check a tombstone that is about to be written. *key* is the delivery's, or the request's."""
        short = shortened(key)
        if key.startswith(REQUEST_PREFIX):
            request = key.removeprefix(REQUEST_PREFIX)
            done = any(attempt.request == request and attempt.result == "done" for attempt in self._history.attempts)
            if done and request not in self._of_replay:
                self._history.violate(f"receipt: the request {request} is answered, and its replay has none")
        elif short not in self._of_deliveries:
            self._history.violate(f"receipt: {short} gets its tombstone, and has none")

    def before_commit(self, claim: Claim, position: Position) -> None:
        """Check a commit that is about to be made. What was parked is covered by its tombstone, and not by a commit."""
        mark = Mark.decode(position.mark, position.next) or Mark(position.next, position.next)
        parked = {shortened((record.key or b"").decode()) for record in self._history.retry[claim.partition]}
        for attempt in self._done_of(claim):
            bits = mark.undone.get(attempt.offset)
            covered = attempt.offset < mark.seen and (bits is None or bool(bits & self._bits[attempt.handler]))
            if covered and attempt.short not in parked and not self.has(attempt.handler, attempt.event, attempt.offset):
                self._history.violate(f"receipt: a commit covers {attempt.short}, and it has none")

    def _done_of(self, claim: Claim) -> Iterator[Attempt]:
        for attempt in self._history.attempts:
            where = (attempt.topic_id, attempt.partition)
            if attempt.result == "done" and not attempt.request and where == (claim.topic_id, claim.partition):
                yield attempt
