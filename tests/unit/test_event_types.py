"""The catalogue of event types: what a handler may name, who sends it."""

from __future__ import annotations

import pytest
from tests.unit.test_sdk import noop, refusal

from usher import on
from usher.event_types import CANONICAL_TYPES, event_types, renamed_types


def test_every_type_has_the_systems_that_send_it() -> None:
    """Canonical types come from several, raw names from their own."""
    systems = event_types()

    assert systems["user.created"] == ("authgear", "auth0", "genauth", "keycloak")
    assert systems["password.changed"] == ("auth0", "keycloak")
    assert (systems["access.LOGIN"], systems["sapi"]) == (("keycloak",), ("auth0",))
    assert all(systems.values())
    assert CANONICAL_TYPES.keys() <= systems.keys()


@pytest.mark.parametrize(
    ("raw", "canonical"),
    [
        ("admin_api.mutation.reset_password.executed", "password.reset"),
        ("scpr", "password.reset_requested"),
        ("user:created", "user.created"),
        ("access.REGISTER", "user.created"),
    ],
)
def test_a_raw_name_that_no_event_has_here_is_refused_by_its_canonical_one(raw: str, canonical: str) -> None:
    """A handler for it would never run."""
    assert f"the event type {raw!r} is called {canonical!r} here" in refusal(noop, raw)


def test_no_name_is_both_an_event_type_and_renamed() -> None:
    """Else a handler for an event that comes would be refused."""
    assert event_types().keys() & renamed_types().keys() == set()
    assert set(renamed_types().values()) <= CANONICAL_TYPES.keys()


def test_a_handler_may_name_every_type() -> None:
    """Of every system at once."""
    assert on(*event_types())(noop).types == event_types().keys()
