"""What Usher pulls from Auth0, against the loopback Auth0: nothing is missed and no position is lost, however it ends."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import pytest
from tests.fakes.auth0 import FakeAuth0

from usher.outcome import Hold, Reject, Retry
from usher.systems.auth0.api import Auth0Api
from usher.systems.auth0.feeds import Auth0EventsFeed, Auth0LogsFeed, _messages
from usher.systems.auth0.source import Auth0Source
from usher.systems.decode import decode
from usher.systems.source import Arrival
from usher.testing.providers import RESET, answer


@dataclass
class Tenant:
    """A tenant, and feeds of it that may be made as often as a worker starts."""

    fake: FakeAuth0
    api: Auth0Api
    source: Auth0Source
    now: Callable[[], float] = time.time
    feeds: list[Auth0EventsFeed] = field(default_factory=list)

    def events(self) -> Auth0EventsFeed:
        self.feeds.append(Auth0EventsFeed(self.api, self.source, now=self.now))
        return self.feeds[-1]

    def logs(self, *types: str) -> Auth0LogsFeed:
        return Auth0LogsFeed(self.api, self.source, every=1.0, types=types or ("sapi", "scp"), now=self.now)


@asynccontextmanager
async def tenant(now: Callable[[], float] = time.time, **options: Any) -> AsyncIterator[Tenant]:
    async with FakeAuth0(now=now, **options) as fake, aiohttp.ClientSession() as session:
        api = Auth0Api(
            fake.domain,
            client_id=fake.client_id,
            client_secret=fake.client_secret,
            base_url=fake.url,
            session=lambda: session,
            now=now,
        )
        made = Tenant(fake, api, Auth0Source(tenant=fake.domain), now)
        try:
            yield made
        finally:
            for feed in made.feeds:
                await feed.close()


async def read(feed: Auth0EventsFeed | Auth0LogsFeed, cursor: bytes | None, count: int) -> tuple[list[Arrival], bytes]:
    """Pages until there are *count* arrivals."""
    arrivals: list[Arrival] = []
    async with asyncio.timeout(20):
        while len(arrivals) < count:
            page = await feed.page(cursor)
            arrivals, cursor = [*arrivals, *page.arrivals], page.cursor
    assert cursor is not None
    return arrivals, cursor


def ids(arrivals: list[Arrival]) -> list[str]:
    return [arrival.event.id for arrival in arrivals if arrival.event is not None]


# The Events API


async def test_the_stream_brings_events_in_order() -> None:
    """Those from the moment polling began, each as a webhook would have brought it."""
    async with tenant() as at:
        feed = at.events()
        start = (await feed.page(None)).cursor
        sent = [at.fake.event_of(at.fake.create_user(email=f"user{n}@example.com")) for n in range(3)]
        for event in sent:
            await at.fake.stream.publish(event)

        arrivals, _ = await read(feed, start, 3)

    assert ids(arrivals) == [event["id"] for event in sent]
    webhook = [arrival for event in sent for arrival in at.source.arrivals(json.dumps(event).encode(), {}, 0.0)]
    assert arrivals == webhook
    assert all(decode(arrival.value) == arrival.event for arrival in arrivals)
    assert len(at.fake.stream.opened) == 1


async def test_a_restart_goes_on_after_the_offset_that_was_kept() -> None:
    """Also after one that came alone, and with what happened in between."""
    async with tenant() as at:
        first = at.events()
        start = (await first.page(None)).cursor
        await at.fake.stream.publish(at.fake.event_of(at.fake.create_user()))
        alone = await at.fake.stream.publish(None)
        _, cursor = await read(first, start, 1)
        page = await first.page(cursor)
        assert page.arrivals == ()
        await first.close()
        between = at.fake.event_of(at.fake.create_user())
        await at.fake.stream.publish(between)

        arrivals, _ = await read(at.events(), page.cursor, 1)

    assert ids(arrivals) == [between["id"]]
    assert at.fake.stream.opened[-1]["from"] == alone


async def test_what_happens_before_the_first_message_survives_a_restart() -> None:
    """The moment of the beginning is kept before anything came."""
    async with tenant() as at:
        start = (await at.events().page(None)).cursor
        event = at.fake.event_of(at.fake.create_user())
        await at.fake.stream.publish(event)

        arrivals, _ = await read(at.events(), start, 1)

    assert ids(arrivals) == [event["id"]]
    assert "from_timestamp" in at.fake.stream.opened[0]


@pytest.mark.parametrize(("how", "trouble"), [("close", None), ("error", "with an error"), ("cut", "was cut|closed")])
async def test_a_stream_that_ends_is_opened_again_where_it_was(how: Any, trouble: str | None) -> None:
    """As Auth0 closes it every few minutes, with an error message, or in the middle of a message, which is then none."""
    async with tenant() as at:
        feed = at.events()
        await at.fake.stream.publish(at.fake.event_of(at.fake.create_user()))
        _, cursor = await read(feed, b'{"at": 0}', 1)
        await at.fake.stream.end(how)
        if trouble is None:
            page = await feed.page(cursor)
            assert (page.arrivals, page.cursor, page.more) == ((), cursor, False)
        else:
            with pytest.raises(Retry, match=trouble):
                await feed.page(cursor)
        event = at.fake.event_of(at.fake.create_user())
        await at.fake.stream.publish(event)

        arrivals, _ = await read(feed, cursor, 1)

    assert ids(arrivals) == [event["id"]]
    assert len(at.fake.stream.opened) == 2


async def test_an_expired_offset_goes_on_from_its_moment() -> None:
    """As Auth0 advises: known events come again, and are recognised by their ids."""
    async with tenant() as at:
        feed = at.events()
        first, second = (at.fake.event_of(at.fake.create_user()) for _ in range(2))
        await at.fake.stream.publish(first)
        _, cursor = await read(feed, b'{"at": 0}', 1)
        await feed.close()
        at.fake.stream.expire()
        await at.fake.stream.publish(second)

        arrivals, _ = await read(feed, cursor, 2)

    assert ids(arrivals) == [first["id"], second["id"]]
    assert "from_timestamp" in at.fake.stream.opened[-1]


async def test_a_position_that_nothing_can_be_read_from_is_refused() -> None:
    """Polling then begins anew, and says so."""
    async with tenant() as at:
        await at.api.check()
        at.fake.script(answer(400))

        with pytest.raises(Reject, match="some may be missing"):
            await at.events().page(b'{"at": 0}')
        with pytest.raises(Reject, match="can't be read"):
            await at.events().page(b"nothing of ours")


@pytest.mark.parametrize(
    ("faults", "expected", "after"),
    [
        ([answer(429, headers=[("Retry-After", "9")])], Retry, 9.0),
        ([answer(503)], Retry, None),
        ([RESET, RESET], Retry, None),
        ([answer(401), answer(401)], Hold, None),
    ],
)
@pytest.mark.parametrize("kind", ["events", "logs"])
async def test_a_refusal_says_when_to_come_back(kind: str, faults: Any, expected: Any, after: float | None) -> None:
    """With the wait that it asks for; and the position stays."""
    async with tenant() as at:
        feed = at.events() if kind == "events" else at.logs()
        at.fake.log(type="scp")
        cursor = (await feed.page(None)).cursor
        await at.api.check()
        at.fake.script(*faults[:1])
        if len(faults) > 1 and expected is Hold:
            at.fake.client_secret = "changed"
            at.fake.forget_tokens()
        else:
            at.fake.script(*faults[1:])

        with pytest.raises(expected) as caught:
            await feed.page(cursor)
        if after is not None:
            assert caught.value.after == after


async def test_a_missing_permission_is_the_operators_affair() -> None:
    """403: held, and the settings are named."""
    async with tenant(scopes=("read:users",)) as at:
        with pytest.raises(Hold, match="refuses our credentials"):
            await at.events().page(b'{"at": 0}')


async def test_an_event_that_can_not_be_read_leaves_a_stub() -> None:
    """The stream goes on behind it."""
    async with tenant() as at:
        broken = {"type": "user.created", "time": "9999", "data": "not an object, of eva@example.com"}
        event = at.fake.event_of(at.fake.create_user())
        await at.fake.stream.publish(broken)
        await at.fake.stream.publish(event)

        arrivals, _ = await read(at.events(), b'{"at": 0}', 2)

    assert arrivals[0].event is None
    assert b"eva@example.com" not in arrivals[0].value
    assert ids(arrivals) == [event["id"]]


# The tenant logs


async def test_logs_begin_now_and_miss_nothing_after_it() -> None:
    """Entries of the past are left alone; those of other types than asked for too."""
    async with tenant() as at:
        at.fake.create_user()
        feed = at.logs()
        cursor = (await feed.page(None)).cursor
        assert (await feed.page(cursor)).arrivals == []
        at.fake.log(type="s", user_name="someone@example.com")
        user = at.fake.create_user(email="eva@example.com")
        at.fake.change_password(user["user_id"])

        arrivals, _ = await read(feed, cursor, 2)

    assert ids(arrivals) == [entry["log_id"] for entry in at.fake.logs[-2:]]
    assert [arrival.event.type for arrival in arrivals if arrival.event] == ["sapi", "password.changed"]


async def test_a_tenant_without_any_entry_yet_is_polled_all_the_same() -> None:
    """There is no checkpoint to begin with."""
    async with tenant() as at:
        feed = at.logs()
        cursor = (await feed.page(None)).cursor
        at.fake.log(type="scp", user_id="auth0|1")

        arrivals, cursor = await read(feed, cursor, 1)

        assert ids(arrivals) == [at.fake.logs[0]["log_id"]]
        assert (await feed.page(cursor)).more is False


async def test_many_entries_come_page_by_page() -> None:
    """Each once while it catches up, with more to come until the end is reached, also across a restart."""
    moment = [1_800_000_000.0]
    async with tenant(now=lambda: moment[0]) as at:
        at.fake.log(type="scp")
        cursor = (await at.logs().page(None)).cursor
        for _ in range(250):
            at.fake.log(type="scp", user_id="auth0|1")
        moment[0] += 3600
        pages = []
        for _ in range(3):
            pages.append(await at.logs().page(cursor))
            cursor = pages[-1].cursor

        assert [(len(page.arrivals), page.more) for page in pages] == [(100, True), (100, True), (50, False)]
        assert len({id_ for page in pages for id_ in ids(list(page.arrivals))}) == 250
        assert (await at.logs().page(cursor)).arrivals == []


async def test_an_entry_that_becomes_visible_late_is_not_missed() -> None:
    """The last half minute is read again, so that one between two that were read is found."""
    moment = [1_800_000_000.0]
    async with tenant(now=lambda: moment[0]) as at:
        at.fake.log(type="scp")
        moment[0] += 60
        cursor = (await at.logs().page(None)).cursor
        early, late = at.fake.log(type="scp"), at.fake.log(type="scp")
        at.fake.logs.remove(early)
        arrivals, cursor = await read(at.logs(), cursor, 1)
        assert ids(arrivals) == [late["log_id"]]
        at.fake.logs.insert(-1, early)

        arrivals, cursor = await read(at.logs(), cursor, 2)

        assert ids(arrivals) == [early["log_id"], late["log_id"]]
        moment[0] += 60
        cursor = (await at.logs().page(cursor)).cursor
        assert (await at.logs().page(cursor)).arrivals == []


async def test_an_entry_that_becomes_visible_late_between_two_pages_is_not_missed() -> None:
    """The second page is read a minute after the first, and the last half minute before the first one again after it."""
    moment = [1_800_000_000.0]
    async with tenant(now=lambda: moment[0]) as at:
        at.fake.log(type="scp")
        moment[0] += 60
        cursor = (await at.logs().page(None)).cursor
        early = at.fake.log(type="scp")
        for _ in range(150):
            at.fake.log(type="scp")
        at.fake.logs.remove(early)
        first = await at.logs().page(cursor)
        assert first.more
        at.fake.logs.insert(1, early)
        moment[0] += 60
        found, cursor = list(first.arrivals), first.cursor
        for _ in range(4):
            page = await at.logs().page(cursor)
            found, cursor = [*found, *page.arrivals], page.cursor

        assert early["log_id"] in ids(found)
        moment[0] += 60
        cursor = (await at.logs().page(cursor)).cursor
        assert (await at.logs().page(cursor)).arrivals == []


async def test_entries_out_of_order_do_not_set_the_position_back() -> None:
    """The position is that of the greatest id of a page, wherever it stands in it."""
    moment = [1_800_000_000.0]
    async with tenant(now=lambda: moment[0]) as at:
        at.fake.log(type="scp")
        cursor = (await at.logs().page(None)).cursor
        first, second, third = (at.fake.log(type="scp") for _ in range(3))
        at.fake.logs[1:] = [third, first, second]
        moment[0] += 60

        arrivals, cursor = await read(at.logs(), cursor, 3)

        assert ids(arrivals) == [first["log_id"], second["log_id"], third["log_id"]]
        assert json.loads(cursor)["start"] == third["log_id"]


async def test_a_checkpoint_that_is_gone_goes_on_from_its_moment() -> None:
    """Auth0 keeps logs for some days only: what it still has of the time since then is not lost, and nothing older comes."""
    moment = [1_800_000_000.0]
    async with tenant(now=lambda: moment[0]) as at:
        at.fake.log(type="scp", user_id="auth0|long-known")
        moment[0] += 3600
        gone = at.fake.log(type="scp")
        cursor = (await at.logs().page(None)).cursor
        moment[0] += 3600
        kept = at.fake.log(type="scp", user_id="auth0|1")
        at.fake.logs.remove(gone)

        arrivals, cursor = await read(at.logs(), cursor, 1)
        moment[0] += 60
        after = (await at.logs().page(cursor)).cursor

        assert ids(arrivals) == [kept["log_id"]]
        assert json.loads(after)["start"] == kept["log_id"]
        assert (await at.logs().page(after)).arrivals == []


async def test_logs_that_can_not_be_read_at_all_are_reported() -> None:
    """Neither from the checkpoint nor from its moment: polling then begins anew, and says so."""
    async with tenant() as at:
        at.fake.log(type="scp")
        cursor = (await at.logs().page(None)).cursor
        at.fake.script(answer(400), answer(400))

        with pytest.raises(Reject, match="some may be missing"):
            await at.logs().page(cursor)


async def test_a_position_says_how_far_back_its_next_page_may_reach() -> None:
    """What is in the log since then is known already."""
    moment = 1_800_000_000.0
    async with tenant(now=lambda: moment) as at:
        at.fake.log(type="scp")
        logs, events = at.logs(), at.events()

        assert logs.since((await logs.page(None)).cursor) < moment
        assert events.since((await events.page(None)).cursor) < moment


@pytest.mark.parametrize("wrong", ["9998-01-01T00:00:00.000Z", "not a time"])
async def test_a_wrong_clock_does_not_set_a_position_into_the_future(wrong: str) -> None:
    """Nothing would be recognised as known from there on."""
    moment = 1_800_000_000.0
    async with tenant(now=lambda: moment) as at:
        events, logs = at.events(), at.logs()
        await at.fake.stream.publish(at.fake.event_of(at.fake.create_user()) | {"time": wrong})
        at.fake.log(type="scp", date=wrong)
        _, cursor = await read(events, b'{"at": 0}', 1)

        assert events.since(cursor) <= moment
        assert logs.since((await logs.page(None)).cursor) <= moment


@pytest.mark.parametrize("endless", [b"data: x\n" * 4096, b"x" * 65536], ids=["a message", "a line"])
async def test_a_stream_without_an_end_of_a_message_is_cut(endless: bytes) -> None:
    """A server that never ends a line or a message gets a bounded part of memory, and the stream is opened again later."""

    async def stream(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n")
            while True:
                writer.write(endless)
                await writer.drain()

    server = await asyncio.start_server(stream, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with aiohttp.ClientSession() as session, session.get(url) as response:
        with pytest.raises(aiohttp.ClientPayloadError, match="of the stream is too long"):
            async for _ in _messages(response.content):
                pass
    server.close()
