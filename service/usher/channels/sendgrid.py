"""Mail by SendGrid's v3 API.

The payload is written by hand, because SendGrid's package takes thirty times as long; a contract test compares the two. Our own
session carries it: the package's client has no timeout, blocks the loop, and logs the API key at DEBUG.
"""

from __future__ import annotations

import re
from typing import Any

from pydantic_core import to_json

from usher.channels import PROVIDER_ID, Mail, Progress
from usher.channels.answers import SENDGRID
from usher.channels.mime import AUTO_SUBMITTED, check, encoded, neutral, one_line
from usher.channels.transport import Transport, deliver
from usher.outcome import Reject

BASE_URL = "https://api.sendgrid.com"
PATH = "/v3/mail/send"
DELIVERY_ARG = "usher_delivery"
"""The custom argument that carries the idempotency key: it comes back in SendGrid's events. It stops no repeat; nothing that
SendGrid has does."""
_API_KEY = re.compile(r"SG\.[0-9a-zA-Z]+\.[0-9a-zA-Z]+")
_TRACKING = {"click_tracking": {"enable": False, "enable_text": False}, "open_tracking": {"enable": False}}
"""A link that leads to where a password is set must not go by way of someone else's host."""


class SendGrid:
    """A `MailProvider`. *base_url* is without a path."""

    name = "sendgrid"

    def __init__(self, transport: Transport, *, api_key: str, base_url: str = BASE_URL) -> None:
        self._transport = transport
        self._api_key = api_key
        self._base_url = base_url

    def prepare(self, mail: Mail) -> bytes:
        try:
            return to_json(payload(mail))
        except ValueError as error:
            raise Reject(f"this mail can't be sent: {error}") from None

    async def send(self, mail: Mail, progress: Progress) -> None:
        body = self.prepare(mail)
        answer = await deliver(
            self._transport,
            SENDGRID,
            url=self._base_url + PATH,
            body=body,
            headers={"Authorization": f"Bearer {self._api_key}", "Content-Type": "application/json"},
            progress=progress,
            otherwise="resend",
        )
        progress.provider_id = one_line(answer.headers.get("X-Message-Id", ""))[:PROVIDER_ID]


def payload(mail: Mail) -> dict[str, Any]:
    """The JSON document of ``POST /v3/mail/send``.

    Raises:
        ValueError: not one message to one recipient, or its text begins with an API key of SendGrid.
    """
    check(mail)
    parts = [("text/plain", mail.text), *([] if mail.html is None else [("text/html", mail.html)])]
    if any(_API_KEY.match(text) for _, text in parts):
        raise ValueError("its text begins with an API key of SendGrid")
    name = neutral(mail.sender.name)
    return {
        "from": {"email": mail.sender.address, **({"name": name} if name else {})},
        "subject": neutral(mail.subject),
        "personalizations": [{"to": [{"email": mail.to}]}],
        "content": [{"type": kind, "value": text} for kind, text in parts],
        "headers": dict([AUTO_SUBMITTED, *((header, _on_one_line(header, value)) for header, value in mail.headers)]),
        "custom_args": {DELIVERY_ARG: mail.idempotency_key},
        "tracking_settings": _TRACKING,
    }


def _on_one_line(header: str, value: str) -> str:
    return encoded(header, value).replace("\r\n", "")
