"""SMS by Twilio's Messages resource: one form POST, carried by our own session.

The package's client would send a 500 again by itself, and has no base URL; and it drops the headers of an answer, so that
the wait it asks for is lost.
"""

from __future__ import annotations

import re
from base64 import b64encode
from urllib.parse import urlencode

from usher.channels import Progress, SmsMessage
from usher.channels.answers import TWILIO
from usher.channels.transport import Transport, base_url_problems, deliver

BASE_URL = "https://api.twilio.com"
_ACCOUNT = re.compile(r"AC[0-9a-fA-F]{32}")
_SERVICE = re.compile(r"MG[0-9a-fA-F]{32}")
_SENDER = re.compile(r"\+[1-9]\d{6,14}|\d{3,8}|(?=.*[A-Za-z])[A-Za-z0-9 &+_-]{1,11}")
"""A number in E.164, a short code, or an alphanumeric sender."""


class Twilio:
    """An `Sms`. *sender* is a number of the account or the SID of a messaging service (``MG…``)."""

    name = "twilio"

    def __init__(
        self, transport: Transport, *, account_sid: str, auth_token: str, sender: str, base_url: str = BASE_URL
    ) -> None:
        self._transport = transport
        self._account_sid = account_sid.strip()
        self._auth_token = auth_token.strip()
        self._sender = sender.strip()
        self._base_url = base_url

    def check(self) -> list[str]:
        problems = base_url_problems("USHER_TWILIO__BASE_URL", self._base_url)
        if not _ACCOUNT.fullmatch(self._account_sid):
            what = "is no account SID" if self._account_sid else "is missing"
            problems.append(f"USHER_TWILIO__ACCOUNT_SID {what}: it is AC and 32 hexadecimal digits")
        if not self._auth_token:
            problems.append("USHER_TWILIO__AUTH_TOKEN is missing")
        if not (_SERVICE.fullmatch(self._sender) or _SENDER.fullmatch(self._sender)):
            what = "is no sender" if self._sender else "is missing"
            problems.append(
                f"USHER_TWILIO__FROM {what}: give a number as in +15005550006, or the SID of a messaging service (MG…)"
            )
        return problems

    async def send(self, text: SmsMessage, progress: Progress) -> None:
        sender = "MessagingServiceSid" if _SERVICE.fullmatch(self._sender) else "From"
        form = {"To": text.to, sender: self._sender, "Body": text.body}
        credentials = b64encode(f"{self._account_sid}:{self._auth_token}".encode()).decode()
        await deliver(
            self._transport,
            TWILIO,
            url=f"{self._base_url.rstrip('/')}/2010-04-01/Accounts/{self._account_sid}/Messages.json",
            body=urlencode(form).encode(),
            headers={
                "Authorization": f"Basic {credentials}",
                "Content-Type": "application/x-www-form-urlencoded",
                "Accept": "application/json",
            },
            progress=progress,
            otherwise="dead-letter",
        )
