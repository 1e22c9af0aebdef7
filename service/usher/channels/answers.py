"""How a provider's answer, or the lack of one, is sorted. The tables are data: a new code is a new row.

Rows are looked up by the provider's own error code, then by HTTP status, then by the status's class. Twilio splits its
codes now and then, and SendGrid has none: the class always decides in the end.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NoReturn

from usher.channels import ProviderRefused
from usher.http import Answer, asked_wait
from usher.outcome import OnUnknown, Reject, Retry, Unknown
from usher.redact import scrub

Sort = Literal["done", "transient", "permanent", "provider-refused", "unknown"]
Failure = Literal["connect", "timeout", "broken"]

_TEXT_LIMIT = 160


class NoAnswer(Exception):
    """The provider said nothing. *left*: part of the request may have reached it. *detail* is safe to show."""

    def __init__(self, failure: Failure, *, left: bool, detail: str) -> None:
        super().__init__(detail)
        self.failure = failure
        self.left = left
        self.detail = detail


@dataclass(frozen=True, slots=True)
class Finding:
    """An answer, sorted. *after* is the wait in seconds that the provider asked for; *reason* is scrubbed."""

    sort: Sort
    reason: str
    after: float | None = None


@dataclass(frozen=True, slots=True)
class Meaning:
    """What an answer means. *hint* is for the operator: what to do."""

    sort: Sort
    hint: str = ""


@dataclass(frozen=True, slots=True)
class Table:
    """One provider's answers. *read* takes (error code, text) out of an error body."""

    provider: str
    read: Callable[[Any], tuple[int | None, str]]
    by_code: Mapping[int, Meaning] = field(default_factory=dict)
    by_status: Mapping[int, Meaning] = field(default_factory=dict)


_BY_CLASS: Mapping[int, Meaning] = {
    2: Meaning("done"),
    3: Meaning("provider-refused", "a redirect is not followed: check the base URL"),
    4: Meaning("permanent"),
    5: Meaning("transient"),
}
_TRANSIENT_STATUSES: Mapping[int, Meaning] = {408: Meaning("transient"), 429: Meaning("transient")}

NO_ANSWER: Mapping[tuple[Failure, bool], tuple[Sort, str]] = {
    ("connect", False): ("transient", "could not be reached"),
    ("connect", True): ("unknown", "was lost after the request had left"),
    ("timeout", False): ("transient", "could not be reached in time"),
    ("timeout", True): ("unknown", "gave no answer in time after the request had left"),
    ("broken", False): ("transient", "closed the connection before the request had left"),
    ("broken", True): ("unknown", "closed the connection after the request had left"),
}
"""What it means that no answer came, by how that was and whether any of the request had left."""


def _read_sendgrid(document: Any) -> tuple[int | None, str]:
    errors = [error for error in document["errors"] if isinstance(error, dict)]
    return None, "; ".join(str(error.get("message", "")) for error in errors)


def _read_twilio(document: Any) -> tuple[int | None, str]:
    code = document.get("code")
    return code if isinstance(code, int) else None, str(document.get("message") or "")


SENDGRID = Table(
    provider="sendgrid",
    read=_read_sendgrid,
    by_status={
        **_TRANSIENT_STATUSES,
        401: Meaning("provider-refused", "check USHER_SENDGRID__API_KEY and the account's credits"),
        403: Meaning(
            "provider-refused", "check the API key's Mail Send permission and that the sender is a verified identity"
        ),
    },
)

_SUSPENDED = Meaning("provider-refused", "the account is suspended or closed: see the Twilio console")
_SENDER = Meaning("provider-refused", "check USHER_TWILIO__FROM")
_TWILIO_CREDENTIALS = Meaning("provider-refused", "check USHER_TWILIO__ACCOUNT_SID and USHER_TWILIO__AUTH_TOKEN")

TWILIO = Table(
    provider="twilio",
    read=_read_twilio,
    by_code={
        20429: Meaning("transient"),  # too many requests at once
        21611: Meaning("transient"),  # the sender's queue is full
        20003: _TWILIO_CREDENTIALS,
        20005: _SUSPENDED,
        30002: _SUSPENDED,
        63038: Meaning("provider-refused", "the account's daily limit is reached: raise it, or wait for the next day"),
        21212: _SENDER,
        21603: _SENDER,
        21701: _SENDER,
        21703: _SENDER,
        21211: Meaning("permanent"),  # not a number
        21408: Meaning("permanent"),  # the account may not send to that country
        21602: Meaning("permanent"),  # empty body
        21610: Meaning("permanent"),  # the recipient has opted out
        21612: Meaning("permanent"),  # no way from this sender to that number
        21614: Meaning("permanent"),  # not a mobile number
        21617: Meaning("permanent"),  # body too long
    },
    by_status={**_TRANSIENT_STATUSES, 401: _TWILIO_CREDENTIALS},
)


def sort(table: Table, answer: Answer, now: float) -> Finding:
    """What *answer* means. *now* is in Unix seconds: providers also ask for a wait by naming a time."""
    code, text = _details(table, answer)
    row = _row(table, answer.status, code)
    if row.sort == "done":
        return Finding("done", "")
    said = f"{table.provider} answered {answer.status}" + (f" (error {code})" if code is not None else "")
    parts = [said, scrub(text, _TEXT_LIMIT), row.hint]
    wait = asked_wait(answer.headers, now) if row.sort == "transient" else None
    return Finding(row.sort, ": ".join(part for part in parts if part), wait)


def sort_failure(provider: str, error: NoAnswer) -> Finding:
    """What it means that *provider* gave no answer."""
    kind, text = NO_ANSWER[error.failure, error.left]
    return Finding(kind, f"{provider} {text} ({scrub(error.detail, _TEXT_LIMIT)})")


def settle(finding: Finding, *, otherwise: OnUnknown) -> None:
    """Return if the message was accepted, else raise what follows. *otherwise* is the channel's default for unknown.

    Raises:
        Retry, Reject, Unknown, ProviderRefused
    """
    if finding.sort != "done":
        _raise(finding, otherwise)


def _raise(finding: Finding, otherwise: OnUnknown) -> NoReturn:
    if finding.sort == "transient":
        raise Retry(finding.reason, after=finding.after)
    if finding.sort == "permanent":
        raise Reject(finding.reason)
    if finding.sort == "provider-refused":
        raise ProviderRefused(finding.reason)
    raise Unknown(finding.reason, otherwise=otherwise)


def _row(table: Table, status: int, code: int | None) -> Meaning:
    # 2xx and 5xx first: whatever the body says, these have taken it, or have broken down over it.
    if status // 100 in {2, 5}:
        return _BY_CLASS[status // 100]
    by_code = table.by_code.get(code) if code is not None else None
    return by_code or table.by_status.get(status) or _BY_CLASS.get(status // 100) or Meaning("transient")


def _details(table: Table, answer: Answer) -> tuple[int | None, str]:
    if answer.status // 100 == 2:
        return None, ""
    try:
        return table.read(answer.document)
    except (LookupError, TypeError, AttributeError):
        return None, ""  # a proxy's error page: it says nothing that the status does not
