"""SMS by Twilio's Messages resource: one form POST, carried by our own session.

The package's client would send a 500 again by itself, and has no base URL; and it drops the headers of an answer, so that
the wait it asks for is lost.
"""

from __future__ import annotations

from base64 import b64encode
from urllib.parse import urlencode

from usher.addresses import TwilioSender
from usher.channels import Progress, SmsMessage
from usher.channels.answers import TWILIO
from usher.channels.transport import Transport, deliver

BASE_URL = "https://api.twilio.com"


class Twilio:
    """An `Sms`."""

    name = "twilio"

    def __init__(
        self, transport: Transport, *, account_sid: str, auth_token: str, sender: TwilioSender, base_url: str = BASE_URL
    ) -> None:
        self._transport = transport
        self._account_sid = account_sid
        self._auth_token = auth_token
        self._sender = sender
        self._base_url = base_url

    async def send(self, text: SmsMessage, progress: Progress) -> None:
        sender = "MessagingServiceSid" if self._sender.is_service else "From"
        form = {"To": text.to, sender: self._sender.text, "Body": text.body}
        credentials = b64encode(f"{self._account_sid}:{self._auth_token}".encode()).decode()
        await deliver(
            self._transport,
            TWILIO,
            url=f"{self._base_url}/2010-04-01/Accounts/{self._account_sid}/Messages.json",
            body=urlencode(form).encode(),
            headers={
                "Authorization": f"Basic {credentials}",
                "Content-Type": "application/x-www-form-urlencoded",
                "Accept": "application/json",
            },
            progress=progress,
            otherwise="dead-letter",
        )
