"""The circuit breaker in front of a provider: when it pauses, what probes, what is logged, and that no attempt is burnt."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

import pytest
from structlog.testing import capture_logs

from usher.addresses import MailSender
from usher.channels import Mail, Progress, ProviderRefused
from usher.channels.breaker import CircuitBreaker
from usher.channels.sendgrid import SendGrid
from usher.channels.transport import Transport
from usher.context import SendState
from usher.metrics import Metrics
from usher.outcome import Hold, Reject, Retry, Unknown
from usher.testing.providers import FakeProviders, answer

DOWN, BAD_KEY, REFUSED = Retry("503"), ProviderRefused("sendgrid answered 401: no credits"), Reject("400")
MAIL = Mail("noor@example.com", MailSender("accounts@example.org"), "Hello", "Hello", None, "welcome_email-0")


@dataclass
class State:
    state: SendState = "new"
    provider_id: str = ""


@dataclass
class Clock:
    now: float = 1000.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Provider:
    """Ends as the test says, then well; *asked* counts. With *entered* and *leave*, it waits to be let go."""

    name: str = "fake"
    endings: list[Exception | None] = field(default_factory=list)
    asked: int = 0
    entered: asyncio.Event = field(default_factory=asyncio.Event)
    leave: asyncio.Event | None = None

    async def send(self, message: Mail, progress: Progress, /) -> None:
        self.asked += 1
        self.entered.set()
        if self.leave is not None:
            await self.leave.wait()
        if self.endings and (ending := self.endings.pop(0)) is not None:
            raise ending


class Bench:
    """A breaker with its provider, clock and metrics."""

    def __init__(self, endings: Iterable[Exception | None] = ()) -> None:
        self.provider = Provider(endings=list(endings))
        self.clock = Clock()
        self.metrics = Metrics()
        self.breaker: CircuitBreaker[Mail] = CircuitBreaker(self.provider, "email", self.metrics, 100, self.clock)

    async def send(self, message: Mail = MAIL) -> Exception | None:
        try:
            await self.breaker.send(message, State())
        except (Hold, Retry, Reject, Unknown) as error:
            return error
        return None

    def sample(self, name: str, **labels: str) -> float | None:
        return self.metrics.registry.get_sample_value(name, labels)

    def paused(self, reason: str) -> float | None:
        return self.sample("usher_channel_paused", channel="email", reason=reason)


async def test_an_operators_answer_pauses_and_holds_that_very_delivery() -> None:
    """The delivery is held, not failed; the next ones are not even tried; the log says once what to do."""
    bench = Bench([BAD_KEY])
    with capture_logs() as lines:
        first, second = await bench.send(), await bench.send()

    assert isinstance(first, Hold)
    assert "no credits" in str(first)
    assert first.after == 60.0
    assert isinstance(second, Hold)
    assert bench.provider.asked == 1
    assert bench.paused("provider-refused") == 1.0
    (line,) = lines
    assert (line["log_level"], line["event"], line["channel"]) == ("error", "channel paused", "email")
    assert "no credits" in line["said"]
    assert "mend" in line["hint"]


async def test_one_delivery_a_minute_probes_and_the_first_success_resumes() -> None:
    """A probe that fails leaves it paused for another minute; one that is sent ends the pause for all."""
    bench = Bench([BAD_KEY, BAD_KEY])
    await bench.send()
    bench.clock.now += 60
    with capture_logs() as lines:
        assert isinstance(failed := await bench.send(), Hold)
        assert isinstance(await bench.send(), Hold)
        asked = bench.provider.asked
        bench.clock.now += 60
        probed, after = await bench.send(), await bench.send()

    assert failed.after == 60.0
    assert asked == 2
    assert (probed, after) == (None, None)
    assert bench.paused("provider-refused") == 0.0
    assert [line["event"] for line in lines] == ["channel resumed"]


@pytest.mark.parametrize("ending", [DOWN, REFUSED])
async def test_only_success_ends_an_operators_pause(ending: Exception) -> None:
    """Another failure says nothing about credentials and quota."""
    bench = Bench([BAD_KEY, ending])
    await bench.send()
    bench.clock.now += 60

    probe = await bench.send()

    assert type(probe) is type(ending)
    assert bench.paused("provider-refused") == 1.0


@pytest.mark.parametrize("failure", [DOWN, Unknown("no answer", otherwise="resend")])
async def test_ten_failures_in_a_row_open_the_circuit(failure: Exception) -> None:
    """Not nine, and not ten with an answer in between; the tenth itself ends as it did."""
    bench = Bench([*[failure] * 9, None, *[failure] * 9, REFUSED, *[failure] * 10])
    for _ in range(29):
        await bench.send()
    assert bench.paused("circuit") == 0.0

    tenth = await bench.send()
    held = await bench.send()

    assert type(tenth) is type(failure)
    assert isinstance(held, Hold)
    assert 0 < held.after <= 5.0
    assert bench.paused("circuit") == 1.0


@pytest.mark.parametrize("ending", [None, REFUSED])
async def test_a_circuit_closes_at_the_first_probe_that_is_answered(ending: Exception | None) -> None:
    """A provider that refuses one message is up again."""
    bench = Bench([*[DOWN] * 10, DOWN, ending])
    for _ in range(10):
        await bench.send()
    bench.clock.now += 5
    assert isinstance(await bench.send(), Retry)
    assert isinstance(await bench.send(), Hold)
    bench.clock.now += 5

    await bench.send()

    assert bench.paused("circuit") == 0.0


async def test_an_operators_answer_to_a_circuits_probe_changes_the_reason() -> None:
    """There is one pause at a time."""
    bench = Bench([*[DOWN] * 10, BAD_KEY])
    for _ in range(10):
        await bench.send()
    bench.clock.now += 5

    held = await bench.send()

    assert isinstance(held, Hold)
    assert held.after == 60.0
    assert (bench.paused("circuit"), bench.paused("provider-refused")) == (0.0, 1.0)


async def test_one_probe_at_a_time_and_a_cancelled_one_frees_the_place() -> None:
    """While a probe is under way the others are held; a handler's timeout does not pause it for good."""
    bench = Bench([BAD_KEY])
    await bench.send()
    bench.clock.now += 60
    bench.provider.leave = asyncio.Event()
    bench.provider.entered.clear()
    probe = asyncio.create_task(bench.send())
    await bench.provider.entered.wait()
    bench.clock.now += 60
    assert isinstance(await bench.send(), Hold)

    probe.cancel()
    with pytest.raises(asyncio.CancelledError):
        await probe
    bench.provider.leave.set()

    assert await bench.send() is None
    assert bench.paused("provider-refused") == 0.0


async def test_what_was_under_way_does_not_open_the_gate() -> None:
    """A success of a request from before the pause is news of the time before."""
    bench = Bench([None, BAD_KEY])
    bench.provider.leave = asyncio.Event()
    early, failing = asyncio.create_task(bench.send()), asyncio.create_task(bench.send())
    await bench.provider.entered.wait()
    bench.provider.endings = [BAD_KEY, None]
    bench.provider.leave.set()

    results = [await early, await failing]

    assert [type(result) for result in results] == [Hold, type(None)]
    assert bench.paused("provider-refused") == 1.0


async def test_failures_of_what_was_under_way_do_not_close_the_gate_again() -> None:
    """All that was sent at once when the provider broke down may time out after it is up again: the circuit stays closed."""
    bench = Bench()
    bench.provider.leave = leave = asyncio.Event()
    stuck = [asyncio.create_task(bench.send()) for _ in range(10)]
    await bench.provider.entered.wait()
    bench.provider.leave = None
    bench.clock.now += 1
    bench.provider.endings = [DOWN] * 10
    for _ in range(10):
        await bench.send()
    bench.clock.now += 5
    assert await bench.send() is None

    bench.provider.endings = [DOWN] * 10
    leave.set()
    await asyncio.gather(*stuck)

    assert bench.provider.endings == []
    assert bench.paused("circuit") == 0.0


async def test_a_thousand_that_are_held_do_not_come_back_at_once() -> None:
    """They are spread, in the order in which they came, and none waits for more than minutes beyond the probe."""
    bench = Bench([BAD_KEY])
    await bench.send()

    holds = [await bench.send() for _ in range(10_000)]

    waits = [hold.after for hold in holds if isinstance(hold, Hold)]
    assert len(waits) == 10_000
    assert waits == sorted(waits)
    assert waits[0] < 61.0
    assert 300.0 < waits[-1] <= 360.0
    assert max(sum(1 for wait in waits[:5000] if second <= wait < second + 1) for second in range(60, 320)) <= 21


async def test_each_answer_is_timed_under_its_name() -> None:
    """By provider and outcome; what is held asked nobody, and is not timed."""
    bench = Bench([None, DOWN, REFUSED, Unknown("?", otherwise="dead-letter"), BAD_KEY])
    for _ in range(6):
        await bench.send()

    counts = {
        outcome: bench.sample("usher_send_seconds_count", provider="fake", outcome=outcome)
        for outcome in ("done", "transient", "permanent", "unknown", "provider-refused")
    }
    assert set(counts.values()) == {1.0}


async def test_a_key_that_is_mended_at_the_provider_needs_nothing_here() -> None:
    """From a real 401 to the mail, through the wire, without a restart."""
    clock, state = Clock(), State()
    async with FakeProviders() as fake, Transport() as transport:
        breaker: CircuitBreaker[Mail] = CircuitBreaker(
            SendGrid(transport, api_key=fake.sendgrid_api_key, base_url=fake.url), "email", Metrics(), 100, clock
        )
        fake.script(answer(401))
        with pytest.raises(Hold):
            await breaker.send(MAIL, State())
        with pytest.raises(Hold):
            await breaker.send(MAIL, state)
        before = state.state
        clock.now += 60

        await breaker.send(MAIL, state)

    assert (before, state.state) == ("new", "sent")
    assert len(fake.seen) == 2


async def test_a_refusal_that_may_be_about_the_message_stops_the_others_once() -> None:
    """The channel pauses, others get through, and the message that is refused again is rejected: nobody else waits for it."""
    doubt = ProviderRefused("twilio answered 400 (error 21606)", doubtful=True)
    bench = Bench([doubt, None, doubt])
    one, other = replace(MAIL, idempotency_key="one"), replace(MAIL, idempotency_key="other")

    assert isinstance(await bench.send(one), Hold)
    bench.clock.now += 61
    assert await bench.send(other) is None
    bench.clock.now += 1

    assert isinstance(await bench.send(one), Reject)
    assert await bench.send(other) is None


async def test_a_refusal_of_everybody_rejects_nobody() -> None:
    """While nothing gets through, also what may be about the message is held, however often it is tried."""
    doubt = ProviderRefused("twilio answered 400 (error 21606)", doubtful=True)
    bench = Bench([None, *[doubt] * 9])
    one, other = replace(MAIL, idempotency_key="one"), replace(MAIL, idempotency_key="other")
    assert await bench.send(other) is None

    for message in (one, one, other, one, other, one):
        bench.clock.now += 61
        assert isinstance(await bench.send(message), Hold)


async def test_what_was_under_way_at_the_refusal_proves_nothing() -> None:
    """A message that was begun before the refusal, and accepted after it, may be of the time before."""
    doubt = ProviderRefused("twilio answered 400 (error 21606)", doubtful=True)
    bench = Bench([doubt, doubt])
    late = replace(MAIL, idempotency_key="late")
    bench.provider.leave = asyncio.Event()
    under_way = asyncio.create_task(bench.breaker.send(late, State()))
    await bench.provider.entered.wait()
    bench.provider.endings.insert(0, None)
    bench.clock.now += 1
    refused = asyncio.create_task(bench.send())
    await asyncio.sleep(0)
    bench.provider.leave.set()
    await under_way
    assert isinstance(await refused, Hold)
    bench.clock.now += 61

    assert isinstance(await bench.send(), Hold)


def _doubt() -> ProviderRefused:
    return ProviderRefused("smtp answered 550: 5.7.1 relay denied", doubtful=True)


def _numbered(number: int) -> Mail:
    return replace(MAIL, idempotency_key=f"welcome_email-{number}")


async def test_one_refusal_in_doubt_among_many_that_are_sent_pauses_nothing() -> None:
    """Only this message waits; the others go out at once, and it is rejected when it is refused again."""
    bench = Bench([None, _doubt(), None, _doubt()])
    await bench.send(_numbered(1))

    held = await bench.send(_numbered(2))
    assert isinstance(held, Hold)
    assert held.after == 60.0
    assert bench.paused("provider-refused") == 0.0
    bench.clock.now += 1
    assert await bench.send(_numbered(3)) is None
    bench.clock.now += 60
    assert isinstance(await bench.send(_numbered(2)), Reject)


async def test_a_second_refusal_in_doubt_in_a_row_pauses_the_channel() -> None:
    """It may be about our account after all."""
    bench = Bench([None, _doubt(), _doubt()])
    await bench.send(_numbered(1))

    assert isinstance(await bench.send(_numbered(2)), Hold)
    assert isinstance(await bench.send(_numbered(3)), Hold)
    assert bench.paused("provider-refused") == 1.0


@pytest.mark.parametrize("doubtful", [True, False])
async def test_the_message_that_paused_the_channel_leaves_the_probe_to_others(*, doubtful: bool) -> None:
    """It comes back first, and would be refused each time: the channel would never resume."""
    bench = Bench([ProviderRefused("smtp answered 550", doubtful=doubtful)])
    first = await bench.send(_numbered(1))
    other = await bench.send(_numbered(2))
    assert isinstance(first, Hold)
    assert isinstance(other, Hold)

    bench.clock.now += 60
    assert isinstance(again := await bench.send(_numbered(1)), Hold)
    assert again.after >= 30.0
    assert bench.provider.asked == 1
    bench.clock.now += 1
    assert await bench.send(_numbered(2)) is None
    assert bench.paused("provider-refused") == 0.0


async def test_a_message_that_was_refused_probes_when_the_others_do_not_come() -> None:
    """They may have expired, or be another worker's by now."""
    bench = Bench([BAD_KEY])
    await bench.send(_numbered(1))
    await bench.send(_numbered(2))

    bench.clock.now += 90
    assert await bench.send(_numbered(1)) is None
    assert bench.paused("provider-refused") == 0.0


async def test_an_answer_in_doubt_ends_a_circuit_pause() -> None:
    """The provider answers again, whatever it says of this message."""
    bench = Bench([None, *[DOWN] * 10, _doubt()])
    for number in range(11):
        await bench.send(_numbered(number))
    assert bench.paused("circuit") == 1.0

    bench.clock.now += 5
    assert isinstance(await bench.send(_numbered(11)), Hold)
    assert (bench.paused("circuit"), bench.paused("provider-refused")) == (0.0, 0.0)
