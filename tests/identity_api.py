"""What the tests of the identity systems' APIs share: a user, events about one, and a look through a feed's pages."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from usher.event import Event
from usher.systems.feed import Feed
from usher.testing import an_event

NOW = 1_767_600_000
FIELDS_OF_ADA = {
    "id": "ada",
    "username": "ada.k",
    "email": "ada@example.com",
    "phone": "+41440000019",
    "name": "Ada Keller",
    "locale": "de-CH",
    "disabled": False,
}
"""The fields of `usher.event.User` that a system's own description of ``ada`` comes to."""


def about(user_id: str | None = "ada", **details: Any) -> Event:
    """A reset password of a user, of which only the id is known, or not even that."""
    event = an_event("password.reset", email=None, name=None, user_id=user_id, timestamp=NOW, **details)
    return event if user_id else replace(event, user=replace(event.user, id=None))


async def look(feed: Feed, cursor: bytes) -> tuple[list[str], bytes]:
    """All pages of one look: the ids as they come, and the position after it, which never lies before that of an earlier page."""
    ids: list[str] = []
    for _ in range(200):
        page = await feed.page(cursor)
        ids += [arrival.event.id if arrival.event else "-" for arrival in page.arrivals]
        assert feed.since(page.cursor) >= feed.since(cursor)
        cursor = page.cursor
        if not page.more:
            return ids, cursor
    raise AssertionError("the look does not end")
