"""`usher why` on each kind of event log: different ends have different answers."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.contract.logs import Harness, Worker
from tests.contract.test_eventlog import logs
from tests.receipts import AT, file, receipt

from usher import Context, Event, on
from usher.delivery import Delivery, Origin, Record
from usher.delivery.headers import delivery_headers
from usher.engine.ledger import Mark
from usher.eventlog.names import checkpoints_topic
from usher.eventlog.notes import GroupStart
from usher.eventlog.port import Position, TopicPartition
from usher.handler import Router
from usher.operate.event_traces import EventTrace
from usher.operate.progress import ReadingProgress
from usher.operate.trace import Question, trace
from usher.operate.untold import untold
from usher.receipts.keys import AddressKeys
from usher.settings import Settings
from usher.systems.decode import decode
from usher.testing import raw_event

__all__ = ["logs"]


@on("user.created")
async def welcome_email(event: Event, ctx: Context) -> None:
    """Welcomes a user."""


@on("password.reset")
async def reset_instructions(event: Event, ctx: Context) -> None:
    """Is for another type."""


ROUTER = Router([welcome_email, reset_instructions], ["admin_api"])


@dataclass
class Asked:
    """An event log with a group that has read some of it, and where the records lie."""

    logs: Harness
    settings: Settings
    worker: Worker
    places: Mapping[str, int]

    async def why(self, *ids: str, **asked: object) -> list[EventTrace]:
        question = Question(ids=ids, **{"since": 0.0, **asked})  # type: ignore[arg-type]
        async with self.logs.browser() as browser:
            return await trace(self.settings, browser, ROUTER, question, ReadingProgress())

    async def answer(self, event_id: str, **asked: object) -> list[tuple[str, str]]:
        """The state and the reason of each delivery of the event."""
        (event,) = await self.why(event_id, **asked)
        return [(fate.state, fate.reason) for fate in event.fates]


async def produced(logs: Harness, *events: bytes) -> None:
    async with logs.browser() as browser:
        for event in events:
            await browser.append(logs.topic, b"key", event, partition=0)


async def all_records(logs: Harness) -> list[Record]:
    async with logs.browser() as browser:
        return [record async for batch in browser.scan(logs.topic) for record in batch]


async def asked(logs: Harness, folder: Path) -> Asked:
    """Events of all kinds: of those after the group's start all but the last two are read, and each has ended in its own way."""
    logs.start_from = "latest"
    await produced(logs, raw_event(id="before", user_id="u-0"))
    worker = await logs.worker()
    names = ("sent", "no-address", "sent", "parked", "other", "unread")
    await produced(logs, *(raw_event(id=name, user_id=f"u-{name}", email=f"{name}@example.org") for name in names))
    await produced(logs, raw_event(id="self-made", triggered_by="user"), raw_event("password.reset", id="of-another"))
    records = await all_records(logs)
    if not logs.shares:  # the embedded log has no start but its beginning
        start = GroupStart("", records[1].offset, AT)
        async with logs.browser() as browser:
            await browser.append(checkpoints_topic(logs.group), *start.record(TopicPartition(logs.topic, 0)))
    places = {decode(each.value or b"").id: each.offset for each in reversed(records)}
    [claim, *_] = [each for each in worker.claims if each.partition == 0]
    where = {"topic": logs.topic, "topic_id": claim.topic_id}
    key = AddressKeys([b"secret"])
    await file(
        worker.log,
        claim,
        [
            receipt("sent", offset=places["sent"], user_id="u-sent", tenant="example", provider_id="m-1",
                    address=key.address_hmac("sent@example.org", "email"), key=key.name, **where),
            receipt("no-address", "skipped", offset=places["no-address"], reason="no-address", tenant="example", **where),
        ],
    )  # fmt: skip
    event = decode(records[4].value or b"")
    parked = Delivery(
        "welcome_email",
        event.uid,
        "lane",
        Origin.of(records[4]),
        records[4].value or b"",
        attempt=2,
        due=AT,
        error="503",
    )
    await worker.log.park(claim, parked.key, parked.value, delivery_headers(parked))
    await worker.log.commit({claim: Position(places["other"], Mark(places["other"], places["other"]).encode())})
    settings = Settings.load(
        {
            "USHER_GROUP": logs.group, "USHER_TOPICS": logs.topic, "USHER_CACHE_DIR": str(folder), "USHER_RECEIPTS__KEY": "secret",
        },
        env_file=None,
    )  # fmt: skip
    return Asked(logs, settings, worker, places)


async def test_six_questions_have_six_answers(logs: Harness, tmp_path: Path) -> None:
    """Sent, no address, before the group's start, not read yet, a duplicate, waiting for a retry: each in its own words."""
    there = await asked(logs, tmp_path)

    assert await there.answer("sent") == [
        ("sent", ""),
        ("duplicate", f"it repeats {logs.topic} 0@{there.places['sent']}"),
    ]
    assert await there.answer("no-address") == [("skipped", "no-address")]
    assert await there.answer("before") == [("before-start", f"the group began at offset {there.places['sent']}")]
    assert await there.answer("unread") == [("not-read", "1 record to be read before it")]
    assert await there.answer("parked") == [("parked", "503")]
    assert (await there.answer("self-made"))[0] == (
        "filtered",
        "triggered by user, not admin_api (by the rules of now)",
    )
    assert len(await there.answer("of-another", everything=True)) == 2
    assert await there.why("nothing") == []


async def test_a_person_and_a_message_lead_to_the_event(logs: Harness, tmp_path: Path) -> None:
    """By id, address (however it is written) and the provider's id; what is not read yet is found beside what has a receipt."""
    there = await asked(logs, tmp_path)

    (by_message,) = await there.why(message_id="m-1")
    (by_address,) = await there.why(address="SENT@example.ORG")
    (by_user,) = await there.why(user="u-sent")
    (waiting,) = await there.why(user="u-unread")

    assert {each.uid.id for each in (by_message, by_address, by_user)} == {"sent"}
    (first, *_) = by_message.fates
    assert (first.state, first.provider, first.provider_id, first.template, first.attempts) == (
        "sent",
        "outbox",
        "m-1",
        "welcome_email",
        1,
    )
    assert by_user.user_id == "u-sent"
    assert [fate.state for fate in waiting.fates] == ["not-read"]
    assert await there.why(message_id="m-2") == []


async def test_a_repeat_is_a_second_entry_of_the_history(logs: Harness, tmp_path: Path) -> None:
    """The same receipt twice is one; another id of the provider is a repeat; a state climbs, whatever comes later."""
    there = await asked(logs, tmp_path)
    claim = next(each for each in there.worker.claims if each.partition == 0)
    same = receipt(
        "no-address",
        offset=there.places["no-address"],
        tenant="example",
        topic=logs.topic,
        topic_id=claim.topic_id,
        provider_id="m-8",
    )
    again = receipt(
        "no-address", offset=there.places["no-address"], tenant="example", topic=logs.topic, topic_id=claim.topic_id, provider_id="m-9",
        at=AT + 60_000,
    )  # fmt: skip
    await file(there.worker.log, claim, [same, same])
    await file(there.worker.log, claim, [again])

    (event,) = await there.why("no-address")
    (fate,) = event.fates

    assert (fate.state, fate.provider_id) == ("sent", "m-9")
    assert [(entry.receipt.state, entry.receipt.provider_id, entry.repeat) for entry in fate.history] == [
        ("skipped", "", False),
        ("sent", "m-8", False),
        ("sent", "m-9", True),
    ]


async def test_what_is_read_and_not_done_is_running_and_what_has_no_receipt_says_so(
    logs: Harness, tmp_path: Path
) -> None:
    """The Mark says which; a delivery that is done without a receipt is older than what is kept."""
    there = await asked(logs, tmp_path)
    claim = next(each for each in there.worker.claims if each.partition == 0)
    mark = Mark(there.places["other"], there.places["unread"] + 1, {there.places["other"]: 0})
    await there.worker.log.commit({claim: Position(there.places["other"], mark.encode())})

    assert (await there.answer("other"))[0][0] == "running"
    [(state, reason)] = await there.answer("unread")
    assert (state, "receipts are kept for 90d" in reason) == ("no-receipt", True)


async def test_who_was_not_told(logs: Harness, tmp_path: Path) -> None:
    """Who has no address, and who waits for a retry too long; not who got a mail."""
    there = await asked(logs, tmp_path)

    async def ask(longer_than: float) -> dict[str, str]:
        async with logs.browser() as browser:
            found = await untold(there.settings, browser, ROUTER, 0.0, longer_than, progress=ReadingProgress())
        return {each.event.uid.id: each.reason for each in found}

    assert await ask(0.0) == {"no-address": "no-address", "parked": "parked"}
    assert await ask(1e9) == {"no-address": "no-address"}


async def test_many_readers_at_once_answer_alike(logs: Harness, tmp_path: Path) -> None:
    """They share one index."""
    there = await asked(logs, tmp_path)

    answers = await asyncio.gather(*(there.answer("sent") for _ in range(5)))

    assert {str(each) for each in answers} == {str(await there.answer("sent"))}
