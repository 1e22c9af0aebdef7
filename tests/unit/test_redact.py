"""`scrub`: what leaves in a log line, a header or on a screen names nobody and opens nothing."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from usher.redact import scrub


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("no mailbox kim.berg+x@example.com, sorry", "no mailbox <email>, sorry"),
        ("<kim@example.com>: refused", "<<email>>: refused"),
        ("to 'jörg@bücher.example'", "to <email>'"),
        ("The number +1 (202) 555-0123 is unverified", "The number <number> is unverified"),
        ("to:+447700900123", "to:<number>"),
        ("id 4915112345678!", "id <number>!"),
    ],
)
def test_people_are_taken_out(text: str, left: str) -> None:
    """Addresses and numbers, however they are written."""
    assert scrub(text) == left


@pytest.mark.parametrize(
    "text",
    [
        "password=hunter2x",
        'password: "hunter2x and more"',
        "{'new_password': 'hunter2x and more'}",
        '{"password_hash":"hunter2x"}',
        "Authorization: Bearer hunter2x.hunter2x",
        "authorization: basic aHVudGVyMng6aHVudGVyMng=",
        "key SG.hunter2xhunter2x.hunter2x",
        "smtp://usher:hunter2x@mail.example.com:587",
        "https://:hunter2x@example.com",
        "https://usher:p@hunter2x@example.com",
        "https://hunter2x@example.com/",
        "api_key=hunter2x api-key: hunter2x apikey = 'hunter2x'",
        "?token=hunter2x&x=1",
        "access_token: hunter2x",
        "reset code: hunter2x",
        "otp=hunter2x, pin: hunter2x",
        "user[password]=hunter2x",
        "https://maps.example.com/?a=b:c&key=hunter2x",
        "code: token: hunter2x",
        "token='hunter2x and code: hunter2x' password=hunter2x",
        "jwt eyJhbGciOiJIUzI1NiJ9.hunter2x.hunter2x",
    ],
)
def test_credentials_are_taken_out(text: str) -> None:
    """By their names, or by their looks."""
    left = scrub(text)

    assert "hunter2x" not in left
    assert "aHVudGVy" not in left
    assert "<secret>" in left


@pytest.mark.parametrize(
    "text",
    [
        "503 Service Unavailable",
        "no answer within 10 s",
        "line 12: 'name' is undefined",
        "twilio answered 400 (error 21614): not a mobile number: see https://www.twilio.com/docs/errors/21614",
        "status_code=503, url: https://id.example.com/login",
    ],
)
def test_what_helps_stays(text: str) -> None:
    """A reason must still be one."""
    assert scrub(text) == text


def test_the_result_is_one_short_line() -> None:
    """Headers are copied into every later record."""
    assert scrub("a\n  b\tc\r\n") == "a b c"
    assert scrub("x" * 1000) == "x" * 299 + "…"
    assert scrub("x" * 1000, limit=10) == "x" * 9 + "…"


def test_what_can_not_be_encoded_is_replaced() -> None:
    """It is to become the bytes of a header."""
    assert scrub("odd \ud800 text").encode() == b"odd ? text"


@given(st.text(), st.integers(2, 400))
def test_scrubbing_is_bounded_and_final(text: str, limit: int) -> None:
    """No longer than the limit, one line, nothing that looks like an address left; and always encodable."""
    left = scrub(text, limit)

    assert len(left) <= limit
    assert len(left.splitlines()) <= 1
    left.encode()


@example("'@example.com", "")
@given(st.emails(), st.text("abc ,;()<>", max_size=5))
def test_no_address_gets_through(address: str, around: str) -> None:
    """Whatever stands around it, the mailbox and its domain are not together any more."""
    assert address not in scrub(f"{around}{address}{around}")
