"""SendGrid and Twilio against a server that speaks their wire formats, and can fail in every way that matters."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import socket
import time
from base64 import b64decode
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from jsonschema import Draft4Validator, Draft202012Validator
from jsonschema.protocols import Validator
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

from usher.addresses import MailSender, TwilioSender
from usher.channels import Mail, ProviderRefused, SmsMessage
from usher.channels.mime import AUTO_SUBMITTED, encoded, neutral, one_line
from usher.channels.sendgrid import SendGrid, payload
from usher.channels.transport import Transport
from usher.channels.twilio import Twilio
from usher.context import SendState
from usher.outcome import Outcome, Reject, Retry, Unknown
from usher.testing.providers import DROP, HANG, RESET, FakeProviders, answer

SPECS = Path(__file__).parents[1] / "specs"
MAIL = Mail(
    to="noor.haddad@example.com",
    sender=MailSender("accounts@example.org", "Example Accounts"),
    subject="Your account",
    text="Grüße, Noor",
    html="<p>Grüße, Noor</p>",
    idempotency_key="welcome_email-0123456789abcdef",
    headers=(("X-Usher-Template", "welcome_email"),),
)
TEXT = SmsMessage(
    to="+447700900123", body="Your account is ready: £0 & more", idempotency_key="sms_notice-0123456789abcdef"
)


@dataclass
class Progress:
    """The progress that a delivery's message would get."""

    state: SendState = "new"
    provider_id: str = ""


@dataclass
class Wire:
    """A provider under test, the message it sends, and what it sends to."""

    provider: SendGrid | Twilio
    fake: FakeProviders
    otherwise: str

    async def send(self, progress: Progress) -> None:
        if isinstance(self.provider, SendGrid):
            await self.provider.send(MAIL, progress)
        else:
            await self.provider.send(TEXT, progress)


def provider(name: str, transport: Transport, fake: FakeProviders, url: str | None = None) -> SendGrid | Twilio:
    if name == "sendgrid":
        return SendGrid(transport, api_key=fake.sendgrid_api_key, base_url=url or fake.url)
    return Twilio(
        transport,
        account_sid=fake.twilio_account_sid,
        user=fake.twilio_account_sid,
        password=fake.twilio_auth_token,
        sender=TwilioSender(fake.twilio_from),
        base_url=url or fake.url,
    )


@pytest.fixture
async def fake() -> AsyncIterator[FakeProviders]:
    async with FakeProviders() as providers:
        yield providers


@pytest.fixture(params=["sendgrid", "twilio"])
async def wire(request: pytest.FixtureRequest, fake: FakeProviders) -> AsyncIterator[Wire]:
    async with Transport() as transport:
        otherwise = "resend" if request.param == "sendgrid" else "dead-letter"
        yield Wire(provider(request.param, transport, fake), fake, otherwise)


@pytest.fixture(params=["sendgrid", "twilio"])
async def impatient(request: pytest.FixtureRequest, fake: FakeProviders) -> AsyncIterator[Wire]:
    """The same with a transport that waits only a moment for an answer."""
    async with Transport(read=0.05) as transport:
        otherwise = "resend" if request.param == "sendgrid" else "dead-letter"
        yield Wire(provider(request.param, transport, fake), fake, otherwise)


async def test_an_accepted_message_is_sent_once(wire: Wire) -> None:
    """A 2xx is the end of it."""
    progress = Progress()

    await wire.send(progress)

    assert progress.state == "sent"
    assert len(wire.fake.accepted) == len(wire.fake.seen) == 1


async def test_an_accepted_message_is_known_by_the_id_that_the_provider_gave_it(wire: Wire) -> None:
    """Of two messages each has its own, by which the provider finds it again."""
    first, second = Progress(), Progress()

    await wire.send(first)
    await wire.send(second)

    assert [seen.id for seen in wire.fake.seen] == [first.provider_id, second.provider_id]
    assert first.provider_id != second.provider_id


@pytest.mark.parametrize(("body", "id_"), [(b"", ""), (b"[]", ""), (b'{"sid": 7}', ""), (b'{"sid": " SM1\\n"}', "SM1")])
async def test_an_acceptance_without_an_id_is_one(body: bytes, id_: str, wire: Wire) -> None:
    """What a provider forgets to say, or says oddly, makes nothing of its message undone."""
    wire.fake.script(answer(202, body=body))
    progress = Progress()

    await wire.send(progress)

    assert (progress.state, progress.provider_id) == ("sent", "" if isinstance(wire.provider, SendGrid) else id_)


async def test_connections_are_used_again(wire: Wire) -> None:
    """Whatever the answer, the pool gets its connection back: the second request does not connect anew."""
    wire.fake.script(answer(503))
    with pytest.raises(Retry):
        await wire.send(Progress())

    await wire.send(Progress())

    connector = wire.provider._transport.session.connector
    assert connector is not None
    assert sum(len(idle) for idle in connector._conns.values()) == 1


@pytest.mark.parametrize(
    ("status", "ending"),
    [(503, Retry), (500, Retry), (429, Retry), (400, Reject), (401, ProviderRefused), (302, ProviderRefused)],
)
async def test_each_answer_ends_as_its_table_says(wire: Wire, status: int, ending: type[Exception]) -> None:
    """One request, one answer, one ending; and the message is known not to have been taken."""
    wire.fake.script(answer(status, headers=[("Location", "/elsewhere")] if status == 302 else []))
    progress = Progress()

    with pytest.raises(ending, match=str(status)):
        await wire.send(progress)

    assert progress.state == "back"
    assert len(wire.fake.seen) == 1


async def test_retry_after_in_seconds(wire: Wire) -> None:
    """The wait that a 429 asks for is the retry's."""
    wire.fake.script(answer(429, headers=[("Retry-After", "37")]))

    with pytest.raises(Retry) as raised:
        await wire.send(Progress())

    assert raised.value.after == 37.0


async def test_retry_after_as_a_date(wire: Wire) -> None:
    """A date is as good as seconds."""
    at = datetime.now(UTC) + timedelta(seconds=90)
    wire.fake.script(answer(429, headers=[("Retry-After", format_datetime(at.replace(microsecond=0), usegmt=True))]))

    with pytest.raises(Retry) as raised:
        await wire.send(Progress())

    assert raised.value.after == pytest.approx(90, abs=5)


async def test_a_bad_answer_body_changes_nothing(wire: Wire) -> None:
    """A proxy's HTML page is sorted by its status."""
    wire.fake.script(answer(502, body=b"<html>bad gateway</html>", headers=[("Content-Type", "text/html")]))

    with pytest.raises(Retry, match="502"):
        await wire.send(Progress())


async def test_an_accepted_message_is_sent_whatever_the_body_says(wire: Wire) -> None:
    """A body that can't be read must not make it go out again."""
    wire.fake.script(answer(201, body=b"<html>accepted"))
    progress = Progress()

    await wire.send(progress)

    assert progress.state == "sent"


@pytest.mark.parametrize("fault", [RESET, DROP], ids=["reset", "accepted, then reset"])
async def test_a_lost_answer_is_unknown(wire: Wire, fault: Any) -> None:
    """Whether the provider took it or not, from here it looks the same; nothing is sent again behind the caller's back."""
    wire.fake.script(fault)
    progress = Progress()

    with pytest.raises(Unknown) as raised:
        await wire.send(progress)

    assert raised.value.otherwise == wire.otherwise
    assert progress.state == "left"
    assert len(wire.fake.seen) == 1


async def test_no_answer_in_time_is_unknown(impatient: Wire) -> None:
    """The request had left: a timeout says nothing about the message."""
    impatient.fake.script(HANG)
    progress = Progress()

    with pytest.raises(Unknown):
        await impatient.send(progress)

    assert progress.state == "left"


async def test_a_connection_that_is_used_again_and_lost_is_not_tried_again(wire: Wire) -> None:
    """HTTP clients like to repeat what a stale connection swallowed; a message may have gone out by it."""
    await wire.send(Progress())
    wire.fake.script(RESET)

    with pytest.raises(Unknown):
        await wire.send(Progress())

    assert len(wire.fake.seen) == 2


@pytest.mark.parametrize(("status", "ending"), [(b"202 Accepted", None), (b"503 Service Unavailable", Retry)])
async def test_the_status_is_the_answer_even_if_its_body_never_comes(
    fake: FakeProviders, status: bytes, ending: type[Exception] | None
) -> None:
    """Accepted is accepted, once the first line says so."""
    gone = asyncio.Event()

    async def stall(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 " + status + b"\r\nContent-Type: application/json\r\nContent-Length: 99\r\n\r\n{")
        await reader.read()
        writer.close()
        await writer.wait_closed()
        gone.set()

    server = await asyncio.start_server(stall, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    progress = Progress()
    async with Transport(read=0.5) as transport:
        sending = Wire(provider("sendgrid", transport, fake, url), fake, "").send(progress)
        if ending is None:
            await sending
        else:
            with pytest.raises(ending):
                await sending
    await gone.wait()
    server.close()
    await server.wait_closed()

    assert progress.state == ("sent" if ending is None else "back")


EARLY = b"HTTP/1.1 103 Early Hints\r\nLink: a\r\n\r\n"
ACCEPTED = b"HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n"


@pytest.mark.parametrize(
    ("interim", "again"),
    [(EARLY, True), (b"HTTP/1.1 100\r\n\r\n", True), (EARLY.replace(b"a", b"a" * 8000) * 10, False)],
    ids=["early hints", "bare", "ten long heads"],
)
async def test_interim_answers_have_an_end(fake: FakeProviders, interim: bytes, again: bool) -> None:
    """A provider that sends them for ever, or in bulk, is hung up on: the outcome is unknown, and little was read."""
    gone = asyncio.Event()

    async def hint(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            await reader.readuntil(b"\r\n\r\n")
            writer.write(interim)
            while again:
                writer.write(interim * 100)
                await writer.drain()
            await reader.read()
        writer.close()
        gone.set()

    server = await asyncio.start_server(hint, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with Transport() as transport:
        with pytest.raises(Unknown, match="TooManyInterimAnswers"):
            await Wire(provider("sendgrid", transport, fake, url), fake, "").send(Progress())
        await gone.wait()
    server.close()


@pytest.mark.parametrize(
    "answer",
    [EARLY * 20 + ACCEPTED, ACCEPTED.replace(b"\r\n", b"\r\nContent-Security-Policy: " + b"a" * 16_000 + b"\r\n", 1)],
    ids=["a few interim answers", "one long header"],
)
async def test_an_answer_with_an_honest_head_is_taken(fake: FakeProviders, answer: bytes) -> None:
    """What networks before a provider add to it costs no message its outcome. Each answer counts for itself: a connection is used again."""
    served = 0

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal served
        with contextlib.suppress(asyncio.IncompleteReadError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
                await reader.readexactly(int(length.split(b":")[1]))
                served += 1
                writer.write(answer)
        writer.close()

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with Transport() as transport:
        for _ in range(3):
            await Wire(provider("sendgrid", transport, fake, url), fake, "").send(Progress())
    server.close()

    assert served == 3


async def test_a_handlers_own_request_by_the_session_is_left_alone(fake: FakeProviders) -> None:
    """Whatever context it brings along for its own tracing."""
    async with (
        Transport() as transport,
        transport.session.get(f"{fake.url}/_/seen", trace_request_ctx=object()) as response,
    ):
        assert await response.json() == []


async def test_a_cancelled_request_has_left(wire: Wire) -> None:
    """The handler's timeout cancels: the message stays where it was, on its way."""
    wire.fake.script(HANG)
    progress = Progress()
    sending = asyncio.create_task(wire.send(progress))
    await wire.fake.wait_seen(1)

    sending.cancel()
    with pytest.raises(asyncio.CancelledError):
        await sending

    assert progress.state == "left"


@pytest.mark.parametrize("name", ["sendgrid", "twilio"])
async def test_who_can_not_be_reached_has_nothing(name: str, fake: FakeProviders) -> None:
    """A refused connection is a retry, and the message never left."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))  # bound and not listening: nobody else gets the port, and nobody answers
        url = f"http://127.0.0.1:{unused.getsockname()[1]}"
        async with Transport() as transport:
            progress = Progress()
            with pytest.raises(Retry, match="could not be reached"):
                await Wire(provider(name, transport, fake, url), fake, "").send(progress)

    assert progress.state == "new"


async def test_a_wrong_key_is_the_operators(fake: FakeProviders) -> None:
    """The fake checks credentials as the real ones do."""
    async with Transport() as transport:
        mail = SendGrid(transport, api_key="SG.another", base_url=fake.url)
        sms = Twilio(
            transport,
            account_sid=fake.twilio_account_sid,
            user=fake.twilio_account_sid,
            password="another",
            sender=TwilioSender(fake.twilio_from),
            base_url=fake.url,
        )
        with pytest.raises(ProviderRefused, match="USHER_SENDGRID__API_KEY"):
            await mail.send(MAIL, Progress())
        with pytest.raises(ProviderRefused, match=r"20003.*USHER_TWILIO__AUTH_TOKEN"):
            await sms.send(TEXT, Progress())


async def test_a_refused_recipient_is_rejected_until_it_is_not(wire: Wire) -> None:
    """The refusal names no recipient; lifted, the same message goes out."""
    recipient = MAIL.to if wire.otherwise == "resend" else TEXT.to
    wire.fake.refused.add(recipient)
    with pytest.raises(Reject, match="400") as raised:
        await wire.send(Progress())
    wire.fake.refused.clear()

    await wire.send(Progress())

    assert recipient.lstrip("+") not in str(raised.value)
    assert len(wire.fake.accepted) == 1


async def test_what_sendgrid_is_sent(fake: FakeProviders) -> None:
    """The payload is valid by SendGrid's schema (but for `custom_args`, which it has wrong), and is the mail."""
    async with Transport() as transport:
        await provider("sendgrid", transport, fake).send(MAIL, Progress())  # type: ignore[arg-type]

    (request,) = fake.accepted
    payload = dict(request.payload)
    assert payload.pop("custom_args") == {"usher_delivery": MAIL.idempotency_key}
    sendgrid_schema().validate(payload)
    assert payload["personalizations"] == [{"to": [{"email": MAIL.to}]}]
    assert payload["from"] == {"email": "accounts@example.org", "name": "Example Accounts"}
    assert [part["type"] for part in payload["content"]] == ["text/plain", "text/html"]
    assert payload["headers"] == {"Auto-Submitted": "auto-generated", "X-Usher-Template": "welcome_email"}
    assert payload["tracking_settings"]["click_tracking"]["enable"] is False
    assert request.headers["Authorization"] == f"Bearer {fake.sendgrid_api_key}"


def of_the_package(mail: Mail) -> Any:
    """The payload as SendGrid's own package makes it."""
    message = Payload(
        from_email=From(mail.sender.address, neutral(mail.sender.name) or None),
        subject=neutral(mail.subject),
        plain_text_content=mail.text,
        html_content=mail.html,
    )
    recipient = Personalization()
    recipient.add_to(To(mail.to))
    message.add_personalization(recipient)
    message.add_custom_arg(CustomArg("usher_delivery", mail.idempotency_key))
    for header, value in (AUTO_SUBMITTED, *mail.headers):
        message.add_header(Header(header, encoded(header, value).replace("\r\n", "")))
    message.tracking_settings = TrackingSettings(ClickTracking(False, False), OpenTracking(False))
    return message.get()


LINE = st.text(max_size=40).map(one_line)
ADDRESS = st.from_regex(r"[a-z0-9.+_'-]{1,12}@[a-zäö0-9-]{1,12}\.[a-z]{2,6}", fullmatch=True)
MAILS = st.builds(
    Mail,
    to=ADDRESS,
    sender=st.builds(MailSender, ADDRESS, LINE),
    subject=LINE,
    text=st.text(),
    html=st.none() | st.text(),
    idempotency_key=st.from_regex(r"[a-z_]{1,20}-[0-9a-f]{32}", fullmatch=True),
    headers=st.dictionaries(st.sampled_from(["List-Id", "X-Usher-Template"]), LINE).map(
        lambda given: tuple(given.items())
    ),
)


@given(mail=MAILS)
@example(mail=MAIL)
@example(mail=replace(MAIL, html="", sender=MailSender("accounts@example.org", "=?utf-8?q?Kim?=, Inc.")))
def test_the_payload_is_what_sendgrids_package_makes(mail: Mail) -> None:
    """Whatever the mail: the same document, and it survives the way as JSON."""
    assert json.loads(SendGrid(Transport(), api_key="k").prepare(mail)) == payload(mail) == of_the_package(mail)


@pytest.mark.parametrize(
    "change", [{"text": "SG.abc.def is it"}, {"html": "SG.abc.def"}, {"text": "a", "html": "SG.a.b"}]
)
def test_a_mail_that_begins_with_an_api_key_is_refused_as_the_package_refuses_it(change: dict[str, Any]) -> None:
    """Before any connection; the reason does not hold the key."""
    mail = replace(MAIL, **change)
    with pytest.raises(SendGridException):
        of_the_package(mail)
    with pytest.raises(Reject, match="API key of SendGrid") as raised:
        SendGrid(Transport(), api_key="k").prepare(mail)
    assert "SG." not in str(raised.value)


def test_half_a_character_is_refused() -> None:
    """No provider takes it: UTF-8 can't encode it."""
    with pytest.raises(Reject, match="can't be sent"):
        SendGrid(Transport(), api_key="k").prepare(replace(MAIL, text="\ud800"))


@pytest.mark.parametrize("sender", ["+15005550006", "MG" + "0a" * 16])
async def test_what_twilio_is_sent(fake: FakeProviders, sender: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The form is valid by Twilio's schema, the number is E.164, and a messaging service stands in its own field.

    The package builds the request, and its own variables in the environment do not send it to another host.
    """
    monkeypatch.setenv("TWILIO_REGION", "au1")
    monkeypatch.setenv("TWILIO_EDGE", "sydney")
    async with Transport() as transport:
        twilio = Twilio(
            transport,
            account_sid=fake.twilio_account_sid,
            user=fake.twilio_account_sid,
            password=fake.twilio_auth_token,
            sender=TwilioSender(sender),
            base_url=fake.url,
        )
        await twilio.send(TEXT, Progress())

    (request,) = fake.accepted
    twilio_schema().validate(dict(request.payload))
    field = "MessagingServiceSid" if sender.startswith("MG") else "From"
    assert request.payload == {"To": "+447700900123", field: sender, "Body": TEXT.body}
    assert b"To=%2B447700900123" in request.body
    assert request.headers["User-Agent"].startswith("twilio-python/")


async def test_twilio_takes_an_api_key_in_place_of_the_auth_token(fake: FakeProviders) -> None:
    """The key logs in, and the account stays in the path."""
    async with Transport() as transport:
        twilio = Twilio(
            transport,
            account_sid=fake.twilio_account_sid,
            user=fake.twilio_api_key,
            password=fake.twilio_api_key_secret,
            sender=TwilioSender(fake.twilio_from),
            base_url=fake.url,
        )
        await twilio.send(TEXT, Progress())

    (request,) = fake.accepted
    assert b64decode(request.headers["Authorization"].split()[1]).decode().startswith("SK")


@pytest.mark.parametrize(
    ("left", "least", "most"), [(600, 590, 600), (90_000, 36_000, 36_000), (0.5, 1, 1), (-5, 1, 1)]
)
async def test_an_sms_waits_at_twilio_no_longer_than_it_is_of_use(
    fake: FakeProviders, left: float, least: int, most: int
) -> None:
    """What is left until it expires, within what Twilio takes; the form stays valid by its schema."""
    async with Transport() as transport:
        sms = provider("twilio", transport, fake)
        await sms.send(replace(TEXT, expires_at=time.time() + left), Progress())  # type: ignore[arg-type]

    (request,) = fake.accepted
    period = int(request.payload["ValidityPeriod"])
    twilio_schema().validate({**request.payload, "ValidityPeriod": period})
    assert least <= period <= most


async def test_what_twilio_answers_is_its_resource(fake: FakeProviders) -> None:
    """The fake's 201 is valid by the schema of the real one."""
    async with Transport() as transport:
        await provider("twilio", transport, fake).send(TEXT, Progress())  # type: ignore[arg-type]
        async with transport.session.post(
            f"{fake.url}/2010-04-01/Accounts/{fake.twilio_account_sid}/Messages.json",
            data=fake.accepted[0].body,
            headers={**fake.accepted[0].headers},
        ) as response:
            document = await response.json()

    assert response.status == 201
    spec = json.loads((SPECS / "twilio_create_message.json").read_text())
    resource = spec["components"]["schemas"]["api.v2010.account.message"]
    Draft4Validator({**_nullable(resource), "components": _nullable(spec["components"])}).validate(document)


@pytest.mark.parametrize(
    "mail",
    [
        replace(MAIL, to="a@example.com, b@example.com"),
        replace(MAIL, subject="Hello\r\nBcc: b@example.com"),
        replace(MAIL, headers=(("Bcc", "b@example.com"),)),
        replace(MAIL, headers=(("X-A\r\nBcc", "b@example.com"),)),
        replace(MAIL, text="SG.abcdefgh.ijklmnop is the key"),
    ],
    ids=["two recipients", "subject", "reserved header", "header name", "a key in the text"],
)
async def test_what_is_not_one_mail_is_rejected_before_any_request(fake: FakeProviders, mail: Mail) -> None:
    """No template and no event can add a recipient or a header, or send a key out."""
    progress = Progress()
    async with Transport() as transport:
        with pytest.raises(Reject, match="can't be sent"):
            await SendGrid(transport, api_key="k", base_url=fake.url).send(mail, progress)

    assert progress.state == "new"
    assert fake.seen == []


async def test_nothing_personal_and_no_secret_is_logged(wire: Wire, caplog: pytest.LogCaptureFixture) -> None:
    """At DEBUG, of every library, through success and failures: no key, no token, no recipient."""
    caplog.set_level(logging.DEBUG)
    wire.fake.script(answer(503), answer(400), answer(401), RESET)

    for _ in range(5):
        try:
            await wire.send(Progress())
        except (Outcome, ProviderRefused) as error:
            logging.getLogger("a handler").debug("failed", exc_info=error)

    for secret in (wire.fake.sendgrid_api_key, wire.fake.twilio_auth_token, MAIL.to, TEXT.to, TEXT.to[1:], TEXT.body):
        assert secret not in caplog.text
    assert wire.fake.accepted


def sendgrid_schema() -> Validator:
    """SendGrid's own schema of the request, closed at the top: a misspelt field is an error."""
    spec = json.loads((SPECS / "sendgrid_mail_send.json").read_text())
    schema = spec["components"]["requestBodies"]["PostMailSend"]["content"]["application/json"]["schema"]
    return Draft202012Validator({**schema, "additionalProperties": False, "components": spec["components"]})


def twilio_schema() -> Validator:
    spec = json.loads((SPECS / "twilio_create_message.json").read_text())
    operation = spec["paths"]["/2010-04-01/Accounts/{AccountSid}/Messages.json"]["post"]
    schema = operation["requestBody"]["content"]["application/x-www-form-urlencoded"]["schema"]
    return Draft4Validator({**schema, "additionalProperties": False, "components": spec["components"]})


def _nullable(schema: Any) -> Any:
    """OpenAPI 3.0's ``nullable`` in the words of JSON Schema."""
    if isinstance(schema, list):
        return [_nullable(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    said = {key: _nullable(value) for key, value in schema.items()}
    return {"anyOf": [{"type": "null"}, said]} if schema.get("nullable") is True else said
