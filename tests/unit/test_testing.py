"""`usher.testing`: what a handler's own tests stand on behaves as the service does."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import pydantic
import pytest

from usher import Context, Event, Reject, Retry, RetryPolicy, Skip, on
from usher.event_types import CANONICAL_TYPES
from usher.outcome import Hold, Unknown
from usher.systems.decode import decode
from usher.testing import Clock, RecordingEmail, an_event, raw_event, run
from usher_handlers.welcome_email import welcome_email


async def test_a_handlers_test_is_five_lines() -> None:
    """As the README shows it."""
    result = await run(welcome_email, an_event(email="kim.berg@example.com"))

    assert result.outcome == "done"
    assert result.emails[0].to == "kim.berg@example.com"


@pytest.mark.parametrize("type_", [*CANONICAL_TYPES, "user.deleted"])
def test_an_event_is_what_the_source_would_make_of_its_bytes(type_: str) -> None:
    """Canonical types keep their names through the wire."""
    event = an_event(type_, username="kim.b", phone="+12025550123", triggered_by="portal", language="de", tenant="shop")

    assert (event.type, event.source, event.tenant) == (type_, "authgear", "shop")
    assert (event.user.email, event.user.phone, event.user.name) == ("kim.berg@example.com", "+12025550123", "Kim Berg")
    assert event.user.username == "kim.b"
    assert (event.context.triggered_by, event.languages) == ("portal", ("de",))


def test_events_differ_and_users_do_not() -> None:
    """Each event has an id of its own; who has the same addresses is the same user."""
    one, two, other = an_event(), an_event(), an_event(email="jo@example.com")

    assert one.id != two.id
    assert one.user.id == two.user.id == one.context.user_id
    assert other.user.id != one.user.id


def test_an_event_can_lack_things() -> None:
    """As real ones do."""
    event = an_event(email=None, triggered_by=None, language=None)

    assert (event.user.email, event.context.triggered_by, event.languages) == (None, "unknown", ())


def test_overrides_are_laid_over_the_document() -> None:
    """Within context and payload, and beside them."""
    event = decode(raw_event(id="7", seq=7, context={"ip_address": "192.0.2.1"}, payload={"note": "x"}, extra=1))

    assert (event.id, event.seq, event.payload["note"], event.user.email) == ("7", 7, "x", "kim.berg@example.com")
    assert json.loads(raw_event(timestamp=5))["context"]["timestamp"] == 5
    assert event.model_extra == {"extra": 1}


def test_a_clock_moves_only_when_asked() -> None:
    """And not otherwise."""
    clock = Clock(100)
    clock.advance("1m")
    assert clock() == 160
    clock.set(datetime(2026, 1, 1, tzinfo=UTC))
    assert clock() == clock() == 1767225600
    assert Clock()() > 1767225600


@pytest.mark.parametrize(
    ("raised", "outcome", "dead", "retry_in"),
    [
        (None, "done", True, None),
        (Skip("nothing"), "skipped", True, None),
        (Retry("later"), "retry", False, 10.0),
        (Retry("later", after="5m"), "retry", False, 300.0),
        (Reject("never"), "rejected", True, None),
        (Hold("paused", after=60), "held", False, 60.0),
        (Unknown("no answer", otherwise="resend"), "unknown", False, 10.0),
        (Unknown("no answer", otherwise="dead-letter"), "unknown", True, None),
        (RuntimeError("oops, kim@example.com"), "failed", False, 10.0),
        (TimeoutError(), "failed", False, 10.0),
    ],
)
async def test_run_reads_the_ending_as_the_engine_does(
    raised: Exception | None, outcome: str, dead: bool, retry_in: float | None
) -> None:
    """Outcome, and what follows; reasons are scrubbed, the error itself is there to look at."""

    @on("user.created")
    async def probe(event: Event, ctx: Context) -> None:
        ctx.logger.info("probed", attempt_seen=ctx.attempt)
        if raised is not None:
            raise raised

    result = await run(probe, an_event())

    assert (result.outcome, result.retry_in, result.error) == (outcome, retry_in, raised)
    assert result.dead is (dead and outcome not in {"done", "skipped"})
    assert "kim@" not in result.reason
    assert (result.logs[0]["event"], result.logs[0]["handler"]) == ("probed", "probe")


async def test_the_last_attempt_is_the_last() -> None:
    """By the handler's policy, or the one that is given."""

    @on("user.created", retry=RetryPolicy(delays=("1s", "2s")))
    async def flaky(event: Event, ctx: Context) -> None:
        raise Retry(f"attempt {ctx.attempt}")

    assert [(await run(flaky, an_event(), attempt=n)).retry_in for n in (1, 2, 3)] == [1.0, 2.0, None]
    assert (await run(flaky, an_event(), attempt=3)).dead


async def test_a_handler_that_hangs_times_out() -> None:
    """After its own timeout, and that is a failure like any other."""

    @on("user.created", timeout="10ms")
    async def stuck(event: Event, ctx: Context) -> None:
        await asyncio.Event().wait()

    result = await run(stuck, an_event())

    assert (result.outcome, result.reason) == ("failed", "stuck took longer than its 0.01 s")


async def test_an_old_event_has_expired() -> None:
    """As in the service: nothing is sent any more."""
    result = await run(welcome_email, an_event(timestamp=1_700_000_000), now=1_700_000_000 + 25 * 3600)

    assert (result.outcome, result.dead, result.emails) == ("expired", True, [])


async def test_recording_channels_fail_in_turn() -> None:
    """And then accept; what was asked and what was sent are kept apart."""
    email = RecordingEmail(Retry("busy", after="30s"), None, Reject("no such mailbox"))

    outcomes = [(await run(welcome_email, an_event(), email=email)).outcome for _ in range(4)]

    assert outcomes == ["retry", "done", "rejected", "done"]
    assert (len(email.asked), len(email.sent)) == (4, 2)


async def test_a_folder_of_templates_that_is_missing_is_a_mistake(tmp_path: Path) -> None:
    """A misspelt path must not look like templates that change nothing."""
    with pytest.raises(ValueError, match=r"templates='.*nowhere' should be a folder"):
        await run(welcome_email, an_event(), templates=tmp_path / "nowhere")


async def test_settings_are_the_handlers_own_model() -> None:
    """Its defaults, fields for it, or an instance; a wrong field is an error of the test."""

    class Mood(pydantic.BaseModel):
        mood: Literal["good", "bad"] = "good"

    @on("user.created", settings=Mood)
    async def greeter(event: Event, ctx: Context) -> None:
        raise Skip(ctx.settings.mood)

    assert (await run(greeter, an_event())).reason == "good"
    assert (await run(greeter, an_event(), settings={"mood": "bad"})).reason == "bad"
    assert (await run(greeter, an_event(), settings=Mood(mood="bad"))).reason == "bad"
    with pytest.raises(pydantic.ValidationError):
        await run(greeter, an_event(), settings={"mood": "so-so"})
