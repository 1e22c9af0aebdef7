"""The mutants: for each rule and promise the edits of the engine that take it away.

Not here: that the end of the retry partition is read after the committed offset (rule 5). The engine gets the committed offset
with the claim, and the event log reads that end when it is first asked, so the engine can't reverse the two. The contract suite
of the event logs checks it.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Edit:
    """One edit of *where* (``module:qualified.name``, in `usher`): *old* becomes *new*.

    Both are Python: an expression, or one or more statements. Formatting and comments do not matter. An empty *new* removes
    the statements.
    """

    where: str
    old: str
    new: str


@dataclass(frozen=True)
class Mutant:
    """What *breaks* (a rule of docs/parking.md or a promise) with all of *edits*.

    *family* names the schedules that are about it.
    """

    name: str
    breaks: str
    edits: tuple[Edit, ...]
    family: str = "anything"


_RULE_9 = "not state.ours and not isinstance(verdict, Done)"
_FIRST = "SELECT key, offset, due FROM parked WHERE lane = ? ORDER BY offset LIMIT 1"
_DUE = "SELECT key, lane, length(value) FROM parked WHERE due <= ? AND NOT taken AND offset < ? ORDER BY due LIMIT ?"
_BETTER = " WHERE (excluded.attempt, ifnull(excluded.due, 0)) >= (parked.attempt, ifnull(parked.due, 0))"
_KNOWN_BETTER = "(row.attempt, row.due or 0) >= (known.attempt, known.due or 0)"

MUTANTS = (
    Mutant(
        "another-than-the-head-runs",
        "rule 1",
        (
            Edit(
                "engine.parking_table:ParkingTable.first",
                repr(_FIRST),
                repr(_FIRST.replace("offset L", "offset DESC L")),
            ),
        ),
        family="burst",
    ),
    Mutant(
        "two-drivers-of-one-lane",
        "rule 1",
        (Edit("engine.driver:Driver.wake", "not lane.driven", "True"),),
        family="burst",
    ),
    Mutant(
        "settled-before-the-park-is-acknowledged",
        "rule 2",
        (
            Edit(
                "engine.settle:Settler._park",
                "delivery = in_flight.delivery",
                "delivery = in_flight.delivery\nstate.ledger.settle(delivery.offset, delivery.handler)",
            ),
        ),
    ),
    Mutant(
        "queued-behind-what-is-parked",
        "rule 3",
        (
            Edit(
                "engine.driver:Driver.begin",
                "lane.parking or len(lane.queue) >= self._limits.per_lane or self._holds(state, lane)",
                "len(lane.queue) >= self._limits.per_lane",
            ),
        ),
        family="burst",
    ),
    Mutant(
        "no-tombstone-after-done",
        "rule 4",
        (Edit("engine.settle:_needs_tombstone", "in_flight.parked or not state.ours", "not state.ours"),),
        family="burst",
    ),
    Mutant(
        "the-next-of-the-lane-is-not-started",
        "rule 4",
        (
            Edit(
                "engine.driver:Driver._drive",
                "self._leave(state, lane, in_flight)",
                "self._leave(state, lane, in_flight)\nbreak",
            ),
        ),
        family="burst",
    ),
    Mutant(
        "opened-before-the-table-is-folded",
        "rule 5",
        (
            Edit(
                "engine.claims:Claims._follow_once",
                "await self.follower.load(state, stream)\nawait self._open(state)",
                "await self._open(state)\nawait asyncio.sleep(1)\nawait self.follower.load(state, stream)",
            ),
        ),
        family="burst",
    ),
    Mutant(
        "heads-are-not-freed",
        "rule 5",
        (Edit("engine.follow:RetryFollower.load", "state.table.free_heads(self.driver.now_ms())", "()"),),
        family="burst",
    ),
    Mutant(
        "what-is-parked-is-not-skipped",
        "rule 6",
        (
            Edit(
                "engine.intake:Intake._take_one",
                "f.delivery.key not in state.known_done and f.delivery.key not in state.table",
                "f.delivery.key not in state.known_done",
            ),
        ),
        family="uncommitted",
    ),
    Mutant(
        "what-has-a-tombstone-is-not-skipped",
        "rule 6",
        (
            Edit(
                "engine.intake:Intake._take_one",
                "f.delivery.key not in state.known_done and f.delivery.key not in state.table",
                "f.delivery.key not in state.table",
            ),
        ),
        family="uncommitted",
    ),
    Mutant(
        "parked-runs-before-the-source",
        "rule 7",
        (
            Edit("engine.lanes:Lane.take_head", "parked.offset >= position", "False"),
            Edit("engine.parking_table:ParkingTable.due", repr(_DUE), repr(_DUE.replace("offset < ?", "? NOTNULL"))),
        ),
        family="burst",
    ),
    Mutant(
        "a-late-park-record-is-not-taken-back",
        "rule 8",
        (Edit("engine.follow:RetryFollower._parked", "state.spawn(self.settler.tombstone(state, delivery))", ""),),
        family="late writes",
    ),
    Mutant(
        "a-late-park-record-is-always-believed",
        "rule 8",
        (Edit("engine.follow:RetryFollower._parked", "state.done_for_good(delivery)", "False"),),
        family="late writes",
    ),
    Mutant(
        "fewer-attempts-win",
        "rule 8",
        (
            Edit("engine.parking_table:_BETTER", repr(_BETTER), repr(_BETTER.replace(">=", "<="))),
            Edit("engine.parking_table:ParkingTable.fold", _KNOWN_BETTER, _KNOWN_BETTER.replace(">=", "<=")),
        ),
        family="late writes",
    ),
    Mutant(
        "a-late-park-record-removes",
        "rule 8",
        (
            Edit(
                "engine.follow:RetryFollower._parked",
                "state.table.merge(delivery)",
                "state.table.remove(delivery.key)",
            ),
        ),
        family="late writes",
    ),
    Mutant(
        "a-late-success-writes-no-tombstone",
        "rule 9",
        (Edit("engine.settle:Settler.settle", _RULE_9, "not state.ours"),),
        family="moves",
    ),
    Mutant(
        "a-late-failure-is-written",
        "rule 9",
        (Edit("engine.settle:Settler.settle", _RULE_9, "False"),),
        family="moves",
    ),
    Mutant(
        "a-replay-parks",
        "rule 10",
        (Edit("engine.attempt:Attempts._failed", "delivery.replay is None", "True"),),
        family="dead-letters",
    ),
    Mutant(
        "a-replay-is-not-answered",
        "rule 10",
        (
            Edit(
                "engine.replays:Replays._replay",
                "DROPPED not in outcomes and await self.writes.answer(state, request.replay.id)",
                "not outcomes",
            ),
        ),
        family="dead-letters",
    ),
    Mutant(
        "a-replay-that-was-dropped-is-answered",
        "rule 10",
        (
            Edit(
                "engine.replays:Replays._replay",
                "DROPPED not in outcomes and await self.writes.answer(state, request.replay.id)",
                "await self.writes.answer(state, request.replay.id)",
            ),
        ),
        family="dead-letters",
    ),
    Mutant(
        "a-replay-is-answered-before-it-runs",
        "rule 10",
        (
            Edit(
                "engine.replays:Replays._replay",
                "outcomes = await self._run(state, request)",
                """
await self.writes.answer(state, request.replay.id)
outcomes = await self._run(state, request)
""",
            ),
        ),
        family="dead-letters",
    ),
    Mutant(
        "what-became-of-a-replay-is-not-written",
        "rule 10",
        (
            Edit(
                "engine.settle:Settler._done",
                "await self._set_state(state, delivery.replay, 'replayed', verdict.reason)",
                "True",
            ),
        ),
        family="dead-letters",
    ),
    Mutant(
        "a-replay-that-was-answered-meanwhile-runs",
        "rule 10",
        (Edit("engine.claim_state:ClaimState.answered", "in_flight.outcome is not None", "False"),),
        family="dead-letters",
    ),
    Mutant(
        "a-replay-runs-once-more-with-a-new-index",
        "rule 10: an index is made anew",
        (
            Edit(
                "engine.replays:Replays.begin",
                "request.replay is not None and request.replay.dead_letter not in begun",
                "request.replay is not None",
            ),
            Edit("engine.replays:Replays._carry_out", "dead_letter in state.replayed", "False"),
        ),
        family="disks",
    ),
    Mutant(
        "an-expired-replay-runs",
        "rule 10",
        (
            Edit(
                "engine.attempt:Attempts.make",
                "delivery.replay is not None and delivery.replay.even_expired",
                "delivery.replay is not None",
            ),
        ),
        family="dead-letters",
    ),
    Mutant(
        "committed-before-it-is-settled",
        "promise 1: commit after the acknowledgement",
        (
            Edit(
                "engine.ledger:Ledger.snapshot",
                "{o: pending.done if isinstance(pending, _Pending) else 0 for o, pending in self._pending.items()}",
                "{}",
            ),
        ),
        family="burst",
    ),
    Mutant(
        "mark-not-carried-forward",
        "promise 1: the Mark",
        (Edit("engine.ledger:Ledger.snapshot", "undone |= carried", ""),),
        family="burst",
    ),
    Mutant(
        "mark-of-another-base-is-used",
        "promise 1: the Mark",
        (Edit("engine.ledger:Mark.decode", "found != base", "False"),),
        family="dead-letters",
    ),
    Mutant(
        "tombstone-before-the-dead-letter",
        "promise 1, rule 4",
        (
            Edit(
                "engine.settle:Settler._give_up",
                "expires_at = self.attempts.expiry_of(in_flight)",
                """
if in_flight.parked and delivery.replay is None and not await self.writes.unpark(state, delivery):
    return
expires_at = self.attempts.expiry_of(in_flight)
""",
            ),
        ),
        family="dead-letters",
    ),
    Mutant(
        "settled-before-the-dead-letter",
        "promise 1",
        (
            Edit(
                "engine.settle:Settler._give_up",
                "expires_at = self.attempts.expiry_of(in_flight)",
                """
state.ledger.settle(delivery.offset, delivery.handler)
expires_at = self.attempts.expiry_of(in_flight)
""",
            ),
        ),
        family="dead-letters",
    ),
    Mutant(
        "two-at-once",
        "promise 3",
        (
            Edit("engine.driver:Driver._may_run", "self._running.get(lane.key)", "None"),
            Edit("engine.driver:Driver._is_free", "lane.key not in self._running", "True"),
        ),
        family="moves",
    ),
    Mutant(
        "what-was-parked-meanwhile-goes-straight",
        "rule 4",
        (Edit("engine.settle:Settler.settle_at_once", "_needs_tombstone(state, in_flight)", "not state.ours"),),
        family="burst",
    ),
    Mutant(
        "a-late-success-goes-straight",
        "rule 9",
        (Edit("engine.settle:Settler.settle_at_once", "_needs_tombstone(state, in_flight)", "in_flight.parked"),),
        family="moves",
    ),
    Mutant(
        "a-replay-goes-straight",
        "rule 10",
        (Edit("engine.settle:Settler.settle_at_once", "in_flight.outcome is not None", "False"),),
        family="dead-letters",
    ),
    Mutant(
        "no-drain",
        "promise 4: a graceful move repeats nothing",
        (Edit("engine.claims:Claims._drain", "clock() + self.limits.drain", "clock()"),),
        family="moves",
    ),
    Mutant(
        "no-commit-when-a-claim-goes",
        "promise 4: a graceful move repeats nothing",
        (
            Edit(
                "engine.claims:Claims._release",
                "await self.commits.commit([state for state in states if state.loaded], orderly=True)",
                "",
            ),
        ),
        family="moves",
    ),
    Mutant(
        "a-second-arrival-is-not-known",
        "promise 4: duplicates in the topic",
        (
            Edit(
                "engine.dedupe:Recent.duplicate",
                "known is not None and known[0] < offset and at - known[2] <= self._window",
                "False",
            ),
        ),
        family="moves",
    ),
    Mutant(
        "the-clock-of-a-producer-is-believed",
        "promise 4: duplicates in the topic",
        (Edit("engine.dedupe:Recent.duplicate", "min(stated, now)", "stated"),),
        family="moves",
    ),
    Mutant(
        "a-record-without-a-time-is-of-1970",
        "promise 4: duplicates in the topic",
        (Edit("engine.dedupe:Recent.duplicate", "stated_time(timestamp, now)", "timestamp"),),
        family="moves",
    ),
    Mutant(
        "due-rounded-down",
        "no early retry",
        (Edit("engine.attempt:_after", "math.ceil(verdict.due * 1000)", "math.floor(verdict.due * 1000)"),),
        family="uncommitted",
    ),
    Mutant(
        "jitter-takes-away",
        "no early retry",
        (Edit("outcome:RetryPolicy.delay", "1 + self.jitter * rng.random()", "1 - self.jitter * rng.random()"),),
        family="uncommitted",
    ),
    Mutant(
        "nothing-expires",
        "promise 8",
        (Edit("engine.attempt:Attempts.make", "expires_at < self.now() * 1000", "False"),),
    ),
    Mutant(
        "memory-without-bound",
        "promise 7",
        (
            Edit(
                "engine.driver:Driver.full",
                "self.records >= limits.records * limits.fresh or self.size >= limits.size * limits.fresh",
                "False",
            ),
        ),
        family="flood",
    ),
    Mutant(
        "a-claim-without-bound",
        "promise 7",
        (
            Edit(
                "engine.reading:Reader._readable",
                "min(limits.read, limits.per_claim - fullest, fitting)",
                "limits.read",
            ),
        ),
        family="flood",
    ),
    Mutant(
        "garbage-is-left-out",
        "promise 5: undecodable bytes are dead letters",
        (Edit("systems.prefilter:_one", 'value[-1:] != b"}"', "False"),),
    ),
    Mutant(
        "what-is-left-out-is-not-counted",
        "promise 5: the ratio of undecodable records is taken over all records",
        (Edit("engine.intake:Intake._count", "len(taken.records) + taken.passed", "len(taken.records)"),),
        family="flood",
    ),
    Mutant(
        "a-flood-is-counted-over-what-is-kept",
        "promise 5: the ratio of undecodable records is taken over all records",
        (Edit("engine.intake:Intake.take", "batch.place(index)", "index + 1"),),
        family="flood",
    ),
    Mutant(
        "a-late-write-of-our-own-is-not-taken-back",
        "rule 8",
        (
            Edit(
                "engine.follow:RetryFollower.listen",
                "head.get(WRITER) != state.writer or key in state.doubtful",
                "head.get(WRITER) != state.writer",
            ),
        ),
        family="late writes",
    ),
    Mutant(
        "of-equal-attempts-the-last-written-counts",
        "rule 8: never early",
        (
            Edit("engine.parking_table:_BETTER", repr(_BETTER), repr(" WHERE excluded.attempt >= parked.attempt")),
            Edit("engine.parking_table:ParkingTable.fold", _KNOWN_BETTER, "row.attempt >= known.attempt"),
        ),
        family="late writes",
    ),
    Mutant(
        "runs-while-it-is-being-parked",
        "rule 8",
        (Edit("engine.lanes:Lane.take_head", "first_parking <= parked.offset", "first_parking < parked.offset"),),
        family="late writes",
    ),
    Mutant(
        "what-waits-to-run-alone-sees-no-tombstone",
        "rule 8",
        (Edit("engine.isolation:Isolation._try", "in_flight.done_elsewhere", "False"),),
        family="bad starts",
    ),
    Mutant(
        "what-waited-for-the-source-is-not-woken",
        "rule 7",
        (Edit("engine.lanes:Lane.take_head", "table.postpone(parked.key, now, now)", ""),),
        family="moves",
    ),
    Mutant(
        "a-queue-is-parked-when-its-claim-has-gone",
        "rule 9",
        (Edit("engine.settle:Settler.settle", _RULE_9, "not state.ours and not isinstance(verdict, Done | Behind)"),),
        family="moves",
    ),
    Mutant(
        "a-success-beside-the-last-commit-has-no-tombstone",
        "rule 9",
        (
            Edit(
                "engine.claims:Claims._release",
                """
for state in states:
    state.ours = False
await self.commits.commit([state for state in states if state.loaded], orderly=True)
""",
                """
await self.commits.commit([state for state in states if state.loaded], orderly=True)
for state in states:
    state.ours = False
""",
            ),
        ),
        family="moves",
    ),
    Mutant(
        "a-lost-claim-parks",
        "rule 9: once a commit has said that a claim is lost",
        (Edit("engine.commits:Commits._lose", "state.lose()", ""),),
        family="late writes",
    ),
    Mutant(
        "a-lost-claim-is-only-closed",
        "rule 9: once a commit has said that a claim is lost",
        (Edit("engine.claim_state:ClaimState.lose", "self.lost, self.ours = True, False", "self.lost = True"),),
        family="late writes",
    ),
    Mutant(
        "a-lost-claim-is-opened",
        "rule 9: once a commit has said that a claim is lost",
        (
            Edit(
                "engine.claims:Claims._open", "state.releasing is not None or state.lost", "state.releasing is not None"
            ),
        ),
        family="late writes",
    ),
    Mutant(
        "a-write-that-waited-is-made-when-its-claim-is-lost",
        "rule 9: once a commit has said that a claim is lost",
        (Edit("engine.writes:Writes.durable", "not state.ours and failure", "False"),),
        family="late writes",
    ),
    Mutant(
        "what-was-removed-comes-back-with-a-new-index",
        "promise 4: an index is made anew",
        (
            Edit(
                "engine.parking_table:ParkingTable.remove", "self._gone[key] = max(before, self._gone.get(key, 0))", ""
            ),
        ),
        family="disks",
    ),
    Mutant(
        "what-is-queued-is-not-parked-behind-a-new-index",
        "rule 3: an index is made anew",
        (
            Edit(
                "engine.driver:Driver.go_on",
                "self._park_behind(state, lane, in_flight)",
                "lane.queue.append(in_flight)",
            ),
        ),
        family="disks",
    ),
    Mutant(
        "a-lane-runs-without-an-index",
        "promise 2: an index is made anew",
        (Edit("engine.parking_table:ParkingTable.usable", "self._gone is None and not self.file.why_lost", "True"),),
        family="disks",
    ),
    Mutant(
        "a-due-time-of-a-wrong-clock-is-believed",
        "promise 8: nothing waits because a clock was wrong",
        (Edit("engine.driver:Driver._start_due", "state.table.distrust(now)", ""),),
        family="clocks",
    ),
    Mutant(
        "what-is-due-is-slept-for",
        "promise 8: nothing waits because a clock was wrong",
        (
            Edit("engine.parking_table:ParkingTable.distrust", "self.soonest = 0.0", ""),
            Edit(
                "engine.parking_table:ParkingTable.distrust",
                "self._latest, self.soonest = now, 0.0",
                "self._latest = now",
            ),
        ),
        family="clocks",
    ),
    Mutant(
        "a-wait-is-longer-than-what-is-left",
        "promise 8: no wait beyond the expiry",
        (Edit("outcome:_wait", "expires_at is None or due <= expires_at", "True"),),
        family="clocks",
    ),
    Mutant(
        "a-worker-that-stops-takes-claims",
        "rule 9",
        (Edit("engine.claims:Claims.claimed", "self.leaving", "False"),),
        family="moves",
    ),
    Mutant(
        "a-foreign-record-is-ours",
        "promise 10: a record of another group is not ours",
        (
            Edit(
                "delivery.headers:foreign",
                '"" if (its_group, its_topic) == (group, topic) else f"group {its_group}, topic {its_topic}"',
                '""',
            ),
        ),
        family="another topic",
    ),
    Mutant(
        "a-foreign-record-is-ours-when-it-is-loaded",
        "promise 10: a record of another group is not ours",
        (
            Edit(
                "engine.follow:RetryFollower._changes",
                "key.startswith(REQUEST_PREFIX) or self._foreign(state, head)",
                "key.startswith(REQUEST_PREFIX)",
            ),
        ),
        family="another topic",
    ),
    Mutant(
        "a-number-out-of-range-is-read",
        "promise 10: a forged record ends no worker",
        (Edit("delivery.headers:Head.integer", "-_MOST <= number <= most", "True"),),
        family="another topic",
    ),
    Mutant(
        "a-delivery-under-the-key-of-another-is-read",
        "promise 10: a forged record is not ours",
        (
            Edit(
                "engine.parked_row:ParkedRow.from_record",
                "key != f'{handler}/{named}@{head.integer(ORIGINAL_PARTITION)}-{offset}' or named.count('/') != 2",
                "named.count('/') != 2",
            ),
        ),
        family="another topic",
    ),
    Mutant(
        "a-delivery-of-an-earlier-topic-counts-by-its-offset",
        "promise 10: an offset is of one topic",
        (Edit("engine.claim_state:ClaimState.of_earlier_topic", "topic_id != self.claim.topic_id.encode()", "False"),),
        family="another topic",
    ),
    Mutant(
        "a-delivery-of-an-earlier-topic-counts-as-done",
        "promise 10: an offset is of one topic",
        (Edit("engine.claim_state:ClaimState.done_for_good", "delivery.key in self.done_earlier", "True"),),
        family="another topic",
    ),
    Mutant(
        "what-is-in-flight-of-a-deleted-topic-is-not-parked",
        "promise 1: what nobody can read again is handed over",
        (Edit("engine.driver:Driver.hand_over", "in_flight.settling", "True"),),
        family="another topic",
    ),
    Mutant(
        "nothing-runs-alone-after-bad-starts",
        "promise 5: a delivery that ends its worker is given up",
        (Edit("engine.ledger:Ledger.__init__", "loaded.starts >= _PATIENCE", "False"),),
        family="deadly",
    ),
    Mutant(
        "what-is-in-doubt-runs-beside-others",
        "promise 5: a delivery that ends its worker is given up",
        (Edit("engine.ledger:Ledger.in_doubt", "offset < self._doubt", "False"),),
        family="deadly",
    ),
    Mutant(
        "what-runs-alone-is-not-named-first",
        "promise 5: a delivery that ends its worker is given up",
        (Edit("engine.isolation:Isolation._begin_round", "self._name(self._round)", ""),),
        family="deadly",
    ),
    Mutant(
        "what-is-read-later-runs-before-a-commit-says-so",
        "promise 5: a delivery that ends its worker is given up",
        (Edit("engine.isolation:Isolation.attempt", "await self._covered(state, offset)", "state.open"),),
        family="deadly",
    ),
    Mutant(
        "a-commit-does-not-wait-for-receipts",
        "promise 11: the receipt comes before what covers it",
        (
            Edit(
                "engine.commits:Commits.commit",
                "await asyncio.gather(*map(self._file, covered))",
                "[None] * len(covered)",
            ),
        ),
    ),
    Mutant(
        "the-mark-is-taken-after-the-receipts",
        "promise 11: a commit is of the snapshot whose receipts were filed",
        (
            Edit(
                "engine.commits:Commits.commit",
                "await self.event_log.commit(changed)",
                "await self.event_log.commit({s.claim: s.ledger.snapshot(orderly=orderly) for s in covered if s.claim in changed})",
            ),
        ),
        family="burst",
    ),
    Mutant(
        "a-commit-covers-what-could-not-be-filed",
        "promise 11: no commit while receipts can't be written",
        (Edit("engine.commits:Commits.commit", "del changed[claim]", "pass"),),
    ),
    Mutant(
        "a-tombstone-comes-before-its-receipt",
        "promise 11: the receipt comes before what covers it",
        (Edit("engine.settle:Settler.tombstone", "await self.receipts.filed(state)", "True"),),
    ),
    Mutant(
        "a-replay-is-answered-before-its-receipt",
        "promise 11: the receipt comes before what covers it",
        (Edit("engine.settle:Settler._done", "await self.receipts.filed(state)", "True"),),
        family="dead-letters",
    ),
    Mutant(
        "receipts-that-were-refused-are-forgotten",
        "promise 11: every ended delivery has its receipt",
        (
            Edit(
                "engine.receipts:Receipts.file",
                "unfiled.trouble = scrub(error)\nraise",
                "del unfiled.receipts[: len(receipts)]\nraise",
            ),
        ),
    ),
)
