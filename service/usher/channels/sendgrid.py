"""Mail by SendGrid's v3 API.

The package builds and checks the payload; our own session carries it, because the package's client has no timeout, blocks
the loop, and logs the API key at DEBUG.
"""

from __future__ import annotations

import json
from typing import Any

from sendgrid.helpers.mail import (
    ClickTracking,
    CustomArg,
    From,
    Header,
    OpenTracking,
    Personalization,
    To,
    TrackingSettings,
)
from sendgrid.helpers.mail import Mail as Payload
from sendgrid.helpers.mail.exceptions import SendGridException

from usher.channels import Mail, Progress
from usher.channels.answers import SENDGRID
from usher.channels.mime import AUTO_SUBMITTED, check, encoded, neutral
from usher.channels.transport import Transport, deliver
from usher.outcome import Reject

BASE_URL = "https://api.sendgrid.com"
PATH = "/v3/mail/send"
DELIVERY_ARG = "usher_delivery"
"""The custom argument that carries the idempotency key: it comes back in SendGrid's events. It stops no repeat; nothing that
SendGrid has does."""


class SendGrid:
    """A `MailProvider`. *base_url* is without a path."""

    name = "sendgrid"

    def __init__(self, transport: Transport, *, api_key: str, base_url: str = BASE_URL) -> None:
        self._transport = transport
        self._api_key = api_key
        self._base_url = base_url

    def prepare(self, mail: Mail) -> bytes:
        try:
            return json.dumps(payload(mail)).encode()
        except (ValueError, SendGridException) as error:
            raise Reject(f"this mail can't be sent: {error}") from None

    async def send(self, mail: Mail, progress: Progress) -> None:
        body = self.prepare(mail)
        await deliver(
            self._transport,
            SENDGRID,
            url=self._base_url + PATH,
            body=body,
            headers={"Authorization": f"Bearer {self._api_key}", "Content-Type": "application/json"},
            progress=progress,
            otherwise="resend",
        )


def payload(mail: Mail) -> dict[str, Any]:
    """The JSON document of ``POST /v3/mail/send``.

    Raises:
        ValueError, SendGridException: not one message to one recipient, or a SendGrid key in its text.
    """
    check(mail)
    message = Payload(
        from_email=From(mail.sender.address, neutral(mail.sender.name) or None),
        subject=neutral(mail.subject),
        plain_text_content=mail.text,
        html_content=mail.html,
    )
    recipient = Personalization()
    recipient.add_to(To(mail.to))
    message.add_personalization(recipient)
    message.add_custom_arg(CustomArg(DELIVERY_ARG, mail.idempotency_key))
    for header, value in (AUTO_SUBMITTED, *mail.headers):
        message.add_header(Header(header, encoded(header, value).replace("\r\n", "")))
    # A link that leads to where a password is set must not go by way of someone else's host.
    message.tracking_settings = TrackingSettings(ClickTracking(False, False), OpenTracking(False))
    document: dict[str, Any] = message.get()
    return document
