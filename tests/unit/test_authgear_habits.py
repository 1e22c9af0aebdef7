"""What the user hears without us. Authgear's events do not say it: settings and marks do, and no user hears twice."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from usher import Handler
from usher.event import Event
from usher.systems.authgear.source import OUR_CALLS, AuthgearHabits, AuthgearSource
from usher.systems.decode import decode
from usher.testing import raw_event, run
from usher_handlers.reset_instructions import reset_instructions
from usher_handlers.sms_notice import sms_notice
from usher_handlers.welcome_email import welcome_email

CREATED, EARLY, LATE = 1_767_600_000, 1_767_600_060, 1_767_700_000
MAILS_BOTH = AuthgearHabits(mails=frozenset({"created", "reset"}))
EXPIRES_BOTH = AuthgearHabits(expires=frozenset({"created", "reset"}))
ALL = AuthgearHabits(MAILS_BOTH.mails, EXPIRES_BOTH.expires)
NUMBER = "+12025550123"


def arrived(type_: str, habits: AuthgearHabits, **details: Any) -> Event:
    """The event as it is stored and read again; both are the same."""
    user = {"id": "kim", "created_at": "2026-01-05T08:00:00.123456Z", "standard_attributes": {}}
    for name, field in (("email", "email"), ("phone", "phone_number")):
        if details.get(name):
            user["standard_attributes"][field] = details[name]  # type: ignore[index]
    details = {"email": None, "timestamp": CREATED, "payload": {"user": user}, **details}
    body = raw_event(type_, **details)
    [arrival] = AuthgearSource(["secret"], habits).arrivals(body, {}, 0.0)
    assert arrival.event is not None
    assert decode(arrival.value) == arrival.event
    assert arrival.event.uid == decode(body).uid
    return arrival.event


@pytest.mark.parametrize(
    ("habits", "type_", "details", "reason"),
    [
        (AuthgearHabits(), "user.created", {"email": "kim@example.com"}, None),
        (AuthgearHabits(), "password.expired", {"email": "kim@example.com"}, None),
        (MAILS_BOTH, "user.created", {"email": "kim@example.com"}, "SENDS_PASSWORD"),
        (MAILS_BOTH, "user.created", {"phone": NUMBER}, None),
        (MAILS_BOTH, "user.created", {"email": "kim@example.com", "triggered_by": "user"}, None),
        (MAILS_BOTH, "password.reset", {"email": "kim@example.com"}, "SENDS_PASSWORD"),
        (MAILS_BOTH, "password.expired", {"email": "kim@example.com"}, None),
        (AuthgearHabits(mails=frozenset({"created"})), "password.reset", {"email": "kim@example.com"}, None),
        (AuthgearHabits(mails=frozenset({"reset"})), "user.created", {"email": "kim@example.com"}, None),
        (EXPIRES_BOTH, "user.created", {"email": "kim@example.com"}, None),
        (EXPIRES_BOTH, "password.reset", {"email": "kim@example.com"}, "EXPIRES_PASSWORD"),
        (EXPIRES_BOTH, "password.expired", {"email": "kim@example.com", "timestamp": EARLY}, "EXPIRES_PASSWORD"),
        (EXPIRES_BOTH, "password.expired", {"email": "kim@example.com", "timestamp": LATE}, None),
        (ALL, "password.reset", {"phone": NUMBER}, "EXPIRES_PASSWORD"),
        (ALL, "password.expired", {"email": "kim@example.com", "timestamp": LATE}, "SENDS_PASSWORD"),
        (ALL, "password.expired", {"phone": NUMBER, "timestamp": LATE}, None),
        (ALL, "password.reset_requested", {"email": "kim@example.com"}, None),
        (ALL, "user.disabled", {"email": "kim@example.com"}, None),
    ],
)
def test_what_the_back_office_does(
    habits: AuthgearHabits, type_: str, details: dict[str, Any], reason: str | None
) -> None:
    """Held back is what Authgear mails itself, and of two events of one doing the second; never anything else."""
    found = arrived(type_, habits, **details).context.already_notified_by

    assert found is None if reason is None else found is not None and reason in found


@pytest.mark.parametrize("created_at", [None, 5, "yesterday", "0001-01-01T00:00:00Z", "9999-12-31T23:59:59+00:00"])
def test_a_creation_that_cannot_be_dated(created_at: object) -> None:
    """No date, no part of the creation; one that lies ahead is still being created by Authgear's own clock."""
    body = json.loads(raw_event("password.expired", payload={"user": {"id": "k", "created_at": created_at}}))
    [arrival] = AuthgearSource((), EXPIRES_BOTH).arrivals(json.dumps(body).encode(), {}, 0.0)

    assert arrival.event is not None
    assert bool(arrival.event.context.already_notified_by) == (created_at == "9999-12-31T23:59:59+00:00")


@pytest.mark.parametrize(
    ("create", "reset"),
    [(AuthgearHabits(), AuthgearHabits()), (MAILS_BOTH, MAILS_BOTH), (EXPIRES_BOTH, EXPIRES_BOTH), (ALL, ALL)],
    ids=["neither", "mails", "expires", "both"],
)
@pytest.mark.parametrize("address", [{"email": "kim@example.com"}, {"phone": NUMBER}], ids=["email", "phone"])
async def test_nobody_hears_twice(create: AuthgearHabits, reset: AuthgearHabits, address: dict[str, str]) -> None:
    """An account is made, and later its password reset, by a back office of these habits: one message of each doing.

    It comes from Authgear where that mails the password, and from us otherwise.
    """
    mailed = "email" in address and bool(create.mails)
    made = [arrived("user.created", create, **address)]
    anew = [arrived("password.reset", reset, timestamp=LATE, **address)]
    if create.expires:
        made.append(arrived("password.expired", create, timestamp=EARLY, **address))
        anew.append(arrived("password.expired", reset, timestamp=LATE + 1, **address))

    for doing in (made, anew):
        sent = [await _messages(event) for event in doing]
        assert sum(sent) == (0 if mailed else 1)


async def _messages(event: Event) -> int:
    """How many messages the bundled handlers send about *event*."""
    fresh = replace(event, context=replace(event.context, timestamp=None))
    handlers: list[Handler] = [welcome_email, sms_notice, reset_instructions]
    results = [await run(handler, fresh) for handler in handlers if event.type in handler.types]
    return sum(len(result.emails) + len(result.texts) for result in results)


def test_our_own_calls_are_known_again_wherever_they_are_read() -> None:
    """By the mark that Authgear carries from our token into the event; no setting is needed, nor any source."""
    ours = {"audit_context": {"http_url": "https://a.example.com/_api/admin/graphql", **OUR_CALLS}}
    event = decode(raw_event("password.expired", context=ours))
    portal = {"audit_context": {"usage": "proxy", "actor_user_id": "x"}}

    assert "Usher itself" in (event.context.already_notified_by or "")
    assert event.context.triggered_by == "admin_api"
    for other in (portal, {"audit_context": None}, {"audit_context": "usher"}, {"audit_context": {"usage": ["usher"]}}):
        assert decode(raw_event("password.expired", context=other)).context.already_notified_by is None


@pytest.mark.parametrize("given", [5, ["x"], {"a": 1}, True])
def test_a_mark_that_is_no_text_does_not_count(given: object) -> None:
    """A bridge's field of a wrong type is left out, as others are."""
    assert decode(raw_event(context={"already_notified_by": given})).context.already_notified_by is None
