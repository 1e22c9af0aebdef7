"""How a provider's answer, or the lack of one, is sorted by the tables of `faults`.

Over HTTP rows are looked up by the provider's own error code, then by the words, then by status, then by the status's class.
Twilio splits its codes now and then, and SendGrid has none: the class always decides in the end. Over SMTP the first row that fits decides.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NoReturn

from usher.channels import ProviderRefused
from usher.channels.faults import (
    BY_CLASS,
    SENDGRID_STATUSES,
    SENDGRID_TEXTS,
    SMTP_ROWS,
    TWILIO_CODES,
    TWILIO_STATUSES,
    Meaning,
    SmtpStep,
    Sort,
)
from usher.http import Answer, asked_wait
from usher.outcome import OnUnknown, Reject, Retry, Unknown
from usher.redact import scrub

Failure = Literal["connect", "timeout", "broken"]

_TEXT_LIMIT = 160
_READ_LIMIT = 1000
_ENHANCED = re.compile(r"^\s*([245]\.\d{1,3}\.\d{1,3})(?![\d.])|\(#([245]\.\d{1,3}\.\d{1,3})\)")
"""An enhanced status code (RFC 3463), before the text or, as qmail writes it, behind."""


class NoAnswer(Exception):
    """The provider said nothing. *left*: part of the request may have reached it. *detail* is safe to show."""

    def __init__(self, failure: Failure, *, left: bool, detail: str) -> None:
        super().__init__(detail)
        self.failure = failure
        self.left = left
        self.detail = detail


@dataclass(frozen=True, slots=True)
class Finding:
    """An answer, sorted. *after* is the wait in seconds that the provider asked for; *reason* is scrubbed.

    *doubtful*: see `usher.channels.faults.Meaning`.
    """

    sort: Sort
    reason: str
    after: float | None = None
    doubtful: bool = False


@dataclass(frozen=True, slots=True)
class Table:
    """One provider's answers. *read* takes (error code, text) out of an error body."""

    provider: str
    read: Callable[[Any], tuple[int | None, str]]
    by_code: Mapping[int, Meaning] = field(default_factory=dict)
    by_text: Sequence[tuple[re.Pattern[str], Meaning]] = ()
    by_status: Mapping[int, Meaning] = field(default_factory=dict)


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
    return None, "; ".join(f"{error.get('message', '')}{_field(error)}" for error in errors)


def _field(error: Mapping[str, Any]) -> str:
    return f" ({error['field']})" if error.get("field") else ""


def _read_twilio(document: Any) -> tuple[int | None, str]:
    code, text = document.get("code"), str(document.get("message") or "")
    return (int(code) if re.fullmatch(r"\d{1,9}", str(code), re.ASCII) else None), text


SENDGRID = Table(provider="sendgrid", read=_read_sendgrid, by_text=SENDGRID_TEXTS, by_status=SENDGRID_STATUSES)
TWILIO = Table(provider="twilio", read=_read_twilio, by_code=TWILIO_CODES, by_status=TWILIO_STATUSES)


def sort(table: Table, answer: Answer, now: float) -> Finding:
    """What *answer* means. *now* is in Unix seconds: providers also ask for a wait by naming a time."""
    code, text = _details(table, answer)
    row = _row(table, answer.status, code, text)
    if row.sort == "done":
        return Finding("done", "")
    said = f"{table.provider} answered {answer.status}" + (f" (error {code})" if code is not None else "")
    parts = [said, scrub(text, _TEXT_LIMIT), row.hint]
    wait = asked_wait(answer.headers, now) if row.sort == "transient" else None
    return Finding(row.sort, ": ".join(part for part in parts if part), wait, row.doubtful)


def sort_smtp(step: SmtpStep, code: int, text: str) -> Finding:
    """What an SMTP server's answer means that is no success. *text* is what follows the code; it names nobody."""
    found = _ENHANCED.search(text)
    reply = f"{code} {found[1] or found[2] if found else '-'} {' '.join(text.split())}"[:_READ_LIMIT].lower()
    row = next((row for row in SMTP_ROWS if step in row.steps and row.reply.search(reply)), None)
    meaning = (row.meaning if row else None) or Meaning("transient" if code // 100 == 4 else "permanent")
    reason = f"smtp answered {code}: {scrub(text, _TEXT_LIMIT)}" + (f": {meaning.hint}" if meaning.hint else "")
    return Finding(meaning.sort, reason, doubtful=meaning.doubtful)


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
        raise ProviderRefused(finding.reason, doubtful=finding.doubtful)
    raise Unknown(finding.reason, otherwise=otherwise)


def _row(table: Table, status: int, code: int | None, text: str) -> Meaning:
    # 2xx and 5xx first: whatever the body says, these have taken it, or have broken down over it.
    if status // 100 in {2, 5}:
        return BY_CLASS[status // 100]
    by_code = table.by_code.get(code) if code is not None else None
    by_text = next((meaning for words, meaning in table.by_text if words.search(text)), None)
    return by_code or by_text or table.by_status.get(status) or BY_CLASS.get(status // 100) or Meaning("transient")


def _details(table: Table, answer: Answer) -> tuple[int | None, str]:
    if answer.status // 100 == 2:
        return None, ""
    try:
        return table.read(answer.document)
    except (LookupError, TypeError, AttributeError):
        return None, ""  # a proxy's error page: it says nothing that the status does not
