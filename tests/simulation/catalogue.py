"""The mutants: for each rule and promise what in the engine has to be replaced to take it away.

Not here: that the end of the retry partition is read after the committed offset (rule 5). The engine gets the committed
offset with the claim, and the log reads that end when it is first asked, so the engine can't turn the two around; the
contract suite of the logs holds them to it.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Mutant:
    """What *breaks* (a rule of docs/parking.md or a promise) when *old* becomes *new* in *file*, for each of *edits*.

    *also* are edits of a second file. *family* names the schedules that are about it. *unnoticed* says that they do not tell
    it from the engine yet, or can't, and why; it is kept in the list and not played.
    """

    name: str
    breaks: str
    file: str
    edits: tuple[tuple[str, str], ...]
    family: str = "anything"
    also: tuple[str, tuple[tuple[str, str], ...]] | None = None
    unnoticed: str = ""


MUTANTS = (
    Mutant(
        "another-than-the-head-runs",
        "rule 1",
        "engine/parked.py",
        (("WHERE lane = ? ORDER BY offset LIMIT 1", "WHERE lane = ? ORDER BY offset DESC LIMIT 1"),),
        family="burst",
    ),
    Mutant(
        "two-drivers-of-one-lane",
        "rule 1",
        "engine/driver.py",
        (("if state.open and not lane.driven:", "if state.open:"),),
        family="burst",
    ),
    Mutant(
        "settled-before-the-park-is-acknowledged",
        "rule 2",
        "engine/settle.py",
        (
            (
                "        headers = [*parked.headers(), (WRITER, state.writer)]\n",
                (
                    "        headers = [*parked.headers(), (WRITER, state.writer)]\n"
                    "        state.ledger.settle(parked.offset, parked.handler)\n"
                ),
            ),
        ),
        family="anything",
    ),
    Mutant(
        "queued-behind-what-is-parked",
        "rule 3",
        "engine/driver.py",
        (
            (
                "if lane.parking or len(lane.queue) >= self._limits.per_lane or state.table.holds_lane(lane.key):",
                "if len(lane.queue) >= self._limits.per_lane:",
            ),
        ),
        family="burst",
    ),
    Mutant(
        "no-tombstone-after-done",
        "rule 4",
        "engine/settle.py",
        (("if not in_flight.parked and state.ours:", "if state.ours:"),),
        family="burst",
    ),
    Mutant(
        "the-next-of-the-lane-is-not-started",
        "rule 4",
        "engine/driver.py",
        (
            (
                "            while state.open and (in_flight := state.next_in(lane, self.now_ms())) is not None:",
                "            if state.open and (in_flight := state.next_in(lane, self.now_ms())) is not None:",
            ),
        ),
        family="burst",
    ),
    Mutant(
        "gate-opened-before-the-table-is-folded",
        "rule 5",
        "engine/follow.py",
        (
            (
                "        async for part in self.event_log.parked(state.claim):\n",
                "        await self.opened(state)\n        async for part in self.event_log.parked(state.claim):\n",
            ),
            ("                await self.opened(state)\n", ""),
        ),
        family="burst",
    ),
    Mutant(
        "heads-are-not-freed",
        "rule 5",
        "engine/follow.py",
        (("for _ in state.table.free_heads(self.driver.now_ms()):", "for _ in ():"),),
        family="burst",
    ),
    Mutant(
        "what-is-parked-is-not-skipped",
        "rule 6",
        "engine/intake.py",
        ((" and f.delivery.key not in state.table]", "]"),),
        family="uncommitted",
    ),
    Mutant(
        "what-has-a-tombstone-is-not-skipped",
        "rule 6",
        "engine/intake.py",
        (("if f.delivery.key not in state.known_done and", "if"),),
        family="uncommitted",
    ),
    Mutant(
        "parked-runs-before-the-source",
        "rule 7",
        "engine/lanes.py",
        (
            (
                "        if parked.offset >= self.position:  # rule 7",
                "        if False:  # rule 7",
            ),
        ),
        also=(
            "engine/parked.py",
            (("AND NOT taken AND offset < ? ORDER BY due", "AND NOT taken AND ? NOTNULL ORDER BY due"),),
        ),
        family="burst",
    ),
    Mutant(
        "a-stranger-is-not-answered",
        "rule 8",
        "engine/follow.py",
        (
            (
                "            self.driver.spawn(state, self.settler.answer_stranger(state, delivery))\n            return\n",
                "            return\n",
            ),
        ),
        family="late writes",
    ),
    Mutant(
        "a-stranger-is-always-believed",
        "rule 8",
        "engine/follow.py",
        (("if delivery is not None and state.done_for_good(delivery):", "if False:"),),
        family="late writes",
    ),
    Mutant(
        "fewer-attempts-win",
        "rule 8",
        "engine/parked.py",
        (
            (">= (parked.attempt, ifnull(parked.due, 0))", "<= (parked.attempt, ifnull(parked.due, 0))"),
            ("(row.attempt, row.due or 0) >= (known.attempt,", "(row.attempt, row.due or 0) <= (known.attempt,"),
        ),
        family="late writes",
    ),
    Mutant(
        "a-strangers-put-removes",
        "rule 8",
        "engine/follow.py",
        (
            (
                "        else:\n            state.table.merge(delivery)\n        if in_flight is not None:",
                "        else:\n            state.table.remove(key)\n        if in_flight is not None:",
            ),
        ),
        family="late writes",
    ),
    Mutant(
        "a-late-success-writes-no-tombstone",
        "rule 9",
        "engine/driver.py",
        (("if not state.ours and not isinstance(verdict, Done):", "if not state.ours:"),),
        family="moves",
    ),
    Mutant(
        "a-late-failure-is-written",
        "rule 9",
        "engine/driver.py",
        (("if not state.ours and not isinstance(verdict, Done):", "if False:"),),
        family="moves",
    ),
    Mutant(
        "a-replay-parks",
        "rule 10",
        "engine/attempt.py",
        (("may_park=delivery.replay is None,", "may_park=True,"),),
        family="dead-letters",
    ),
    Mutant(
        "a-replay-is-not-answered",
        "rule 10",
        "engine/follow.py",
        (("if DROPPED not in outcomes and await self.settler.answer(state, request.replay.id):", "if not outcomes:"),),
        family="dead-letters",
    ),
    Mutant(
        "an-expired-replay-runs",
        "rule 10",
        "engine/attempt.py",
        (
            (
                "return delivery.replay is None or not delivery.replay.even_expired",
                "return delivery.replay is None",
            ),
        ),
        family="dead-letters",
    ),
    Mutant(
        "committed-before-it-is-settled",
        "promise 1: commit after the acknowledgement",
        "engine/claims.py",
        (
            (
                "undone = {offset: pending.done for offset, pending in self._pending.items()}",
                "undone: dict[int, int] = {}",
            ),
        ),
        family="burst",
    ),
    Mutant(
        "mark-not-carried-forward",
        "promise 1: the Mark",
        "engine/claims.py",
        (("            undone |= carried\n", ""),),
        family="burst",
    ),
    Mutant(
        "mark-of-another-base-is-used",
        "promise 1: the Mark",
        "engine/claims.py",
        (("        if found != base:\n            return None\n", ""),),
        family="dead-letters",
    ),
    Mutant(
        "tombstone-before-the-dead-letter",
        "promise 1, rule 4",
        "engine/settle.py",
        (
            (
                "        delivery = in_flight.delivery\n        headers = dead_letter_headers(delivery, reason=verdict.reason,",
                (
                    "        delivery = in_flight.delivery\n"
                    "        if in_flight.parked and delivery.replay is None and not await self._tombstone(state, delivery):\n"
                    "            return False\n"
                    "        headers = dead_letter_headers(delivery, reason=verdict.reason,"
                ),
            ),
        ),
        family="dead-letters",
    ),
    Mutant(
        "settled-before-the-dead-letter",
        "promise 1",
        "engine/settle.py",
        (
            (
                "        delivery = in_flight.delivery\n        headers = dead_letter_headers(delivery, reason=verdict.reason,",
                (
                    "        delivery = in_flight.delivery\n"
                    "        state.ledger.settle(delivery.offset, delivery.handler)\n"
                    "        headers = dead_letter_headers(delivery, reason=verdict.reason,"
                ),
            ),
        ),
        family="dead-letters",
    ),
    Mutant(
        "two-at-once",
        "promise 3",
        "engine/driver.py",
        (
            ("while (other := self._running.get(lane.key)) is not None:", "while (other := None) is not None:"),
            ("            del self._running[lane.key]\n", "            self._running.pop(lane.key, None)\n"),
        ),
        family="moves",
    ),
    Mutant(
        "no-drain",
        "promise 4: a graceful move repeats nothing",
        "engine/worker.py",
        (("deadline = clock() + self._limits.drain", "deadline = clock()"),),
        family="moves",
    ),
    Mutant(
        "no-commit-when-a-claim-goes",
        "promise 4: a graceful move repeats nothing",
        "engine/worker.py",
        (("            await self._commit([state], orderly=True)\n", "            pass\n"),),
        family="moves",
    ),
    Mutant(
        "a-second-arrival-is-not-known",
        "promise 4: duplicates in the topic",
        "engine/lanes.py",
        (("if known is not None and known[0] < offset and timestamp - known[1] <= self._window:", "if False:"),),
        family="moves",
    ),
    Mutant(
        "due-rounded-down",
        "no early retry",
        "engine/attempt.py",
        (("due = math.ceil(verdict.due * 1000)", "due = math.floor(verdict.due * 1000)"),),
        family="uncommitted",
    ),
    Mutant(
        "jitter-takes-away",
        "no early retry",
        "outcome.py",
        (("(1 + self.jitter * rng.random())", "(1 - self.jitter * rng.random())"),),
        family="uncommitted",
    ),
    Mutant(
        "nothing-expires",
        "promise 7",
        "engine/attempt.py",
        (("if self._too_late(handler, event, delivery):", "if False:"),),
        family="anything",
    ),
    Mutant(
        "memory-without-bound",
        "promise 6",
        "engine/driver.py",
        (
            (
                "return self.records >= limits.records * limits.fresh or self._size >= limits.size * limits.fresh",
                "return False",
            ),
        ),
        family="flood",
    ),
    Mutant(
        "a-claim-without-bound",
        "promise 6",
        "engine/worker.py",
        (("min(limits.read, limits.per_claim - fullest, fitting)", "limits.read"),),
        family="flood",
    ),
    Mutant(
        "a-late-write-of-our-own-is-not-answered",
        "rule 8",
        "engine/follow.py",
        ((" != state.writer or key in state.doubtful:", " != state.writer:"),),
        family="late writes",
    ),
    Mutant(
        "of-equal-attempts-the-last-written-counts",
        "rule 8: never early",
        "engine/parked.py",
        (
            (
                "(excluded.attempt, ifnull(excluded.due, 0)) >= (parked.attempt, ifnull(parked.due, 0))",
                "excluded.attempt >= parked.attempt",
            ),
            ("(row.attempt, row.due or 0) >= (known.attempt, known.due or 0)", "row.attempt >= known.attempt"),
        ),
        family="late writes",
    ),
    Mutant(
        "runs-while-it-is-being-parked",
        "rule 8",
        "engine/lanes.py",
        (("first_parking <= parked.offset", "first_parking < parked.offset"),),
        family="late writes",
    ),
    Mutant(
        "what-waits-to-run-alone-hears-nothing",
        "rule 8",
        "engine/driver.py",
        (("            if not in_flight.done_elsewhere:  # said while", "            if True:  # said while"),),
        family="burst",
        unnoticed="500 schedules passed: a dead worker's tombstone has to land while a delivery waits for its turn to run alone",
    ),
    Mutant(
        "what-waited-for-the-source-is-not-woken",
        "rule 7",
        "engine/lanes.py",
        (("                self.table.postpone(parked.key, now)\n", "                pass\n"),),
        family="anything",
    ),
    Mutant(
        "a-queue-is-parked-when-its-claim-has-gone",
        "rule 9",
        "engine/driver.py",
        (("            if state.ours:  # rule 9: what is queued", "            if True:  # rule 9: what is queued"),),
        family="moves",
    ),
    Mutant(
        "a-success-beside-the-last-commit-is-not-told",
        "rule 9",
        "engine/worker.py",
        (
            ("        state.ours = False  # from here on", "        # from here on"),
            (
                "            await self._commit([state], orderly=True)\n",
                "            await self._commit([state], orderly=True)\n        state.ours = False\n",
            ),
        ),
        family="moves",
    ),
    Mutant(
        "who-leaves-takes-claims",
        "rule 9",
        "engine/worker.py",
        (
            (
                "        if self._stopping.is_set():\n            return  # whoever leaves",
                "        if False:\n            return  # whoever leaves",
            ),
        ),
        family="moves",
    ),
)
