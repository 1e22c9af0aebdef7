"""SMS by Twilio's Messages resource: the package builds the request, our own session carries it.

The package's own carrier would send a 500 again by itself, and drops the headers of an answer, so that the wait it asks
for is lost.
"""

from __future__ import annotations

import re
from base64 import b64encode
from logging import getLogger
from typing import Any
from urllib.parse import urlencode

from twilio.http import AsyncHttpClient
from twilio.http.response import Response
from twilio.rest import Client

from usher.channels import Progress, SmsMessage
from usher.channels.answers import TWILIO
from usher.channels.transport import Transport, base_url_problems, deliver

BASE_URL = "https://api.twilio.com"
_ACCOUNT = re.compile(r"AC[0-9a-fA-F]{32}")
_SERVICE = re.compile(r"MG[0-9a-fA-F]{32}")
_SENDER = re.compile(r"\+[1-9]\d{6,14}|\d{3,8}|(?=.*[A-Za-z])[A-Za-z0-9 &+_-]{1,11}")
"""A number in E.164, a short code, or an alphanumeric sender."""
_NO_ENVIRONMENT = {"TWILIO_REGION": ""}
"""For an empty one the package takes the process's, which may name another host."""


class _Carrier(AsyncHttpClient):  # type: ignore[misc]  # the package says no types
    """Carries one message over our transport; what becomes of it is raised through the package's client."""

    def __init__(self, transport: Transport, progress: Progress) -> None:
        super().__init__(getLogger(__name__), is_async=True)
        self._transport = transport
        self._progress = progress

    async def request(self, method: str, uri: str, **given: Any) -> Response:  # noqa: ARG002 - it is always a POST
        credentials = b64encode(":".join(given["auth"]).encode()).decode()
        await deliver(
            self._transport,
            TWILIO,
            url=uri,
            body=urlencode(given["data"]).encode(),
            headers={**given["headers"], "Authorization": f"Basic {credentials}"},
            progress=self._progress,
            otherwise="dead-letter",
        )
        return Response(201, "{}")  # it is accepted: no body may change that


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
        self._client().messages  # noqa: B018 - loads what the first message would wait for

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
        by = "messaging_service_sid" if _SERVICE.fullmatch(self._sender) else "from_"
        client = self._client(_Carrier(self._transport, progress))
        await client.messages.create_async(to=text.to, body=text.body, **{by: self._sender})

    def _client(self, carrier: AsyncHttpClient | None = None) -> Client:
        """The package's client for one message: making one takes 20 µs, and a shared one could not tell whose request it is."""
        client = Client(self._account_sid, self._auth_token, http_client=carrier, environment=_NO_ENVIRONMENT)
        client.api.base_url = self._base_url
        return client
