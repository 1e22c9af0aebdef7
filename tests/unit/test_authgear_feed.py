"""The audit log's feed against every history: entries late, many in one second, pages of any size, looks at any time."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

from hypothesis import example, given
from hypothesis import strategies as st
from tests.fakes.authgear import FakeAuthgear

from usher.systems.authgear.api import AuditLogPage
from usher.systems.authgear.feed import OVERLAP, AuthgearAuditFeed
from usher.systems.authgear.source import AuthgearSource
from usher.testing import raw_event

NOW = 1_767_600_000
_FAKE = FakeAuthgear()


class FakeApi:
    """What the feed asks, answered by the fake without HTTP between them."""

    def __init__(self, page_size: int) -> None:
        self.fake, self.asked = _FAKE, 0
        self.fake.audit_log.clear()
        self.fake.page_size = page_size

    async def logs(
        self, since: str | None, types: Sequence[str], *, first: int, after: str | None = None
    ) -> AuditLogPage:
        self.asked += 1
        found: Mapping[str, Any] = self.fake._audit_logs(
            {"from": since, "types": types, "first": first, "after": after}, {}
        )
        return AuditLogPage(found["edges"], bool(found["edges"]) and found["pageInfo"]["hasNextPage"], "")


_STEPS = st.lists(
    st.one_of(
        st.integers(0, 400).map(lambda seconds: ("wait", seconds)),
        st.tuples(st.just("entry"), st.integers(0, int(OVERLAP) - 1)),
        st.just(("look", 0)),
        st.just(("page", 0)),
    ),
    max_size=60,
)


@given(steps=_STEPS, page_size=st.integers(4, 9))
@example(  # one comes late while a look waits between two pages
    [("wait", 1), *[("entry", 0)] * 3, ("entry", 1), ("page", 0), ("entry", 1), ("wait", 300), ("entry", 0)], 4
)
def test_nothing_is_missed(steps: list[tuple[str, int]], page_size: int) -> None:
    """Whatever came late by less than the overlap is brought; a look ends, and asks a bounded number of times."""

    async def story() -> tuple[set[str], set[str]]:
        clock = NOW
        api = FakeApi(page_size)
        feed = AuthgearAuditFeed(api, "example", AuthgearSource(), ["user.created"], 15.0, now=lambda: clock)  # type: ignore[arg-type]
        cursor = (await feed.page(None)).cursor
        written: dict[str, int] = {}
        found: set[str] = set()
        seconds: dict[int, int] = {}
        for step, number in [*steps, ("look", 0), ("look", 0)]:
            if step == "wait":
                clock += number
            elif step == "entry":
                at = max(NOW, clock - number)
                if (
                    seconds.get(at, 0) < page_size - 1
                ):  # Authgear's own order decides within a second larger than a page
                    seconds[at] = seconds.get(at, 0) + 1
                    id_ = f"e{len(written)}"
                    written[id_] = at
                    api.fake.happens(raw_event(id=id_, tenant="example", timestamp=at))
            else:
                before = api.asked
                while True:
                    since = feed.since(cursor)
                    page = await feed.page(cursor)
                    ids = [arrival.event.id for arrival in page.arrivals if arrival.event]
                    assert all(written[id_] >= since for id_ in ids)
                    assert feed.since(page.cursor) >= since
                    found |= set(ids)
                    cursor = page.cursor
                    if step == "page" or not page.more:
                        break
                assert api.asked - before <= len(written) + 2
        return set(written), found

    written, found = asyncio.run(story())

    assert found == written


@given(count=st.integers(1, 40), page_size=st.integers(1, 5))
def test_a_second_fuller_than_a_page_ends_all_the_same(count: int, page_size: int) -> None:
    """The API's own numbering is used within it; what follows is reached."""

    async def story() -> set[str]:
        api = FakeApi(page_size)
        for number in range(count):
            api.fake.happens(raw_event(id=f"e{number}", tenant="example", timestamp=NOW))
        api.fake.happens(raw_event(id="after", tenant="example", timestamp=NOW + 1))
        feed = AuthgearAuditFeed(api, "example", AuthgearSource(), ["user.created"], 15.0, now=lambda: NOW)  # type: ignore[arg-type]
        cursor, found, more = (await feed.page(None)).cursor, set(), True
        while more:
            page = await feed.page(cursor)
            found |= {arrival.event.id for arrival in page.arrivals if arrival.event}
            cursor, more = page.cursor, page.more
            assert api.asked < 3 * count + 9
        return found

    assert "after" in asyncio.run(story())
