"""Whose fault a provider's answer is: the tables. They are data, and a new code is a new row.

The question is whether the next message would fare the same. What is about our account, sender or set-up is
*provider-refused*: the channel pauses, and nothing is lost. What is about this message or its recipient is *permanent*.

Sources: Twilio's Error and Warning Dictionary; SendGrid's pages on API errors and its OpenAPI description; RFC 3463, 4954,
5248 and 7372 and IANA's registry of enhanced status codes; Microsoft's list of NDR codes in Exchange Online; Gmail's SMTP
errors and codes; Amazon SES's SMTP response codes and its page on sending quotas; Postfix's and Exim's own texts.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

Sort = Literal["done", "transient", "permanent", "provider-refused", "unknown"]
SmtpStep = Literal["session", "MAIL", "RCPT", "DATA"]
"""Where an SMTP server said it; session: before MAIL."""


@dataclass(frozen=True, slots=True)
class Meaning:
    """What an answer means. *hint* is for the operator: what to do.

    *doubtful*: it depends on the recipient, too, so it may be about this one after all. It is, once others got through.
    """

    sort: Sort
    hint: str = ""
    doubtful: bool = False


def _refused(hint: str, *, doubtful: bool = False) -> Meaning:
    return Meaning("provider-refused", hint, doubtful)


def _rows(*groups: tuple[Meaning, Iterable[int]]) -> Mapping[int, Meaning]:
    return {code: meaning for meaning, codes in groups for code in codes}


BY_CLASS: Mapping[int, Meaning] = {
    2: Meaning("done"),
    3: _refused("a redirect is not followed: check the base URL"),
    4: Meaning("permanent"),
    5: Meaning("transient"),
}
_TRANSIENT = Meaning("transient")
_PERMANENT = Meaning("permanent")


def _statuses(provider: str, credentials: Meaning, forbidden: Meaning) -> Mapping[int, Meaning]:
    base_url = _refused(f"check USHER_{provider}__BASE_URL: nothing there takes messages")
    return _rows(
        (credentials, [401]),
        (_refused("the account has to be paid for: see the provider's console"), [402]),
        (forbidden, [403]),
        (base_url, [404, 405, 410, 421, 426]),
        (_refused("a proxy in between wants credentials"), [407]),
        (_TRANSIENT, [408, 425, 429]),
    )


# SendGrid has no codes: the status, the field and the words.
_SENDGRID_SENDER = _refused("check USHER_MAIL_FROM: its address or domain has to be a verified identity of the account")
_SENDGRID_ACCOUNT = _refused("see the account in SendGrid's console: its credits, its state")
SENDGRID_STATUSES = _statuses(
    "SENDGRID",
    _refused("check USHER_SENDGRID__API_KEY and the account's credits"),
    _refused("check the API key's Mail Send permission and that the sender is a verified identity"),
)
SENDGRID_TEXTS: tuple[tuple[re.Pattern[str], Meaning], ...] = (
    (re.compile(r"(?i)verified sender identity|\(from(\.\w+)?\)"), _SENDGRID_SENDER),
    (re.compile(r"(?i)credits exceeded|account (is |has been |was )?(suspended|disabled|deactivated|banned|locked)"), _SENDGRID_ACCOUNT),
    (re.compile(r"(?i)not authorized to send|authorization (grant|required)"), _refused("check USHER_SENDGRID__API_KEY")),
)  # fmt: skip

# Twilio: the code decides. Most of 30xxx come in callbacks only.
_CREDENTIALS = _refused("check USHER_TWILIO__ACCOUNT_SID and USHER_TWILIO__AUTH_TOKEN, or the API key and its secret")
_ACCOUNT = _refused("the account is suspended, closed, on trial or may not do this: see the Twilio console")
_LIMIT = _refused("the account's daily limit is reached: raise it, or wait for the next day")
_SENDER = _refused("check USHER_TWILIO__FROM: this account can't send SMS from it")
_SERVICE = _refused("check the messaging service of USHER_TWILIO__FROM: it is not there, or has no sender to use")
_WHERE = "a sender that this country or carrier does not take, or that is not registered there: see the Twilio console"
TWILIO_STATUSES = _statuses(
    "TWILIO", _CREDENTIALS, _refused("the account or its key may not do this: see the Twilio console", doubtful=True)
)
TWILIO_CODES = _rows(
    # too many at once, queues that are full, maintenance
    (_TRANSIENT, [14107, 20409, 20429, 21611, 21730, 30001, 30017, 30022, 63017, 63018]),
    (_CREDENTIALS, [20003, 20006, 20008, *range(20101, 20108), *range(20151, 20161), 20403]),
    (_refused("check USHER_TWILIO__ACCOUNT_SID and USHER_TWILIO__BASE_URL: there is no such account"), [20404, 20423, 21470, 21471]),
    (_ACCOUNT, [10001, 10002, 20005, 20010, 21472, 30002, 90010]),
    (_refused("the account is on trial or not approved: it sends to verified numbers only", doubtful=True), [21608, 572005]),
    (_LIMIT, [30023, 30027, 63038]),
    (_refused("check USHER_TWILIO__BASE_URL, and for a newer Usher: Twilio takes no such request"), [20004, 20011, 20012, 20410, 20426]),
    (_SENDER, [14102, 14108, 21210, 21212, 21213, 21264, 21267, 21407, 21601, 21603, 21607, 21616, 21660, 21661, 21910, 63002, 63007]),
    (_refused(_SENDER.hint, doubtful=True), [21606, 21659]),
    (_SERVICE, [21701, 21702, 21704, 21705, 21708, 21709, 21711, 21713, 30124, 30127]),
    (_refused(_SERVICE.hint, doubtful=True), [21703]),
    (_refused(_WHERE, doubtful=True), [21657, 21729, 30018, 30024, 30032, 30033, 30034, 30035]),
    # no number, premium, landline, short code, ourselves, opted out, no way there, a country that is switched off
    (_PERMANENT, [14101, 21211, 21214, 21217, 21265, 21266, 21268, 21408, 21604, 21610, 21612, 21614, 21635, 30003, 30004, 30005, 30006]),
    (_PERMANENT, [14103, 21602, 21605, 21617, 21618, 21619, 30007, 30019]),  # what the message says
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class SmtpRow:
    """One rule for answers of SMTP servers. *reply* is looked for in ``CODE ENHANCED TEXT``, in lower case, ``-`` for none.

    *meaning* None: it is about this message, for now (4xx) or for good (5xx).
    """

    steps: tuple[SmtpStep, ...]
    reply: re.Pattern[str]
    meaning: Meaning | None

    @classmethod
    def of(cls, steps: str, reply: str, meaning: Meaning | None) -> SmtpRow:
        return cls(tuple(steps.split()), re.compile(reply), meaning)  # type: ignore[arg-type]


_LOG_IN = _refused("check USHER_SMTP__URL")
_FROM = "check USHER_MAIL_FROM, and that the user of USHER_SMTP__URL may send as it"
_QUOTA = _refused("what the account may send is used up: raise it, or wait")
_ANY, _LATER = "session MAIL RCPT DATA", "RCPT DATA"
_QUOTA_WORDS = r"daily|hourly|monthly|sending|sent|relay|submission|outgoing|outbound|message rate"

SMTP_ROWS: tuple[SmtpRow, ...] = (
    # Log-in and TLS: RFC 4954, 5248.
    SmtpRow.of(_ANY, r"^53[0458] |^\d+ \d\.7\.(8|9|1[0-4]|57) ", _LOG_IN),
    # This recipient, or this mailbox, list or domain, does not take it. That the sender is named there changes nothing.
    SmtpRow.of(_LATER, r"^\d+ \d\.(1\.([1-6]|10)|2\.[2-4]|3\.4|6\.\d+|7\.(2|1[6-9]|1[23]\d|193|50[457])) ", None),
    SmtpRow.of("MAIL", r"^\d+ \d\.(2\.3|3\.4|6\.\d+) |^55[25] - .*(size|smtputf8|parameter)|^555 ", None),
    # Sender: RFC 3463 and 7372 (DKIM, SPF, DMARC, reverse DNS), Exchange's send-as, banned and unregistered tenants.
    SmtpRow.of(
        _ANY,
        r"^\d+ \d\.(1\.[78]|2\.25\d|7\.(2[0-79]|3[0-2]|6[0148]|50[12368]|509|511|6[0-4]\d|7\d\d)) ",
        _refused(_FROM, doubtful=True),  # a server in between may pass on what the recipient's own server says
    ),
    # Quota: Exchange 5.1.90, Gmail 5.4.5 (4.4.5 is a server that is busy), 4.5.3 for one recipient, RFC 7372's flood.
    SmtpRow.of(_ANY, r"^\d+ \d\.(1\.90|5\.3|7\.28) (?!.*per transaction)|^5\d\d \d\.4\.5 ", _QUOTA),
    # From here on it is words. First again what is about this recipient.
    SmtpRow.of(
        _LATER,
        r"\b(to|for|by|of) ((this|the|that) )?(recipient|(mailing |distribution )?list|group|mailbox|domain)"
        r"|\b(recipient|list|group|mailbox)\b[^.;]{0,20} accepts|recipient address rejected",
        None,
    ),
    SmtpRow.of(
        _ANY,
        r"^(?!.*\b(recipient|mailbox|size|storage|receiv\w+|maximum sending rate)\b)"
        rf".*(({_QUOTA_WORDS})\b.{{0,40}}\b(limits?|quotas?|rate)\b.{{0,20}}"
        rf"(exceed|reach|hit)|(exceed|reach)\w*.{{0,40}}\b({_QUOTA_WORDS})\b.{{0,30}}(limit|quota|rate)|quota exceeded for send"
        r"|credits exceeded|too much mail|too many messages|sending (is )?paused|tenant has exceeded)",
        _QUOTA,
    ),
    SmtpRow.of(
        _ANY,
        r"(?<!sender )\bnot (yet )?authenticated|authenticat\w+ (is )?required|must (be )?(first )?authenticat|authenticate first"
        r"|\b(your|sending|sender'?s?) account (is |has been |was )*(currently |temporarily )?"
        r"(disabled|suspended|blocked|locked|restricted|inactive|paused|closed)",
        _refused("check USHER_SMTP__URL and the account behind it", doubtful=True),
    ),
    # The words for a sender that is not ours to use, as most servers say them at RCPT or DATA under 5.7.1, or without a code.
    SmtpRow.of(
        _ANY,
        r"send ?as ?denied|send as (this|that|the|another)|send on behalf|not owned by (user|auth)|client host (\S+ )?(rejected|blocked)"
        r"|helo command rejected|\bsender\b( address)?[^.;]{0,40}\b(rejected|denied|refused|blocked|banned|unverified|invalid|unknown"
        r"|not (allowed|permitted|owned|verified|authori[sz]ed|exist|found|local))|sender verif\w+ failed"
        r"|\b(e?-?mail address|domain|from address|identity) is not verified|from address [^.;]{0,40}(verified|match|allowed)"
        r"|(not|n't) (have )?(allowed|permitted|authori[sz]ed|permissions?) to send(?! ((this |e?-?mails?|messages?) )*to\b)",
        _refused(_FROM, doubtful=True),
    ),
    SmtpRow.of(
        _ANY,
        r"relay access denied|relaying (is )?(denied|not allowed|prohibited|not permitted)|unable to relay|not permitted to relay"
        r"|relay not permitted",
        _refused(
            "the server relays nothing for us: check the user in USHER_SMTP__URL, or its list of clients", doubtful=True
        ),
    ),
    # Nobody has heard of a recipient yet.
    SmtpRow.of("MAIL", r"^5|^4(?!21)\d\d 4\.[127]\.", _refused(_FROM)),
    SmtpRow.of("session", r"^5", _LOG_IN),
)
