"""SMS by Twilio's Messages resource: the package builds the request, our own session carries it.

The package's own carrier would send a 500 again by itself, and drops the headers of an answer, so that the wait it asks
for is lost.
"""

from __future__ import annotations

import time
from base64 import b64encode
from logging import getLogger
from typing import Any
from urllib.parse import urlencode

from twilio.http import AsyncHttpClient
from twilio.http.response import Response
from twilio.rest import Client

from usher.addresses import TwilioSender
from usher.channels import PROVIDER_ID, Progress, SmsMessage
from usher.channels.answers import TWILIO
from usher.channels.mime import one_line
from usher.channels.transport import Transport, deliver
from usher.http import Answer

BASE_URL = "https://api.twilio.com"
_SHORTEST, _LONGEST = 1, 36_000
"""Seconds that Twilio takes for how long a message may wait in its queue."""
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
        answer = await deliver(
            self._transport,
            TWILIO,
            url=uri,
            body=urlencode(given["data"]).encode(),
            headers={**given["headers"], "Authorization": f"Basic {credentials}"},
            progress=self._progress,
            otherwise="dead-letter",
        )
        self._progress.provider_id = _sid(answer)
        return Response(201, "{}")  # it is accepted: no body may change that


def _sid(answer: Answer) -> str:
    """Return the id that Twilio gave the message; empty where its answer has none."""
    sid = answer.document.get("sid") if isinstance(answer.document, dict) else None
    return one_line(sid)[:PROVIDER_ID] if isinstance(sid, str) else ""


class Twilio:
    """An `Sms`. *user* and *password* log in: an API key and its secret, or the account and its auth token."""

    name = "twilio"

    def __init__(
        self,
        transport: Transport,
        *,
        account_sid: str,
        user: str,
        password: str,
        sender: TwilioSender,
        base_url: str = BASE_URL,
    ) -> None:
        self._transport = transport
        self._account_sid = account_sid
        self._login = user, password
        self._sender = sender
        self._base_url = base_url
        self._client().messages  # noqa: B018 - loads what the first message would wait for

    async def send(self, text: SmsMessage, progress: Progress) -> None:
        by = "messaging_service_sid" if self._sender.is_service else "from_"
        given: dict[str, Any] = {by: self._sender.text}
        if text.expires_at is not None:
            given["validity_period"] = max(_SHORTEST, min(int(text.expires_at - time.time()), _LONGEST))
        client = self._client(_Carrier(self._transport, progress))
        await client.messages.create_async(to=text.to, body=text.body, **given)

    def _client(self, carrier: AsyncHttpClient | None = None) -> Client:
        """The package's client for one message: making one takes 20 µs, and a shared one would not know which message a request is of."""
        client = Client(*self._login, self._account_sid, http_client=carrier, environment=_NO_ENVIRONMENT)
        client.api.base_url = self._base_url
        return client
