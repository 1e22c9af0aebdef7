"""The judge of chaos: each promise is broken once, and it has to notice; what a mishap explains, it must not call broken."""

from __future__ import annotations

from typing import Any

import pytest
from tests.chaos.fleet import Mishap
from tests.chaos.judge import Findings, judge
from tests.chaos.plan import plan
from tests.chaos.provider import Attempt, Result
from tests.chaos.traffic import Sent, Sort

ONE, TWO = 101, 102
"""Process ids."""


def sent(sequence: int, sort: Sort = "plain", at: float = 0.0) -> Sent:
    return Sent(f"e{sequence}", "ann", sequence, sort, at)


def attempt(
    sequence: int,
    began: float,
    *,
    pid: int = ONE,
    took: float = 0.1,
    result: Result = "accepted",
    answered: bool = True,
) -> Attempt:
    ended = began + took
    return Attempt(
        handler="welcome", user="ann", sequence=sequence, event=f"e{sequence}", pid=pid, began=began, ended=ended,
        settled=None if result == "failed" else ended, result=result, answered=answered,
    )  # fmt: skip


def dead_letter(reason: str, sequence: int = 0, **more: Any) -> dict[str, Any]:
    where = {"partition": 0, "offset": sequence}
    return {"reason": reason, "handler": "welcome", "event_id": f"e{sequence}", "error": "", **where, **more}


def verdict(*attempts: Attempt, events: tuple[Sent, ...] = (sent(0), sent(1)), **more: Any) -> Findings:
    everything = [(each.handler, each.event) for each in attempts] + [("welcome", event.event) for event in events]
    everything += [(row["handler"], row["event_id"]) for row in more.get("dead_letters", ())]
    facts: dict[str, Any] = {"garbage": [], "mishaps": [], "dead_letters": [], "receipts": everything}
    return judge(handlers=["welcome"], sent=events, attempts=attempts, **(facts | more))


def test_what_ended_without_a_receipt_is_noticed() -> None:
    """What the provider took, and what is a dead letter: each has one."""
    tries, dead = (attempt(0, 1.0), attempt(1, 2.0)), [dead_letter("undecodable", handler="", event_id="")]
    assert verdict(*tries, receipts=[("welcome", "e0"), ("welcome", "e1")]).holds
    assert verdict(*tries, receipts=[("welcome", "e0")]).unreceipted == ["welcome: e1"]
    assert verdict(*tries, receipts=[("welcome", "e0"), ("welcome", "e1")], dead_letters=dead).unreceipted == [": "]


def test_everything_as_promised_holds() -> None:
    """A failed attempt and its repetition, in order, breaks no promise."""
    found = verdict(attempt(0, 1.0), attempt(1, 2.0, result="failed"), attempt(1, 3.0))
    assert found.holds
    assert found.delivered == 2


def test_a_delivery_that_never_came_is_lost() -> None:
    """An event of ours that the provider has not accepted is lost, also where it was tried."""
    assert len(verdict(attempt(0, 1.0), attempt(1, 2.0, result="failed")).lost) == 1


@pytest.mark.parametrize(("sort", "reason"), [("refused", "rejected"), ("huge", "too-large")])
def test_what_has_to_be_dead_lettered_is(sort: Sort, reason: str) -> None:
    """An event that can't be delivered is lost unless it is a dead letter with the right reason."""
    events = (sent(0, sort),)
    refusal = attempt(0, 1.0, result="refused" if sort == "refused" else "failed")
    assert verdict(refusal, events=events, dead_letters=[dead_letter(reason)]).holds
    assert verdict(refusal, events=events).lost
    wrong = verdict(refusal, events=events, dead_letters=[dead_letter("attempts-exhausted")])
    assert wrong.lost
    assert wrong.dead_letters_unexpected


def test_garbage_without_a_dead_letter_is_lost() -> None:
    """A record that is no event has to be found among the dead letters, by its place."""
    assert verdict(events=(), garbage=[(0, 7)], dead_letters=[dead_letter("undecodable", 7)]).holds
    assert verdict(events=(), garbage=[(0, 7)], dead_letters=[dead_letter("undecodable", 8)]).lost


def test_a_dead_letter_of_a_good_event_is_unexpected() -> None:
    """What could be delivered has no business among the dead letters."""
    found = verdict(attempt(0, 1.0), attempt(1, 2.0), dead_letters=[dead_letter("too-large", 1)])
    assert len(found.dead_letters_unexpected) == 1


def test_an_event_that_overtakes_is_out_of_order() -> None:
    """A user's event must not begin before the earlier one is done; one that is dead-lettered unseen does not count."""
    assert len(verdict(attempt(1, 1.0), attempt(0, 2.0)).order) == 1
    early = verdict(attempt(0, 1.0, took=1.0), attempt(1, 1.5))
    assert len(early.order) == 1
    events = (sent(0, "huge"), sent(1))
    assert verdict(attempt(1, 1.0), events=events, dead_letters=[dead_letter("too-large")]).holds


def test_two_at_once_are_noticed() -> None:
    """Two requests of one lane at the same time: broken, unless one is of another worker that was frozen."""
    both = (attempt(0, 1.0, took=1.0), attempt(0, 1.5, pid=TWO))
    assert len(verdict(*both).twice) == 1
    frozen = verdict(*both, mishaps=[Mishap("freeze", 0.5, 1.2, pid=ONE)])
    assert (frozen.twice, frozen.twice_frozen) == ([], 1)
    same = (attempt(0, 1.0, took=1.0), attempt(0, 1.5))
    assert len(verdict(*same, mishaps=[Mishap("freeze", 0.5, 1.2, pid=ONE)]).twice) == 1


def test_a_repeat_needs_a_cause() -> None:
    """A second acceptance is broken without a cause: a kill, a freeze, a broker's end about then, or no answer."""
    again = (attempt(0, 1.0), attempt(0, 9.0, pid=TWO), attempt(1, 10.0, pid=TWO))
    assert len(verdict(*again).repeats_unexplained) == 1
    for mishap in (
        Mishap("kill", 1.5, 1.5, pid=ONE),
        Mishap("freeze", 1.5, 8.5, pid=ONE),
        Mishap("broker-kill", 1.5, 3.0),
    ):
        found = verdict(*again, mishaps=[mishap])
        assert found.holds
        assert found.repeats_of == {mishap: 1}
    unanswered = verdict(attempt(0, 1.0, answered=False), attempt(0, 2.0), attempt(1, 3.0))
    assert unanswered.holds
    assert unanswered.repeats == {"no answer came": 1}


def test_a_repeat_is_a_kills_rather_than_the_brokers() -> None:
    """Where a worker was killed about when the broker was, the table charges it to the worker's kill."""
    again = (attempt(0, 1.0), attempt(0, 9.0, pid=TWO), attempt(1, 10.0, pid=TWO))
    kill = Mishap("kill", 1.6, 1.6, pid=ONE)
    assert verdict(*again, mishaps=[Mishap("broker-kill", 1.5, 1.9), kill]).repeats_of == {kill: 1}


@pytest.mark.parametrize(
    "mishap",
    [
        Mishap("kill", 1.5, 1.5, pid=TWO),
        Mishap("kill", 6.0, 6.0, pid=ONE),
        Mishap("kill", 9.5, 9.5, pid=ONE),
        Mishap("freeze", 9.5, 20.0, pid=ONE),
        Mishap("freeze", 6.0, 8.0, pid=ONE),
        Mishap("freeze", 8.0, 8.8, pid=103),
        Mishap("broker-kill", 8.0, 8.5),
    ],
)
def test_a_mishap_explains_only_what_it_can(mishap: Mishap) -> None:
    """Another worker's, one long after the commit or after the repeat, or the own one long after it was done: it explains nothing."""
    again = (attempt(0, 1.0), attempt(0, 9.0, pid=103), attempt(1, 10.0, pid=103))
    assert len(verdict(*again, mishaps=[mishap]).repeats_unexplained) == 1


def test_a_kill_explains_more_where_the_broker_was_gone() -> None:
    """What could not be committed before the kill is repeated with good reason."""
    again = (attempt(0, 1.0), attempt(0, 30.0, pid=TWO), attempt(1, 31.0, pid=TWO))
    kill, outage = Mishap("kill", 14.0, 14.0, pid=ONE), Mishap("broker-kill", 3.0, 13.0)
    assert verdict(*again, mishaps=[kill]).repeats_unexplained
    assert verdict(*again, mishaps=[kill, outage]).holds


def test_a_thawed_worker_may_say_late_what_it_had_tried() -> None:
    """It parks what another one did while it was frozen; of what it never had it can say nothing."""
    frozen = Mishap("freeze", 0.9, 11.0, pid=3)
    done = (attempt(0, 5.0), attempt(0, 12.0, pid=TWO), attempt(1, 13.0, pid=TWO))
    had_it = attempt(0, 0.5, pid=3, took=0.5, result="failed")

    assert verdict(had_it, *done, mishaps=[frozen]).holds
    assert verdict(*done, mishaps=[frozen]).repeats_unexplained


def test_a_thawed_worker_may_say_late_what_waited_behind_another_there() -> None:
    """It parks the rest of the lane, too; of what came before the first that it tried it had nothing."""
    frozen = Mishap("freeze", 2.0, 12.1, pid=3)
    owner = (attempt(0, 10.0), attempt(1, 10.3))
    first, second = attempt(0, 1.5, pid=3, result="failed"), attempt(1, 1.5, pid=3, result="failed")

    assert verdict(first, *owner, attempt(1, 37.0, pid=TWO), mishaps=[frozen]).repeats_unexplained == []
    assert verdict(second, *owner, attempt(0, 37.0, pid=TWO), mishaps=[frozen]).repeats_unexplained


def test_a_thawed_worker_says_nothing_late_once_it_has_heard_of_its_loss() -> None:
    """What it tried only after that was given to it anew: it explains no repeat by a third worker."""
    frozen = Mishap("freeze", 0.9, 11.0, pid=3)
    done = (attempt(0, 5.0), attempt(0, 40.0, pid=TWO), attempt(1, 50.0, pid=TWO))
    given_anew = attempt(0, 30.0, pid=3, result="failed")

    assert verdict(*done, given_anew, mishaps=[frozen]).repeats_unexplained
    assert verdict(*done, attempt(0, 20.0, pid=3, result="failed"), mishaps=[frozen]).holds


def test_a_freeze_explains_both_ways_of_the_request_under_way() -> None:
    """The thawed worker's request arrives after the new owner's, or before it; what it made after it had heard is not excused."""
    freeze = Mishap("freeze", 2.0, 12.0, pid=ONE)
    before = (attempt(0, 1.9, took=0.2), attempt(0, 9.0, pid=TWO), attempt(1, 13.0, pid=TWO))
    after = (attempt(0, 9.0, pid=TWO), attempt(0, 12.1), attempt(1, 13.0, pid=TWO))
    heard = (attempt(0, 9.0, pid=TWO), attempt(0, 30.0), attempt(1, 31.0))

    assert verdict(*before, mishaps=[freeze]).holds
    assert verdict(*after, mishaps=[freeze]).holds
    assert verdict(*heard, mishaps=[freeze]).repeats_unexplained


def test_a_delivery_under_which_workers_were_killed_may_be_condemned() -> None:
    """Twice; after one kill it may not."""
    tries = (
        attempt(0, 1.0, result="failed"),
        attempt(0, 2.0, pid=TWO, result="failed"),
        attempt(0, 3.0),
        attempt(1, 4.0),
    )
    kills = [Mishap("kill", 1.05, 1.05, pid=ONE), Mishap("kill", 2.05, 2.05, pid=TWO)]
    dead = [dead_letter("crashed-the-worker")]

    assert verdict(*tries, mishaps=kills, dead_letters=dead).holds
    assert verdict(*tries, mishaps=kills[:1], dead_letters=dead).dead_letters_unexpected


def test_a_kill_right_after_an_attempt_is_one_too() -> None:
    """Until a commit has said how it ended, the next worker takes it for the cause; later it does not."""
    tries = (attempt(0, 1.0, result="failed"), attempt(0, 2.0, pid=TWO), attempt(1, 9.0))
    dead = [dead_letter("crashed-the-worker")]
    first, soon, late = (Mishap("kill", at, at, pid=pid) for at, pid in ((1.05, ONE), (3.0, TWO), (8.0, TWO)))

    assert verdict(*tries, mishaps=[first, soon], dead_letters=dead).holds
    assert verdict(*tries, mishaps=[first, late], dead_letters=dead).dead_letters_unexpected


def test_what_is_not_ours_must_not_be_attempted() -> None:
    """An attempt of an event that the filter keeps out is found."""
    assert verdict(attempt(0, 1.0), events=(sent(0, "foreign"),)).not_ours


def test_a_standstill_is_measured_while_something_waits() -> None:
    """The longest time without a success counts only while there was something to do."""
    found = verdict(attempt(0, 5.0, took=0.0), attempt(1, 7.0, took=0.0), events=(sent(0, at=4.0), sent(1, at=6.5)))
    assert found.standstill == pytest.approx(1.0)


def test_a_seed_repeats_its_plan_and_each_kind_is_in_it() -> None:
    """The same seed draws the same faults; even the short run has one of every kind."""
    faults = plan(7, 60)
    assert faults == plan(7, 60)
    assert faults != plan(8, 60)
    assert all(len({fault.kind for fault in plan(seed, 60)}) == 9 for seed in range(20))
