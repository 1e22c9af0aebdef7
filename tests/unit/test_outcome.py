"""Outcomes, durations and the policy: what follows from how an attempt ended. Time and chance are arguments."""

from __future__ import annotations

import random
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from usher import Outcome, Reject, Retry, RetryPolicy, Skip
from usher.outcome import Dead, Done, Hold, NoAddress, Park, Unknown, Verdict, decide, seconds

NOW = 1_000_000.0
POLICY = RetryPolicy(delays=("10s", "1m"), jitter=0.0)


def verdict(error: BaseException | None, *, attempt: int = 1, **more: Any) -> Verdict:
    arguments: dict[str, Any] = {"policy": POLICY, "on_unknown": None, "now": NOW, "rng": random.Random(1), **more}
    return decide(error, attempt=attempt, **arguments)


# Durations


@pytest.mark.parametrize(
    ("duration", "value"),
    [("10s", 10), ("1.5m", 90), ("2h", 7200), ("1d", 86400), ("500ms", 0.5), ("7", 7), (" 3s ", 3), (0, 0), (2.5, 2.5),
     (timedelta(minutes=1), 60)],
)  # fmt: skip
def test_durations_are_written_as_people_write_them(duration: Any, value: float) -> None:
    """Seconds, a timedelta, or a number and a unit."""
    assert seconds(duration) == value


@pytest.mark.parametrize("duration", ["soon", "", "10 s", "1w", "-1s", -1, True, None, [], float("nan"), float("inf")])
def test_what_is_no_duration_is_refused(duration: Any) -> None:
    """With the value and what one looks like."""
    with pytest.raises(ValueError, match="is no duration; "):
        seconds(duration)


# The policy


def test_one_attempt_more_than_there_are_delays() -> None:
    """The last failure has no delay: it is given up."""
    policy, rng = RetryPolicy(delays=(1, "2s"), jitter=0.0), random.Random(1)

    assert policy.attempts == 3
    assert [policy.delay(attempt, rng) for attempt in (1, 2, 3, 4)] == [1.0, 2.0, None, None]
    assert RetryPolicy(delays=()).delay(1, rng) is None


@given(st.floats(0, 86400), st.floats(0, 1), st.integers())
def test_jitter_is_late_and_never_early(delay: float, jitter: float, seed: int) -> None:
    """Up to its fraction more than was asked for."""
    found = RetryPolicy(delays=(delay,), jitter=jitter).delay(1, random.Random(seed))

    assert found is not None
    assert delay <= found <= delay * (1 + jitter)


@pytest.mark.parametrize("wrong", [{"delays": "10s"}, {"jitter": 2}, {"jitter": -0.1}, {"delays": ("soon",)}])
def test_a_policy_that_makes_no_sense_is_refused(wrong: dict[str, Any]) -> None:
    """One duration is not a sequence of them."""
    with pytest.raises(ValueError, match=r"RetryPolicy|is no duration"):
        RetryPolicy(**wrong)


# Verdicts


@pytest.mark.parametrize("kind", [Skip, NoAddress])
def test_what_is_skipped_is_done(kind: type[Skip]) -> None:
    """With its reason; a handler that returns has none."""
    assert verdict(None) == Done("done", "")
    assert verdict(kind("no email address")) == Done("skipped", "no email address", kind.code)


def test_a_failure_is_parked_by_the_policy_until_it_is_given_up() -> None:
    """Any exception that is no outcome is one; its type is kept, its text scrubbed."""
    error = RuntimeError("no route to kim@example.com")

    assert verdict(error, attempt=1) == Park(NOW + 10, 1, "failed", "no route to <email>", "RuntimeError")
    assert verdict(error, attempt=2) == Park(NOW + 60, 2, "failed", "no route to <email>", "RuntimeError")
    assert verdict(error, attempt=3) == Dead("attempts-exhausted", "failed", "no route to <email>", "RuntimeError")


def test_a_wait_that_is_asked_for_is_obeyed_exactly() -> None:
    """Without jitter, whatever the policy says; but it adds no attempt."""
    asked = Retry("busy", after="5m")
    jittery = RetryPolicy(delays=("10s",), jitter=1.0)

    assert verdict(asked, policy=jittery) == Park(NOW + 300, 1, "retry", "busy", "usher.outcome.Retry")
    assert verdict(asked, policy=jittery, attempt=2) == Dead(
        "attempts-exhausted", "retry", "busy", "usher.outcome.Retry"
    )


@pytest.mark.parametrize(
    "error",
    [Retry("busy", after="2h"), Hold("paused", after="2h"), RuntimeError("busy"), Unknown("x", otherwise="resend")],
)
def test_no_wait_is_longer_than_what_is_left(error: Exception) -> None:
    """Whoever asks for it: what would expire meanwhile is dead at once, and says why. A shorter wait is a wait."""
    policy = RetryPolicy(delays=("2h",), jitter=0)

    late = verdict(error, policy=policy, expires_at=NOW + 7199)
    in_time = verdict(error, policy=policy, expires_at=NOW + 7200)

    assert isinstance(late, Dead)
    assert late.reason == "expired"
    assert "2.0 h" in late.error
    assert isinstance(in_time, Park)
    assert in_time.due == NOW + 7200


def test_a_reject_is_dead_at_once() -> None:
    """On the first attempt, with attempts left."""
    assert verdict(Reject("no such mailbox")) == Dead("rejected", "rejected", "no such mailbox", "usher.outcome.Reject")


@pytest.mark.parametrize(
    ("otherwise", "handler", "held"),
    [
        ("resend", None, False),
        ("dead-letter", None, True),
        ("resend", "dead-letter", True),
        ("dead-letter", "resend", False),
    ],
)
def test_an_unknown_outcome_is_sent_again_or_held(otherwise: Any, handler: Any, held: bool) -> None:
    """As the handler says; where it says nothing, as the channel does."""
    found = verdict(Unknown("no answer", otherwise=otherwise), on_unknown=handler)

    if held:
        assert found == Dead("unknown-outcome", "unknown", "no answer", "usher.outcome.Unknown")
    else:
        assert found == Park(NOW + 10, 1, "unknown", "no answer", "usher.outcome.Unknown")


def test_a_paused_channel_burns_no_attempt() -> None:
    """However often it is paused."""
    assert verdict(Hold("paused", after="1m"), attempt=3) == Park(NOW + 60, 2, "held", "paused", "usher.outcome.Hold")


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (RuntimeError("x"), "attempts-exhausted"),
        (Retry("x", after=5), "attempts-exhausted"),
        (Hold("x", after=5), "channel-paused"),
        (Unknown("x", otherwise="resend"), "attempts-exhausted"),
        (Unknown("x", otherwise="dead-letter"), "unknown-outcome"),
        (Reject("x"), "rejected"),
    ],
)
def test_a_replay_never_waits(error: Exception, reason: str) -> None:
    """It has one attempt: what would wait is a dead letter again."""
    found = verdict(error, may_park=False)

    assert isinstance(found, Dead)
    assert found.reason == reason


def test_a_bare_outcome_is_a_failure() -> None:
    """The root says nothing about what is to follow."""
    assert verdict(Outcome("odd")) == Park(NOW + 10, 1, "failed", "odd", "usher.outcome.Outcome")


def test_an_exception_that_can_not_describe_itself_harms_nobody() -> None:
    """Its type does it; and a text without characters is its type, too."""

    class Mute(Exception):
        def __str__(self) -> str:
            raise RuntimeError("no words")

    found, empty = verdict(Mute()), verdict(TimeoutError())

    assert isinstance(found, Park)
    assert isinstance(empty, Park)
    assert (found.error, empty.error) == ("Mute (it can't be printed)", "TimeoutError")
