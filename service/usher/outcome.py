"""The outcome of an attempt, and the verdict that follows from it.

A handler that returns is done. It may also raise one of these, sorted by consequence:

    Outcome
    ├── Skip      done: nothing had to be sent, and here is why (NoAddress, AccountDisabled: counted on their own)
    ├── Retry     park it, try again later (the policy's delay, or the one asked for)
    ├── Reject    dead letter at once: no retry can help
    ├── Unknown   the request left and no answer came: sent again or dead-lettered, as the handler says (raised by channels)
    └── Hold      the channel is paused: park it, without counting an attempt (raised by channels)

Any other exception is a failure, which the policy retries. `decide` turns the outcome into a verdict. It is pure: time and
chance are arguments.
"""

from __future__ import annotations

import random
import re
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Literal

from usher.redact import scrub

Duration = timedelta | float | int | str
OnUnknown = Literal["resend", "dead-letter"]

LONGEST_WAIT = 366 * 86400.0
"""Seconds. What never expires waits no longer than this. A longer wait means never: `Reject` says that better."""

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)?")


def seconds(duration: Duration) -> float:
    """Return a duration in seconds: of a timedelta, a number of seconds, or a text such as ``10s``, ``1.5m``, ``1h``.

    Raises:
        ValueError: it is none of these, or negative.
    """
    if isinstance(duration, timedelta):
        value = duration.total_seconds()
    elif isinstance(duration, str):
        match = _DURATION.fullmatch(duration.strip())
        if match is None:
            raise ValueError(f"{duration!r} is no duration; write a number and a unit: 500ms, 10s, 1m, 2h, 1d")
        value = float(match[1]) * _UNITS[match[2] or "s"]
    elif isinstance(duration, int | float) and not isinstance(duration, bool):
        value = float(duration)
    else:
        raise ValueError(f"{duration!r} is no duration; give a timedelta, seconds, or a text such as '10s'")  # noqa: TRY004
    if not 0 <= value < float("inf"):
        raise ValueError(f"{duration!r} is no duration; it must be zero or more, and finite")
    return value


def duration_text(seconds: float) -> str:
    """Write a duration as settings and handlers write it: ``90s``, ``10m``, ``2h``, ``1d``."""
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= size and seconds % size == 0:
            return f"{seconds / size:g}{unit}"
    return f"{seconds:g}s"


class Outcome(Exception):
    """The base of the exceptions that a handler, or a channel for it, raises on purpose."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Skip(Outcome):
    """Nothing had to be sent. The delivery is done. The reason is counted and shown."""

    code = ""
    """The short reason of a kind of skip that has a count of its own."""


class NoAddress(Skip):
    """The user has no address for the channel. It has a count of its own: the operator decides whether that is right."""

    code = "no-address"


class AccountDisabled(Skip):
    """The user can't log in, so that a message about the account or its password is of no use. It has a count of its own."""

    code = "disabled"


class Retry(Outcome):
    """It may work later. The delivery waits for *after*, else for the policy's next delay. Counts as an attempt.

    A wait that would end after the delivery expires is none: it becomes a dead letter ``expired`` at once.
    """

    def __init__(self, reason: str, *, after: Duration | None = None) -> None:
        super().__init__(reason)
        self.after = None if after is None else seconds(after)


class Reject(Outcome):
    """It can never work. The delivery becomes a dead letter at once, with this reason."""


class Unknown(Outcome):
    """The request had left and no answer came: the message may have been sent. *otherwise* applies where the handler sets nothing."""

    def __init__(self, reason: str, *, otherwise: OnUnknown) -> None:
        super().__init__(reason)
        self.otherwise: OnUnknown = otherwise


class Hold(Outcome):
    """The channel sends nothing now. The delivery is parked for *after* seconds. Counts as no attempt."""

    def __init__(self, reason: str, *, after: Duration) -> None:
        super().__init__(reason)
        self.after = seconds(after)


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """The delays before each retry, and with them the number of attempts.

    Args:
        delays: the wait after the first, second, … failed attempt. There is one attempt more than there are delays.
        jitter: up to this fraction is added to each delay and never taken away: a retry may be late, but not early.
    """

    delays: tuple[Duration, ...] = ("10s", "1m", "10m", "1h")
    jitter: float = 0.1
    _seconds: tuple[float, ...] = field(init=False, repr=False, compare=False, default=())

    def __post_init__(self) -> None:
        if isinstance(self.delays, str) or not 0 <= self.jitter <= 1:
            raise ValueError(
                f"RetryPolicy(delays={self.delays!r}, jitter={self.jitter!r}): delays is a sequence, jitter 0 to 1"
            )
        object.__setattr__(self, "delays", tuple(self.delays))
        object.__setattr__(self, "_seconds", tuple(seconds(delay) for delay in self.delays))

    @property
    def attempts(self) -> int:
        """The number of attempts in all."""
        return len(self.delays) + 1

    @property
    def longest(self) -> float:
        """The longest wait between two attempts, in seconds."""
        return max(self._seconds, default=0.0) * (1 + self.jitter)

    def delay(self, attempt: int, rng: random.Random) -> float | None:
        """Return the seconds to wait after failed attempt number *attempt* (from 1); None: give up."""
        if attempt >= self.attempts:
            return None
        return self._seconds[attempt - 1] * (1 + self.jitter * rng.random())


@dataclass(frozen=True, slots=True)
class Done:
    """The delivery is done. *label* is for the metric: ``done`` or ``skipped``.

    *reason* says why nothing was sent, *code* is the `Skip.code` of that.
    """

    label: str = "done"
    reason: str = ""
    code: str = ""


@dataclass(frozen=True, slots=True)
class Park:
    """Try again at *due* (Unix seconds), after *attempt* attempts."""

    due: float
    attempt: int
    label: str
    error: str
    error_type: str


@dataclass(frozen=True, slots=True)
class Dead:
    """The delivery is given up. *reason* is from a short list (docs/operating.md), *error* the text of the last error, scrubbed."""

    reason: str
    label: str
    error: str
    error_type: str


Verdict = Done | Park | Dead
DONE = Done()


def decide(
    error: BaseException | None,
    *,
    attempt: int,
    policy: RetryPolicy,
    on_unknown: OnUnknown | None,
    now: float,
    rng: random.Random,
    may_park: bool = True,
    expires_at: float | None = None,
) -> Verdict:
    """Return the verdict on a delivery: its attempt number *attempt* (from 1) ended at *now* with *error* (None: it returned).

    *may_park* is false for a replay: it has one attempt, and becomes a dead letter again where another delivery would wait.
    *expires_at* (Unix seconds; None: never) is when it becomes too late to send it: it does not wait beyond that.
    """
    if error is None:
        return DONE
    if isinstance(error, Skip):
        return Done("skipped", scrub(error.reason), error.code)
    text, kind = scrub(error) or type(error).__name__, _qualified(error)
    if isinstance(error, Reject):
        return Dead("rejected", "rejected", text, kind)
    if isinstance(error, Unknown) and (on_unknown or error.otherwise) == "dead-letter":
        return Dead("unknown-outcome", "unknown", text, kind)
    if isinstance(error, Hold):
        if may_park:
            return _wait(error.after, expires_at, Park(now, attempt - 1, "held", text, kind))
        return Dead("channel-paused", "held", text, kind)
    label = "unknown" if isinstance(error, Unknown) else "retry" if isinstance(error, Retry) else "failed"
    wait = policy.delay(attempt, rng) if may_park else None
    if wait is None:
        return Dead("attempts-exhausted", label, text, kind)
    if isinstance(error, Retry) and error.after is not None:
        wait = error.after
    return _wait(wait, expires_at, Park(now, attempt, label, text, kind))


def _wait(wait: float, expires_at: float | None, now: Park) -> Park | Dead:
    """Return *now*, a Park that is due at once, as one that is due *wait* seconds later; a Dead where it is too late then."""
    due = now.due + min(wait, LONGEST_WAIT)
    if expires_at is None or due <= expires_at:
        return replace(now, due=due)
    text = scrub(f"it was to wait {(due - now.due) / 3600:.1f} h, and expires before that: {now.error}")
    return Dead("expired", now.label, text, now.error_type)


def _qualified(error: BaseException) -> str:
    kind = type(error)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
