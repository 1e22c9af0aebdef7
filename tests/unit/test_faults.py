"""Whose fault an answer is: the account's and sender's pause the channel, the message's and recipient's do not."""

from __future__ import annotations

import json
from typing import get_args

import pytest

from usher.channels.answers import SENDGRID, TWILIO, Finding, sort, sort_smtp
from usher.channels.faults import SMTP_ROWS, TWILIO_CODES, SmtpStep
from usher.http import Answer

OURS, THEIRS, LATER = "provider-refused", "permanent", "transient"

SMTP: list[tuple[SmtpStep, str, str]] = [
    # the account and the log-in
    ("session", "554 go away", OURS),
    ("session", "550 5.7.1 HELO rejected", OURS),
    ("session", "535 5.7.8 authentication failed", OURS),
    ("session", "535 5.7.13 user account disabled", OURS),
    ("session", "432 4.7.12 a password transition is needed", OURS),
    ("session", "421 4.3.2 too many connections", LATER),
    ("session", "454 4.7.0 temporary authentication failure", LATER),
    ("MAIL", "530 5.7.0 must issue a STARTTLS command first", OURS),
    ("MAIL", "530 5.7.57 client not authenticated to send anonymous mail", OURS),
    ("RCPT", "503 authentication is required", OURS),
    ("RCPT", "550 5.7.1 your account has been suspended", OURS),
    ("DATA", "554 Access denied: Sending paused for this account", OURS),
    # the sender, at MAIL or later
    ("MAIL", "550 5.7.60 you may not send as this sender", OURS),
    ("MAIL", "553 5.1.8 sender's domain does not exist", OURS),
    ("MAIL", "550 5.1.1 <accounts@example.org>: user unknown", OURS),
    ("MAIL", "550 no", OURS),
    ("MAIL", "450 4.1.8 sender's domain not found", OURS),
    ("RCPT", "553 5.7.1 <accounts@example.org>: Sender address rejected: not owned by user usher", OURS),
    ("RCPT", "450 4.1.8 <accounts@example.org>: Sender address rejected: Domain not found", OURS),
    ("RCPT", "550 Sender verify failed", OURS),
    ("RCPT", "553 sorry, your envelope sender is in my badmailfrom list (#5.1.8)", OURS),
    ("RCPT", "554 5.7.1 <unknown[192.0.2.7]>: Client host rejected: Access denied", OURS),
    ("RCPT", "554 5.7.1 Service unavailable; Client host [192.0.2.7] blocked using a list", OURS),
    ("RCPT", "504 5.5.2 <mail>: Helo command rejected: need fully-qualified hostname", OURS),
    ("RCPT", "554 5.7.1 <kim@example.com>: Relay access denied", OURS),
    ("RCPT", "454 4.7.1 <kim@example.com>: Relay access denied", OURS),
    ("RCPT", "550 5.7.64 TenantAttribution; Relay Access Denied", OURS),
    ("DATA", "550 5.7.60 SMTP; Client does not have permissions to send as this sender", OURS),
    ("DATA", "550 5.7.1 Client does not have permissions to send as this sender", OURS),
    ("DATA", "554 5.2.252 SendAsDenied; accounts@example.org not allowed to send as it", OURS),
    ("DATA", "554 Message rejected: Email address is not verified. The following identities failed the check", OURS),
    ("DATA", "550 5.7.26 unauthenticated mail is not accepted from this domain: DMARC", OURS),
    ("DATA", "550 5.7.26 not accepted by the policy of the domain: see its administrator", OURS),
    ("DATA", "550 5.7.509 Access denied, sending domain does not pass DMARC verification", OURS),
    ("DATA", "550 5.7.501 Access denied, spam abuse detected", OURS),
    ("DATA", "550 5.7.750 Client blocked from sending from unregistered domains", OURS),
    # quota
    ("MAIL", "450 4.7.1 Error: too much mail from 192.0.2.7", OURS),
    ("MAIL", "452 4.2.2 over quota", OURS),
    ("MAIL", "552 5.2.2 over quota", OURS),
    ("RCPT", "452 4.5.3 too many recipients", OURS),
    ("DATA", "550 5.4.5 Daily user sending limit exceeded", OURS),
    ("DATA", "550 5.7.1 Daily SMTP relay limit exceeded for customer", OURS),
    ("DATA", "450 4.2.1 Peak SMTP relay limit exceeded for customer", OURS),
    ("DATA", "454 Throttling failure: Daily message quota exceeded.", OURS),
    ("DATA", "454 Throttling failure: Maximum sending rate exceeded.", LATER),
    ("DATA", "421 4.7.28 an unusual rate of mail", OURS),
    ("DATA", "550 5.1.90 you have reached your daily limit for message recipients", OURS),
    ("DATA", "550 5.7.705 Access denied, tenant has exceeded threshold", OURS),
    ("RCPT", "550 5.2.0 your account's sending quota is exceeded", OURS),
    # the recipient
    ("RCPT", "550 5.1.1 <kim@example.com>: Recipient address rejected: User unknown", THEIRS),
    ("RCPT", "550 no such user here", THEIRS),
    ("RCPT", "550 No such user here (#5.1.1)", THEIRS),
    ("RCPT", "450 4.1.1 Recipient address rejected: unverified address: connection refused", LATER),
    ("RCPT", "550 Recipient address rejected: Sender not allowed", THEIRS),
    ("RCPT", "450 4.7.1 Recipient address rejected: Greylisted", LATER),
    ("RCPT", "451 4.7.1 greylisting in action, please come back later", LATER),
    ("RCPT", "451 4.7.0 temporarily deferred", LATER),
    ("RCPT", "550 5.2.1 The email account that you tried to reach is disabled.", THEIRS),
    ("RCPT", "550 this account is disabled", THEIRS),
    ("RCPT", "450 4.2.1 the user is receiving mail at a rate that prevents additional messages", LATER),
    ("RCPT", "452 4.2.2 The recipient's inbox is out of storage space", LATER),
    ("RCPT", "552 5.2.2 mailbox full: quota exceeded", THEIRS),
    ("RCPT", "552 message quota exceeded for mailbox, daily limit reached", THEIRS),
    ("RCPT", "452 4.5.3 domain policy size per transaction exceeded, try this recipient in a separate transaction", LATER),
    ("RCPT", "550 5.7.1 access denied", THEIRS),
    ("RCPT", "550 5.7.1 you are not allowed to send to this mailing list", THEIRS),
    ("RCPT", "550 5.7.1 sender not authorized to send messages to this recipient", THEIRS),
    ("RCPT", "550 5.7.133 RESOLVER.RST.SenderNotAuthenticatedForGroup; sender not authenticated for group", THEIRS),
    ("RCPT", "550 5.7.124 sender not allowed here", THEIRS),
    ("RCPT", "550 5.1.10 recipient not found", THEIRS),
    ("RCPT", "450 4.2.1 mailbox busy", LATER),
    ("RCPT", "421 4.7.0 try again later", LATER),
    # the message
    ("MAIL", "552 5.3.4 message size exceeds fixed limit", THEIRS),
    ("MAIL", "555 5.5.4 unsupported parameter SMTPUTF8", THEIRS),
    ("DATA", "552 5.3.4 message size limit exceeded", THEIRS),
    ("DATA", "550 5.7.1 message contains content that is not allowed", THEIRS),
    ("DATA", "550 5.6.0 a header is malformed", THEIRS),
    ("DATA", "554 transaction failed", THEIRS),
    ("DATA", "451 4.3.0 local error in processing", LATER),
    ("DATA", "452 4.3.1 insufficient system storage", LATER),
    ("MAIL", "421 4.4.5 server busy, try again later", LATER),
    ("MAIL", "421 4.7.0 try again later, closing connection", LATER),
    ("MAIL", "451 4.3.0 temporary failure", LATER),
]  # fmt: skip


@pytest.mark.parametrize(("step", "reply", "expected"), SMTP, ids=lambda value: value.replace(" ", "-")[:40])
def test_what_an_smtp_server_says(step: SmtpStep, reply: str, expected: str) -> None:
    """By its step, its enhanced code and its words; a pause says what to check."""
    finding = smtp(step, reply)

    assert finding.sort == expected, finding
    assert (expected == OURS) == finding.reason.endswith((
        "check USHER_SMTP__URL", "may send as it", "or wait", "its list of clients", "the account behind it",
    ))  # fmt: skip


def smtp(step: SmtpStep, reply: str) -> Finding:
    code, _, text = reply.partition(" ")
    return sort_smtp(step, int(code), text)


def test_every_rule_for_smtp_decides_an_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    """No row is dead: without it, one of the answers above would be sorted otherwise."""
    before = [smtp(step, reply) for step, reply, _ in SMTP]

    for row in SMTP_ROWS:
        monkeypatch.setattr("usher.channels.answers.SMTP_ROWS", tuple(other for other in SMTP_ROWS if other != row))
        assert [smtp(step, reply) for step, reply, _ in SMTP] != before, row.reply.pattern


@pytest.mark.parametrize("step", get_args(SmtpStep))
@pytest.mark.parametrize("text", ["", " ", "5.7", "999.1.1 x", "\x00", "5.7.1.2 x", "x" * 100_000, "send " * 20_000])
def test_any_reply_is_sorted(step: SmtpStep, text: str) -> None:
    """Whatever a server says, at once, and a refusal before any recipient is known is never held against a message."""
    assert sort_smtp(step, 550, text).sort == (THEIRS if step in {"RCPT", "DATA"} else OURS)
    assert sort_smtp(step, 451, text).sort == LATER


TWILIO_FAULTS = {
    OURS: {
        10001, 10002, 14102, 14108, 20003, 20004, 20005, 20006, 20008, 20010, 20011, 20012, *range(20101, 20108),
        *range(20151, 20161), 20403, 20404, 20410, 20423, 20426, 21210, 21212, 21213, 21264, 21267, 21407, 21470, 21471,
        21472, 21601, 21603, 21606, 21607, 21608, 21616, 21657, 21659, 21660, 21661, 21701, 21702, 21703, 21704, 21705,
        21708, 21709, 21711, 21713, 21729, 21910, 30002, 30018, 30023, 30024, 30027, 30032, 30033, 30034, 30035, 30124,
        30127, 63002, 63007, 63038, 90010, 572005,
    },
    LATER: {14107, 20409, 20429, 21611, 21730, 30001, 30017, 30022, 63017, 63018},
    THEIRS: {
        14101, 14103, 21211, 21214, 21217, 21265, 21266, 21268, 21408, 21602, 21604, 21605, 21610, 21612, 21614, 21617,
        21618, 21619, 21635, 30003, 30004, 30005, 30006, 30007, 30019,
    },
}  # fmt: skip


def twilio(status: int, code: object) -> Finding:
    return sort(TWILIO, Answer(status, {}, json.dumps({"code": code, "message": "no"}).encode()), 0.0)


def test_every_code_of_twilio() -> None:
    """All codes of the table, whatever status they come with, as a number or as a text."""
    assert TWILIO_CODES.keys() == set.union(*TWILIO_FAULTS.values())
    for expected, codes in TWILIO_FAULTS.items():
        for code in codes:
            assert {twilio(status, text).sort for status in (400, 403, 404, 429) for text in (code, str(code))} == {
                expected
            }


@pytest.mark.parametrize(
    ("code", "doubtful"),
    [(20404, False), (20003, False), (63038, False), (21660, False), (21606, True), (21608, True), (21703, True)],
)
def test_what_depends_on_the_recipient_too_is_in_doubt(code: int, doubtful: bool) -> None:
    """A sender may be wrong for one country only: one user there must not stop the others."""
    assert twilio(400, code).doubtful is doubtful


@pytest.mark.parametrize("table", [SENDGRID, TWILIO], ids=["sendgrid", "twilio"])
@pytest.mark.parametrize("status", [401, 402, 403, 404, 405, 407, 410])
def test_a_status_that_is_about_us(table: object, status: int) -> None:
    """Of a wrong base URL, a wrong key, an unpaid account: also where a proxy's page is all there is to read."""
    finding = sort(table, Answer(status, {}, b"<html>not found</html>"), 0.0)  # type: ignore[arg-type]

    assert finding.sort == OURS
    assert finding.reason.count(": ") >= 1


@pytest.mark.parametrize(
    ("status", "message", "field", "expected"),
    [
        (403, "The from address does not match a verified Sender Identity.", "from", OURS),
        (400, "The from address does not match a verified Sender Identity.", None, OURS),
        (400, "The from email does not contain a valid address.", "from.email", OURS),
        (400, "Maximum credits exceeded", None, OURS),
        (429, "Maximum credits exceeded", None, OURS),
        (400, "Your account has been suspended", None, OURS),
        (400, "authenticated user is not authorized to send mail", None, OURS),
        (400, "Does not contain a valid address.", "personalizations.0.to.0.email", THEIRS),
        (400, "The subject is required.", "subject", THEIRS),
        (413, "too large", None, THEIRS),
        (429, "too many requests", None, LATER),
    ],
)
def test_what_sendgrid_says_in_words(status: int, message: str, field: str | None, expected: str) -> None:
    """It has no codes: the field and the words say whether it is the sender."""
    body = json.dumps({"errors": [{"message": message, "field": field, "help": None}]}).encode()

    assert sort(SENDGRID, Answer(status, {}, body), 0.0).sort == expected
