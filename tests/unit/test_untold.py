"""`usher untold`: the events of which somebody was to be told, and nobody was."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from tests.fakes.memory_broker import MemoryBroker
from tests.fakes.memory_log import MemoryBrowser
from tests.receipts import receipt

from usher import Context, Event, on
from usher.delivery import Delivery, Origin
from usher.delivery.headers import delivery_headers
from usher.engine.dead_letters import dead_letter_headers, state_headers
from usher.eventlog.names import dead_letter_topic, receipts_topic, retry_topic
from usher.eventlog.port import LogConfig, TopicPartition
from usher.handler import Router
from usher.operate.progress import ReadingProgress
from usher.operate.untold import Untold, untold
from usher.receipts import Receipt, pack
from usher.settings import Settings
from usher.systems.decode import decode
from usher.testing import raw_event

TOPIC, GROUP = "identity.events", "usher"
NOW = int(time.time() * 1000)
HOUR = 3_600_000


@on("user.created")
async def welcome_email(event: Event, ctx: Context) -> None:
    """Sends a mail."""


@on("user.created", sends=False)
async def flag(event: Event, ctx: Context) -> None:
    """Never sends."""


ROUTER = Router([welcome_email, flag], ["admin_api"])
Ask = Callable[..., Awaitable[list[Untold]]]


class Log:
    """An event log in memory that others have written to."""

    def __init__(self) -> None:
        self.browser = MemoryBrowser(LogConfig(GROUP, (TOPIC,)), MemoryBroker())

    async def file(self, *receipts: Receipt) -> None:
        for value in pack(receipts):
            await self.browser.broker.write(TopicPartition(receipts_topic(GROUP), 0), None, value, ())

    async def park(self, id_: str, since: int, handler: str = "welcome_email") -> None:
        delivery = _delivery(id_, handler, since)
        await self.browser.append(
            retry_topic(GROUP, TOPIC), delivery.key.encode(), delivery.value, delivery_headers(delivery), partition=0
        )

    async def bury(self, id_: str, reason: str = "rejected") -> None:
        delivery = _delivery(id_, "welcome_email", NOW)
        headers = dead_letter_headers(delivery, reason=reason, group=GROUP, expires_at=None)
        await self.browser.append(dead_letter_topic(GROUP, TOPIC), b"k", delivery.value, headers, partition=0)

    async def note(self, dead_letter: str, state: Any) -> None:
        headers = state_headers(dead_letter, state, group=GROUP, topic=TOPIC)
        await self.browser.append(dead_letter_topic(GROUP, TOPIC), b"k", None, headers, partition=0)


def _delivery(id_: str, handler: str, since: int) -> Delivery:
    value = raw_event(id=id_)
    uid = decode(value).uid
    return Delivery(
        handler,
        uid,
        f"lane/{id_}",
        Origin(TOPIC, 0, 0, since, b"k"),
        value,
        attempt=1,
        first_failed_at=since,
        error="503",
    )


def of(event_id: str, state: str, **fields: Any) -> Receipt:
    return receipt(event_id, state, **{"tenant": "example", "at": NOW, **fields})


@pytest.fixture
def log() -> Log:
    return Log()


@pytest.fixture
def ask(log: Log, tmp_path: Path) -> Ask:
    async def asked(since: float = 86_400, longer_than: float = 3600) -> list[Untold]:
        settings = Settings.load({"USHER_CACHE_DIR": str(tmp_path)}, env_file=None)
        return await untold(settings, log.browser, ROUTER, time.time() - since, longer_than, progress=ReadingProgress())

    return asked


def reasons(found: list[Untold]) -> dict[str, str]:
    return {each.event.uid.id: each.reason for each in found}


@pytest.mark.parametrize(
    ("state", "why", "expected"),
    [
        ("dead", "rejected", "dead"),
        ("expired", "", "expired"),
        ("unknown", "", "unknown"),
        ("dropped", "", "dropped"),
        ("bounced", "", "bounced"),
        ("undelivered", "", "undelivered"),
        ("suppressed", "", "suppressed"),
        ("skipped", "no-address", "no-address"),
        ("skipped", "disabled", "disabled"),
        ("skipped", "the identity system has sent its own message", None),
        ("skipped", "by ops", None),
        ("done", "", None),
        ("replayed", "", None),
        ("sent", "", None),
        ("deferred", "", None),
        ("delivered", "", None),
        ("complained", "", None),
    ],
)
async def test_each_end_counts_as_it_should(log: Log, ask: Ask, state: str, why: str, expected: str | None) -> None:
    """A skip that somebody meant is none, who complains has received it, and what ended without sending counts neither way."""
    await log.file(of("e1", state, reason=why))

    found = await ask()

    assert reasons(found) == ({} if expected is None else {"e1": expected})
    assert all(each.mend for each in found)


async def test_one_message_is_enough(log: Log, ask: Ask) -> None:
    """By another handler, by a replay, or by an earlier attempt that was repeated in vain."""
    await log.file(
        of("other", "dead"),
        of("other", "sent", handler="sms_notice"),
        of("replayed", "dead", offset=1),
        of("replayed", "sent", offset=1, replay="r1"),
        of("again", "sent", offset=2),
        of("again", "dead", offset=2, provider_id=""),
        of("nobody", "dead", offset=3),
        of("nobody", "done", offset=3, handler="another"),
    )

    assert reasons(await ask()) == {"nobody": "dead"}


async def test_a_handler_that_never_sends_leaves_nobody_untold(log: Log, ask: Ask) -> None:
    """Neither dead nor parked; nor do bytes that are no event, and so for no handler."""
    await log.file(
        of("e1", "dead", handler="flag", sends=False), of("", "dead", handler="", offset=9, reason="undecodable")
    )
    await log.park("e2", NOW - 5 * HOUR, "flag")

    assert await ask() == []


async def test_what_is_parked_counts_after_a_while(log: Log, ask: Ask) -> None:
    """Not what has waited for less than is asked for."""
    await log.park("long", NOW - 5 * HOUR)
    await log.park("short", NOW - HOUR // 2)

    (found,) = await ask()

    assert (found.event.uid.id, found.reason, found.event.type) == ("long", "parked", "user.created")
    assert "usher why long" in found.mend
    assert reasons(await ask(longer_than=600)) == {"long": "parked", "short": "parked"}


async def test_the_command_that_mends_is_one_command_whatever_the_id_holds(log: Log, ask: Ask) -> None:
    """An event's id is as its source wrote it, and operators copy the command into a shell."""
    await log.park("e1; rm -r $HOME", NOW - 5 * HOUR)

    (found,) = await ask()

    assert found.mend.endswith("usher why 'e1; rm -r $HOME'")


async def test_a_dead_letter_counts_with_and_without_a_receipt(log: Log, ask: Ask) -> None:
    """Until it is replayed; what mends it names it."""
    await log.bury("e1")
    (found,) = await ask()
    assert (found.reason, found.mend) == ("dead", "mend the cause, then: usher dlq replay 0@0")

    await log.file(of("e1", "dead"))
    (found,) = await ask()
    assert (found.reason, found.mend) == ("dead", "mend the cause, then: usher dlq replay 0@0")

    assert found.fates[0].reason == "rejected: 503"
    await log.note("0@0", "dropped")
    assert reasons(await ask()) == {"e1": "dropped"}
    await log.note("0@0", "replayed")
    await log.file(of("e1", "sent", replay="r1"))
    assert await ask() == []


async def test_what_failed_before_is_left_out(log: Log, ask: Ask) -> None:
    """A message of long ago does not hide a failure of now, nor the other way round."""
    await log.file(of("old", "dead", at=NOW - 48 * HOUR), of("new", "dead", offset=1))

    assert reasons(await ask()) == {"new": "dead"}
    assert reasons(await ask(since=72 * 3600)) == {"old": "dead", "new": "dead"}
