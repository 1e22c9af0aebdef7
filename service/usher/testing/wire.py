"""The wire formats of SendGrid and Twilio: which requests they accept, and how they answer, for sending one message.

It does no I/O; `usher.testing.providers` serves it.
"""

from __future__ import annotations

import json
import re
from base64 import b64decode
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Literal
from urllib.parse import parse_qsl

from usher.addresses import MailSender
from usher.channels import Mail, SmsMessage
from usher.channels.sendgrid import DELIVERY_ARG

Provider = Literal["sendgrid", "twilio"]

_ADDRESS = re.compile(r"[^\s@<>]+@[^\s@<>]+\.[^\s@<>]+")
_NUMBER = re.compile(r"\+[1-9]\d{7,14}")
_BAD_KEY = "The provided authorization grant is invalid, expired, or revoked"


@dataclass(frozen=True, slots=True)
class Request:
    """One request to send a message. *to* is empty if it can't be read; *payload* is the JSON or the form, decoded."""

    number: int
    provider: Provider
    to: str
    headers: Mapping[str, str]
    payload: Mapping[str, Any]
    body: bytes


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer. *headers* has no content type: that goes by the body."""

    status: int
    body: bytes = b""
    headers: tuple[tuple[str, str], ...] = ()


def read(number: int, provider: Provider, headers: Mapping[str, str], body: bytes) -> Request:
    """Read a request, however broken: `sendgrid_refusal` and `twilio_refusal` say what is wrong with it."""
    payload: dict[str, Any] = {}
    to = ""
    try:
        if provider == "sendgrid":
            payload = json.loads(body)
            to = payload["personalizations"][0]["to"][0]["email"]
        else:
            payload = dict(parse_qsl(body.decode(), strict_parsing=True))
            to = payload.get("To", "")
    except (ValueError, LookupError, TypeError):
        pass
    return Request(number, provider, to, headers, payload if isinstance(payload, dict) else {}, body)


# SendGrid


def sendgrid_error(status: int, message: str, field: str | None = None) -> Reply:
    """Make an error as SendGrid words it."""
    return Reply(status, json.dumps({"errors": [{"message": message, "field": field, "help": None}]}).encode())


def sendgrid_refusal(request: Request, api_key: str, refused: frozenset[str]) -> Reply | None:
    """Return the answer with which SendGrid would refuse the request; None: it would accept it."""
    headers, payload = request.headers, request.payload
    if headers.get("Authorization") != f"Bearer {api_key}":
        return sendgrid_error(401, _BAD_KEY)
    if headers.get("Content-Type", "").partition(";")[0] != "application/json":
        return sendgrid_error(415, "Content-Type should be application/json.")
    if not payload:
        return sendgrid_error(400, "Bad Request")
    people = payload.get("personalizations") or [{}]
    if not people[0].get("to"):
        return sendgrid_error(400, "The to array is required for all personalization objects", "personalizations.0.to")
    if not _ADDRESS.fullmatch(request.to) or request.to in refused:
        return sendgrid_error(400, "Does not contain a valid address.", "personalizations.0.to.0.email")
    if not _ADDRESS.fullmatch(str((payload.get("from") or {}).get("email"))):
        return sendgrid_error(400, "The from email does not contain a valid address.", "from.email")
    if not payload.get("subject"):
        return sendgrid_error(400, "The subject is required.", "subject")
    return _content_refusal(payload)


def _content_refusal(payload: Mapping[str, Any]) -> Reply | None:
    content = payload.get("content") or []
    if not content or not all(part.get("value") for part in content):
        return sendgrid_error(400, "The content value must be a string at least one character in length.", "content")
    if [part["type"] for part in content] not in [["text/plain"], ["text/html"], ["text/plain", "text/html"]]:
        return sendgrid_error(400, "If present, text/plain must be first, followed by text/html.", "content")
    if not isinstance(payload.get("custom_args", {}), dict):
        return sendgrid_error(400, "The custom_args parameter must be an object.", "custom_args")
    return None


def sendgrid_accepted(message_id: str) -> Reply:
    """Make the answer with which SendGrid accepts a mail: 202 without a body."""
    return Reply(202, headers=(("X-Message-Id", message_id),))


def sendgrid_mail(request: Request) -> Mail:
    """Return the mail that SendGrid would now send."""
    payload = request.payload
    parts = {part["type"]: part["value"] for part in payload["content"]}
    return Mail(
        to=request.to,
        sender=_sender(payload["from"]),
        subject=payload["subject"],
        text=parts.get("text/plain", ""),
        html=parts.get("text/html"),
        idempotency_key=payload.get("custom_args", {}).get(DELIVERY_ARG, "without-key"),
    )


# Twilio


def twilio_error(status: int, code: int, message: str) -> Reply:
    """Make an error as Twilio words it."""
    document = {
        "code": code,
        "message": message,
        "more_info": f"https://www.twilio.com/docs/errors/{code}",
        "status": status,
    }
    return Reply(status, json.dumps(document).encode())


_NOT_AUTHENTICATED = twilio_error(401, 20003, "Authenticate")


def twilio_refusal(request: Request, logins: frozenset[str], refused: frozenset[str]) -> Reply | None:
    """Return the answer with which Twilio would refuse the request; None: it would accept it.

    *logins* are those that it knows, each ``USER:PASSWORD``: an account with its auth token, an API key with its secret.
    """
    form = request.payload
    if _basic(request.headers.get("Authorization", "")) not in logins:
        return _NOT_AUTHENTICATED
    if "To" not in form:
        return twilio_error(400, 21604, "A 'To' phone number is required.")
    if not _NUMBER.fullmatch(request.to) or request.to in refused:
        return twilio_error(400, 21211, f"The 'To' number {request.to} is not a valid phone number.")
    if "From" not in form and "MessagingServiceSid" not in form:
        return twilio_error(400, 21603, "A 'From' phone number is required.")
    if not form.get("Body"):
        return twilio_error(400, 21602, "Message body is required.")
    if len(form["Body"]) > 1600:
        return twilio_error(400, 21617, "The concatenated message body exceeds the 1600 character limit.")
    if not re.fullmatch(r"[1-9]\d{0,4}", period := form.get("ValidityPeriod", "36000")) or int(period) > 36_000:
        return twilio_error(400, 21624, "Invalid validity period value.")
    return None


def twilio_accepted(request: Request, sid: str, account_sid: str, date: str) -> Reply:
    """Make the answer with which Twilio accepts a message: 201 and the resource."""
    form, base = request.payload, f"/2010-04-01/Accounts/{account_sid}/Messages/{sid}"
    service = form.get("MessagingServiceSid")
    document = {
        "account_sid": account_sid, "api_version": "2010-04-01", "body": form["Body"], "date_created": date,
        "date_sent": None, "date_updated": date, "direction": "outbound-api", "error_code": None,
        "error_message": None, "from": form.get("From"), "messaging_service_sid": service, "num_media": "0",
        "num_segments": "0" if service else "1", "price": None, "price_unit": None if service else "USD", "sid": sid,
        "status": "accepted" if service else "queued", "subresource_uris": {"media": f"{base}/Media.json"},
        "to": request.to, "uri": f"{base}.json",
    }  # fmt: skip
    return Reply(201, json.dumps(document).encode())


def twilio_sms(request: Request, sid: str) -> SmsMessage:
    """Return the SMS that Twilio would now send."""
    return SmsMessage(to=request.to, body=request.payload["Body"], idempotency_key=sid)


def error(provider: Provider, status: int) -> Reply:
    """Make an error as the provider words it, for a status."""
    phrase = HTTPStatus(status).phrase
    if provider == "sendgrid":
        return sendgrid_error(status, _BAD_KEY if status == 401 else phrase)
    if status == 401:
        return _NOT_AUTHENTICATED
    return twilio_error(status, 20000 + status, phrase)


def _basic(header: str) -> str:
    try:
        return b64decode(header.removeprefix("Basic ")).decode()
    except ValueError:
        return ""


def _sender(sender: Mapping[str, str]) -> MailSender:
    # The package puts a name with a comma into quotes.
    return MailSender(sender["email"], sender.get("name", "").replace("\\", "").replace('"', ""))
