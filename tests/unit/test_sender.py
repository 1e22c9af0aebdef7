"""The Post: who is written to, what the provider is given, and what the log says of it."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path
from typing import Any, cast

import pytest
import structlog
from structlog.testing import LogCapture

from usher import Event, Reject, Retry, RetryPolicy, Skip, User, on
from usher.addresses import MailSender
from usher.channels import Mail, Progress, SmsMessage
from usher.channels.breaker import CircuitBreaker
from usher.channels.sender import MessageSender
from usher.channels.templates import Brand, Templates
from usher.context import Context, message_of
from usher.delivery import Delivery, Origin, Replay
from usher.engine.attempt import Attempts
from usher.engine.lanes import InFlight
from usher.handler import Router
from usher.metrics import Metrics
from usher.outcome import Hold, NoAddress
from usher.testing import RecordingEmail, RecordingSms, an_event


@pytest.fixture
def templates(tmp_path: Path) -> Templates:
    """One template, for both channels."""
    (tmp_path / "hi").mkdir()
    (tmp_path / "hi/en.txt").write_text("Subject: Hi {{ name }}\n\nTo {{ email }}")
    (tmp_path / "hi/en.html").write_text("<p>To {{ email }}</p>")
    (tmp_path / "hi/en.sms").write_text("To {{ phone }}")
    return Templates([tmp_path], brand=Brand())


def state_of(ctx: Context) -> str | None:
    """How far the message of *ctx* has come."""
    message = message_of(ctx)
    return None if message is None else message.state


class Desk:
    """A Post with recording providers, and contexts that send through it."""

    def __init__(self, templates: Templates, email: Any = None, sms: Any = None) -> None:
        self.email = email or RecordingEmail()
        self.sms = sms or RecordingSms()
        self.lines = LogCapture()
        self.post = MessageSender(
            templates, sender=MailSender("no-reply@example.com", "Example"), email=self.email, sms=self.sms
        )

    def context(self, event: Event | None = None) -> Context:
        log = structlog.wrap_logger(
            None, processors=[self.lines], wrapper_class=structlog.make_filtering_bound_logger(0)
        )
        http: Any = None
        return Context(event or an_event(), "hi", 1, sender=self.post, base_logger=log, http=http)


async def test_a_mail_is_handed_to_the_provider_whole(templates: Templates) -> None:
    """Address, sender, both bodies, and the key of the delivery."""
    desk, event = Desk(templates), an_event(email="Kim.Berg@EXAMPLE.com")
    ctx = desk.context(event)

    await ctx.email("hi", to=event.user, name="Kim")

    assert desk.email.sent == [
        Mail(
            to="Kim.Berg@example.com",
            sender=MailSender("no-reply@example.com", "Example"),
            subject="Hi Kim",
            text="To Kim.Berg@example.com\n",
            html="<p>To Kim.Berg@example.com</p>",
            idempotency_key=ctx.idempotency_key,
        )
    ]
    assert state_of(ctx) == "sent"


async def test_an_sms_is_handed_to_the_provider_whole(templates: Templates) -> None:
    """The number is E.164, however the event writes it."""
    desk, event = Desk(templates), an_event(email=None, phone="+1 (202) 555-0123")
    ctx = desk.context(event)

    await ctx.sms("hi", to=event.user)

    assert desk.sms.sent == [SmsMessage("+12025550123", "To +12025550123", ctx.idempotency_key)]


@pytest.mark.parametrize(("even_expired", "known"), [(False, True), (True, False)])
async def test_what_is_sent_although_it_has_expired_has_no_limit(
    templates: Templates, even_expired: bool, known: bool
) -> None:
    """An operator who replays it all the same does not want the provider to drop it."""
    sms, now = RecordingSms(), 1_750_000_000.0

    @on("user.created", expires_after="1h")
    async def hi(event: Event, ctx: Context) -> None:
        await ctx.sms("hi", to=event.user)

    event = an_event(phone="+12025550123", timestamp=now - (7200 if even_expired else 60))
    attempts = Attempts(
        router=Router([hi], ["admin_api"]), http=cast("Any", None), settings={}, policy=RetryPolicy(), metrics=Metrics(),
        sender=MessageSender(templates, sender=MailSender("no-reply@example.com"), email=RecordingEmail(), sms=sms),
        logger=structlog.get_logger(), now=lambda: now, rng=random.Random(0),
    )  # fmt: skip
    delivery = Delivery(
        "hi",
        event.uid,
        "lane",
        Origin("t", 0, 0, int(now * 1000), None),
        value=b"",
        replay=Replay("r", "0@0", 1, even_expired),
    )

    await attempts.make(InFlight(delivery, event))

    assert [text.expires_at is not None for text in sms.sent] == [known]


async def test_a_handler_may_name_another_address(templates: Templates) -> None:
    """The address written to is the one that the template sees."""
    desk = Desk(templates)

    await desk.context().email("hi", to="office@example.com", name="Kim")
    await desk.context().sms("hi", to="+12025550124")

    assert desk.email.sent[0].text == "To office@example.com\n"
    assert desk.sms.sent[0].body == "To +12025550124"


@pytest.mark.parametrize("to", [User(), User(email="  "), "", None])
async def test_no_address_is_a_skip(templates: Templates, to: Any) -> None:
    """A kind of its own, so that it is counted apart; the provider is not asked."""
    desk = Desk(templates)

    with pytest.raises(NoAddress, match="no email address") as caught:
        await desk.context().email("hi", to=to)
    with pytest.raises(NoAddress, match="no phone number"):
        await desk.context().sms("hi", to=to)

    assert isinstance(caught.value, Skip)
    assert (desk.email.asked, desk.sms.asked) == ([], [])


async def test_an_address_that_can_not_be_one_is_rejected_before_any_request(templates: Templates) -> None:
    """No provider hears of it, no retry is made."""
    desk = Desk(templates)

    with pytest.raises(Reject, match="email address is not valid"):
        await desk.context().email("hi", to="kim at example.com", name="Kim")
    with pytest.raises(Reject, match="wrong length"):
        await desk.context().sms("hi", to="+1202")

    assert (desk.email.asked, desk.sms.asked) == ([], [])


async def test_a_template_that_fails_is_rejected_before_any_request(templates: Templates) -> None:
    """Here the handler has not given the name."""
    desk = Desk(templates)

    with pytest.raises(Reject, match=r"template hi/en.txt line 1: 'name' is undefined"):
        await desk.context().email("hi", to="kim@example.com")

    assert desk.email.asked == []


async def test_the_log_says_that_a_message_was_sent_and_names_nobody(templates: Templates) -> None:
    """One line at info, with what the delivery's log is bound to; segments for an SMS."""
    desk, event = Desk(templates), an_event(id="e1", email="kim.berg@example.com", phone="+12025550123")

    await desk.context(event).email("hi", to=event.user, name="Kim Berg")
    await desk.context(event).sms("hi", to=event.user)

    common = {
        "event": "message sent", "log_level": "info", "event_id": "e1", "handler": "hi", "attempt": 1,
        "provider": "recording", "provider_id": "", "template": "hi", "language": "en",
    }  # fmt: skip
    assert desk.lines.entries == [{**common, "channel": "email"}, {**common, "channel": "sms", "segments": 1}]


async def test_what_the_provider_says_reaches_the_handler(templates: Templates) -> None:
    """And nothing is said to have been sent."""
    desk = Desk(templates, email=RecordingEmail(Retry("busy", after=30)))
    ctx = desk.context()

    with pytest.raises(Retry, match="busy"):
        await ctx.email("hi", to="kim@example.com", name="Kim")

    assert (state_of(ctx), desk.lines.entries) == ("back", [])


async def test_a_message_that_was_accepted_counts_as_sent(templates: Templates) -> None:
    """Also where a provider forgets to say so: or it would go out again."""

    class Forgetful(RecordingEmail):
        async def send(self, message: Mail, progress: Progress, /) -> None:
            self.sent.append(message)

    ctx = Desk(templates, email=Forgetful()).context()
    await ctx.email("hi", to="kim@example.com", name="Kim")

    assert state_of(ctx) == "sent"


async def test_a_gate_is_a_provider(templates: Templates) -> None:
    """Behind a closed one messages are held."""
    provider = RecordingEmail(*[Retry("down") for _ in range(10)])
    desk = Desk(templates, email=CircuitBreaker(provider, "email", Metrics(), 1, clock=lambda: 0.0))

    for _ in range(10):
        with pytest.raises(Retry):
            await desk.context().email("hi", to="kim@example.com", name="Kim")
    with pytest.raises(Hold, match="email is paused"):
        await desk.context().email("hi", to="kim@example.com", name="Kim")

    assert len(provider.asked) == 10


async def test_a_message_that_waits_for_its_turn_does_not_time_out(templates: Templates) -> None:
    """With more messages than turns, the timeout of each begins when its turn comes."""

    class Slow(RecordingEmail):
        begun, go_on = asyncio.Event(), asyncio.Event()

        async def send(self, mail: Mail, progress: Progress, /) -> None:
            self.begun.set()
            await self.go_on.wait()
            await super().send(mail, progress)

    class Stopwatch:
        def __init__(self) -> None:
            self.running = True

        def stop(self) -> None:
            self.running = False

        def start(self) -> None:
            self.running = True

    slow = Slow()
    post = MessageSender(
        templates, sender=MailSender("no-reply@example.com"), email=slow, sms=RecordingSms(), at_once=1
    )
    log = structlog.get_logger()
    nobody: Any = None
    contexts = [
        Context(an_event(id=str(number)), "hi", 1, sender=post, base_logger=log, http=nobody) for number in range(3)
    ]
    watches = [Stopwatch() for _ in contexts]
    for ctx, watch in zip(contexts, watches, strict=True):
        ctx._clock = watch
    sending = [asyncio.create_task(ctx.email("hi", to="kim@example.com", name="Kim")) for ctx in contexts]
    async with asyncio.timeout(5):
        await slow.begun.wait()

    assert [watch.running for watch in watches] == [True, False, False]
    slow.go_on.set()
    await asyncio.gather(*sending)
    assert len(slow.sent) == 3
    assert all(watch.running for watch in watches)
