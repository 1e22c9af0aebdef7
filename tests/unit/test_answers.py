"""How a provider's answers are sorted: the tables, and the wait that an answer asks for."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from usher.channels import ProviderRefused
from usher.channels.answers import (
    SENDGRID,
    TWILIO,
    Failure,
    Finding,
    NoAnswer,
    Table,
    settle,
    sort,
    sort_failure,
)
from usher.http import Answer
from usher.outcome import Reject, Retry, Unknown

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC).timestamp()


def sendgrid(status: int, message: str = "no", headers: dict[str, str] | None = None) -> Finding:
    return sort(SENDGRID, Answer(status, headers or {}, json.dumps({"errors": [{"message": message}]}).encode()), NOW)


def twilio(status: int, code: int | None, message: str = "no") -> Finding:
    return sort(TWILIO, Answer(status, {}, json.dumps({"code": code, "message": message}).encode()), NOW)


REFUSED = "provider-refused"


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (200, "done"), (202, "done"), (301, REFUSED), (400, "permanent"), (401, REFUSED), (403, REFUSED),
        (404, REFUSED), (405, REFUSED), (408, "transient"), (413, "permanent"), (415, "permanent"),
        (429, "transient"), (500, "transient"), (502, "transient"), (503, "transient"), (504, "transient"),
    ],
)  # fmt: skip
def test_sendgrid_by_status(status: int, expected: str) -> None:
    """SendGrid has no codes: the status decides. Nothing is at a wrong base URL, for every message."""
    assert sendgrid(status).sort == expected


@pytest.mark.parametrize(
    ("status", "code", "expected"),
    [
        (201, None, "done"), (401, 20003, REFUSED), (403, 20003, REFUSED), (401, None, REFUSED),
        (400, 30002, REFUSED), (403, 20005, REFUSED), (400, 21212, REFUSED), (429, 63038, REFUSED),
        (429, 20429, "transient"), (429, None, "transient"), (400, 21611, "transient"), (400, 21211, "permanent"),
        (403, 21408, "permanent"), (400, 21610, "permanent"), (400, 21612, "permanent"), (400, 21614, "permanent"),
        (400, 21602, "permanent"), (400, 21617, "permanent"), (400, 99999, "permanent"), (500, 20500, "transient"),
        (503, 21211, "transient"), (307, None, REFUSED),
    ],
)  # fmt: skip
def test_twilio_by_code_then_status(status: int, code: int | None, expected: str) -> None:
    """Twilio's code decides, an unknown one leaves it to the status, and a 5xx is never held against the message."""
    assert twilio(status, code).sort == expected


def test_a_permanent_answer_names_status_code_and_text() -> None:
    """The reason in a dead letter is what the provider said."""
    assert twilio(400, 21614, "not a mobile number").reason == (
        "twilio answered 400 (error 21614): not a mobile number"
    )


def test_an_answer_for_the_operator_says_the_way_out() -> None:
    """Exceeded credits look like a bad key: the reason has both, what was said and where to look."""
    reason = sendgrid(401, "Maximum credits exceeded").reason

    assert "Maximum credits exceeded" in reason
    assert "its credits" in reason


def test_what_the_provider_quotes_is_scrubbed() -> None:
    """Providers quote the number and the address they choke on; the reason does not."""
    quoting = "The 'To' number +44 7700 900123 of ada@example.com is not valid. " * 20

    reason = twilio(400, 21211, quoting).reason

    assert "7700" not in reason
    assert "ada@" not in reason
    assert len(reason) < 250


@pytest.mark.parametrize("table", [SENDGRID, TWILIO], ids=["sendgrid", "twilio"])
@given(
    status=st.integers(100, 599),
    body=st.one_of(
        st.binary(max_size=40),
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.text(max_size=5),
            lambda inner: st.lists(inner, max_size=3) | st.dictionaries(
                st.sampled_from(["errors", "message", "code", "x"]), inner, max_size=3
            ),
        ).map(lambda document: json.dumps(document).encode()),
    ),
)  # fmt: skip
def test_every_answer_is_sorted(table: Table, status: int, body: bytes) -> None:
    """Whatever a proxy in between answers, there is a finding, and the class of the status is respected."""
    finding = sort(table, Answer(status, {}, body), NOW)

    assert (finding.sort == "done") == (200 <= status < 300)
    assert finding.sort == "transient" or status < 500
    assert finding.sort != "unknown"


def test_a_transient_answer_is_obeyed_to_the_second() -> None:
    """The wait that a 503 asks for is the wait of the retry."""
    with pytest.raises(Retry) as raised:
        settle(sendgrid(503, headers={"Retry-After": "17"}), otherwise="resend")

    assert raised.value.after == 17.0


@pytest.mark.parametrize(
    ("failure", "left", "expected"),
    [
        ("connect", False, Retry), ("timeout", False, Retry), ("broken", False, Retry),
        ("connect", True, Unknown), ("timeout", True, Unknown), ("broken", True, Unknown),
    ],
)  # fmt: skip
def test_no_answer_is_unknown_only_if_something_had_left(failure: Failure, left: bool, expected: type) -> None:
    """A request that never left is tried again without a doubt."""
    finding = sort_failure("twilio", NoAnswer(failure, left=left, detail="ConnectionResetError"))

    with pytest.raises(expected) as raised:
        settle(finding, otherwise="dead-letter")

    assert "ConnectionResetError" in str(raised.value)


@pytest.mark.parametrize(("status", "ending"), [(400, Reject), (401, ProviderRefused)])
def test_the_other_endings(status: int, ending: type) -> None:
    """A permanent answer rejects the message, the operator's stops the channel."""
    with pytest.raises(ending):
        settle(sendgrid(status), otherwise="resend")
