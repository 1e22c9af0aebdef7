"""What an answer asks for: one table, for providers of messages and identity systems alike."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from usher.http import asked_wait
from usher.outcome import LONGEST_WAIT

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC).timestamp()
RESET = str(int(NOW) + 42)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("120", 120.0),
        (" 3 ", 3.0),
        ("007", 7.0),
        ("1.5", 1.5),
        ("31536000", 31_536_000.0),
        ("Sun, 01 Mar 2026 12:01:30 GMT", 90.0),
        ("Sunday, 01-Mar-26 12:01:30 GMT", 90.0),
        ("Sun Mar  1 12:01:30 2026", 90.0),
        ("Sun, 01 Mar 2026 13:01:30 +0100", 90.0),
        ("Sun, 01 Mar 2026 11:59:59 GMT", None),
        ("Sun, 01 Mar 2026 12:00:00 GMT", None),
        ("Sun, 31 Feb 2027 12:00:00 GMT", None),
        ("Sun, 01 Mar 2099 12:00:00 GMT", None),
        ("2026-03-01T12:01:30Z", None),
        ("0", None),
        ("0.0", None),
        ("-5", None),
        ("+5", None),
        ("1e3", None),
        ("1_000", None),
        ("0x10", None),
        ("inf", None),
        ("nan", None),
        ("\u0661\u0662", None),
        ("12 s", None),
        ("120, 130", None),
        ("99999999999", None),
        ("9" * 400, None),
        ("soon", None),
        ("", None),
        (" ", None),
    ],
)
def test_retry_after(value: str, expected: float | None) -> None:
    """Seconds, with parts or without, and the three forms of a date that RFC 9110 knows; what is no wait is none."""
    assert asked_wait({"retry-After": value}, NOW) == expected


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({}, None),
        ({"X-RateLimit-Reset": RESET}, 42.0),
        ({"x-ratelimit-reset": RESET, "x-ratelimit-remaining": "0"}, 42.0),
        ({"X-RateLimit-Reset": RESET, "X-RateLimit-Remaining": "17"}, None),
        ({"X-RateLimit-Reset": str(int(NOW) - 1)}, None),
        ({"X-RateLimit-Reset": "60"}, None),
        ({"X-RateLimit-Reset": "9" * 400}, None),
        ({"X-RateLimit-Reset": "\u0661" + RESET}, None),
        ({"Retry-After": "7", "X-RateLimit-Reset": RESET}, 7.0),
        ({"Retry-After": "soon", "X-RateLimit-Reset": RESET}, 42.0),
        ({"Retry-After": "0", "X-RateLimit-Reset": RESET}, 42.0),
    ],
)
def test_the_reset_of_a_rate_limit(headers: dict[str, str], expected: float | None) -> None:
    """It counts where the limit is used up, and `Retry-After` asks for no wait."""
    assert asked_wait(headers, NOW) == expected


@given(after=st.text() | st.floats().map(str) | st.integers().map(str), reset=st.text() | st.integers().map(str))
def test_every_answer_asks_for_a_wait_that_can_be_waited_for(after: str, reset: str) -> None:
    """Whatever a server says, or a proxy: nothing is raised, and no wait is negative, endless or no number."""
    wait = asked_wait({"Retry-After": after, "X-RateLimit-Reset": reset}, NOW)

    assert wait is None or 0 < wait <= LONGEST_WAIT
