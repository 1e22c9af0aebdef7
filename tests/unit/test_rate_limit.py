"""The rate limit of a tenant: never more messages a minute, in order, none lost, and no crowd comes back at once."""

from __future__ import annotations

import asyncio
import bisect
import contextlib
import heapq
import itertools
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.engine import Bench, Script, raw, until
from tests.fakes.memory_broker import MemoryBroker

from usher import Context, Event, User
from usher.addresses import MailSender
from usher.app import build
from usher.channels.rate_limit import RateLimit
from usher.channels.sender import MessageSender
from usher.channels.templates import Brand, Templates
from usher.context import Outgoing
from usher.metrics import Metrics
from usher.outcome import Hold, NoAddress
from usher.settings import Settings
from usher.testing import RecordingEmail, RecordingSms, an_event


class Hand:
    """A clock that is moved by hand."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def made(per_minute: int) -> tuple[RateLimit, Hand, Metrics]:
    clock, metrics = Hand(), Metrics()
    return RateLimit("genauth/shop", per_minute, metrics, clock), clock, metrics


def wait_of(rate_limit: RateLimit, key: str) -> float:
    """The seconds for which *key* is put off; 0: it may go."""
    try:
        rate_limit.take(key)
    except Hold as hold:
        return hold.after
    return 0.0


def test_up_to_the_cap_nothing_waits() -> None:
    """A tenant below it never notices it; a message above it learns when to come."""
    rate_limit, _clock, metrics = made(3)

    assert [wait_of(rate_limit, key) for key in "abc"] == [0, 0, 0]
    with pytest.raises(Hold, match="genauth/shop has had its 3 messages of this minute"):
        rate_limit.take("d")
    assert metrics.registry.get_sample_value("usher_messages_rate_limited_total", {"system": "genauth/shop"}) == 1


def test_a_minute_later_there_is_room_again() -> None:
    """A window that moves: it is not the clock's minute that counts."""
    rate_limit, clock, _ = made(2)
    rate_limit.take("a")
    clock.now += 30
    rate_limit.take("b")
    clock.now += 29.9
    assert wait_of(rate_limit, "c") > 0
    clock.now += 100

    assert [wait_of(rate_limit, key) for key in "de"] == [0, 0]


def test_a_thousand_at_once_get_a_moment_each() -> None:
    """Spread as far apart as the limit says; none of the waits is the same."""
    rate_limit, _clock, _ = made(60)
    waits = [wait_of(rate_limit, f"k{number}") for number in range(1000)]

    held = [wait for wait in waits if wait]
    assert len(held) == 940
    assert held == sorted(held)
    assert min(later - earlier for earlier, later in itertools.pairwise(held)) >= 1.0
    assert max(held) < 60 + 940 * 1.05


def test_nobody_overtakes_those_who_wait() -> None:
    """A fresh message queues behind them, though there would be room for it at this moment."""
    rate_limit, clock, _ = made(1)
    rate_limit.take("a")
    wait = wait_of(rate_limit, "b")
    clock.now += wait - 0.5

    assert wait_of(rate_limit, "fresh") > 0.5
    clock.now += 0.5
    assert wait_of(rate_limit, "b") == 0


def test_those_who_do_not_come_back_block_nobody() -> None:
    """A delivery that was put off may have expired, or be another worker's by now."""
    rate_limit, clock, _ = made(1)
    rate_limit.take("a")
    clock.now += wait_of(rate_limit, "gone") + 61

    assert wait_of(rate_limit, "fresh") == 0


@given(
    st.lists(st.tuples(st.floats(0, 40), st.integers(1, 30)), min_size=1, max_size=8),
    st.integers(1, 20),
    st.lists(st.floats(0, 0.5), min_size=1, max_size=50),
)
def test_never_more_than_the_cap_in_any_minute_and_all_are_sent(
    bursts: list[tuple[float, int]], per_minute: int, late: list[float]
) -> None:
    """Bursts at any time, each delivery coming back at its moment or a little late: the limit holds, and none waits for ever."""
    rate_limit, clock, _ = made(per_minute)
    due: list[tuple[float, str]] = []
    at = clock.now
    for gap, count in bursts:
        at += gap
        due += [(at, f"k{len(due) + number}") for number in range(count)]
    heapq.heapify(due)
    total, sent, tries = len(due), [], Counter[str]()
    while due:
        clock.now, key = heapq.heappop(due)
        tries[key] += 1
        if wait := wait_of(rate_limit, key):
            heapq.heappush(due, (clock.now + wait + late[len(tries) % len(late)], key))
        else:
            sent.append(clock.now)
        assert tries[key] < 5

    assert len(sent) == total
    for moment in sent:
        assert bisect.bisect_left(sent, moment + 60) - bisect.bisect_left(sent, moment) <= per_minute


async def test_the_post_asks_the_cap_before_the_provider(tmp_path: Path) -> None:
    """What is over the limit never leaves; what has no address, or another tenant's user, takes none of it."""
    (tmp_path / "hi").mkdir()
    (tmp_path / "hi/en.txt").write_text("Subject: Hi\n\nHello")
    rate_limit, _clock, _metrics = made(1)
    email = RecordingEmail()
    post = MessageSender(
        Templates([tmp_path], brand=Brand()),
        sender=MailSender("a@example.com"),
        email=email,
        sms=RecordingSms(),
        rate_limit_of=lambda event: rate_limit if event.tenant == "shop" else None,
    )

    def outgoing(key: str, to: User, tenant: str = "shop") -> Outgoing:
        log: Any = _Silent()
        event = an_event(tenant=tenant)
        return Outgoing("hi", to, event, {}, "hi", key, "email", log)

    kim = User(email="kim.berg@example.com")
    with pytest.raises(NoAddress):
        await post.email(outgoing("nobody", User()))
    await post.email(outgoing("first", kim))
    over = outgoing("second", kim)
    with pytest.raises(Hold):
        await post.email(over)
    await post.email(outgoing("third", kim, tenant="other"))

    assert over.state == "new"
    assert [mail.idempotency_key for mail in email.sent] == ["first", "third"]


async def test_each_tenant_has_its_own_cap() -> None:
    """As the settings name them; GenAuth has one by default, and what is of no tenant of ours has none."""
    settings = Settings.load(
        {
            "USHER_GENAUTH__USER_POOL_ID": "first",
            "USHER_GENAUTH__MESSAGES_PER_MINUTE": "1",
            "USHER_GENAUTH__SHOP__USER_POOL_ID": "shop",
            "USHER_GENAUTH__SHOP__MESSAGES_PER_MINUTE": "2",
            "USHER_GENAUTH__OTHER__USER_POOL_ID": "other",
        },
        env_file=None,
    )
    email = RecordingEmail()
    app = build(settings, email=email)
    log: Any = _Silent()

    async def sent(tenant: str) -> int:
        event = replace(an_event(), source="genauth", tenant=tenant)
        for number in range(200):
            key = f"{tenant}{number}"
            with contextlib.suppress(Hold):
                await app.sender.email(Outgoing("welcome_email", event.user, event, {}, "h", key, "email", log))
        return sum(mail.idempotency_key.startswith(tenant) for mail in email.sent)

    assert [await sent(tenant) for tenant in ("first", "shop", "other", "nobody")] == [1, 2, 100, 200]


@pytest.mark.jumping
@pytest.mark.heavy
async def test_what_is_put_off_waits_in_the_log_and_goes_in_order() -> None:
    """A real worker, for three minutes: all are sent, in order, none with an attempt counted, and never too many."""
    clock = asyncio.get_running_loop().time
    rate_limit, sent = RateLimit("genauth", 4, Metrics(), clock), []

    def send(_event: Event, ctx: Context) -> None:
        rate_limit.take(ctx.idempotency_key)
        sent.append(clock())

    script, bench = Script(act=send), Bench(MemoryBroker())
    async with bench.running(script.handler()):
        await bench.emit(*(raw(f"u{number:02}") for number in range(12)))
        await until(lambda: len(script.done) == 12, within=600)
        await until(lambda: bench.parked() == {})

    assert [user for user, _ in script.done] == [f"u{number:02}" for number in range(12)]
    assert {attempt for _, _, attempt, _ in script.attempts} == {1}
    assert len(script.attempts) >= 12 + 8  # eight were put off
    assert min(later - earlier for earlier, later in zip(sent, sent[4:], strict=False)) >= 60


class _Silent:
    def info(self, *_: object, **__: object) -> None: ...
