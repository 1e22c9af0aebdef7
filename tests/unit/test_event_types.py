"""The catalogue of event types: what a handler may name, who sends it, and how little it takes to know that."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from tests.unit.test_sdk import noop, refusal

from usher import on
from usher.event_types import CANONICAL_TYPES, event_types, renamed_types

HEAVY = {"aiohttp", "aiokafka", "cryptography", "jinja2", "phonenumbers", "pydantic_settings", "sendgrid", "twilio"}


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


def test_every_name_is_known_without_any_client() -> None:
    """A handler's file names the types of all systems, and loads neither their clients nor the settings."""
    script = (
        "import sys, json; from usher import on; from usher.event_types import event_types; "
        "on(*event_types()); print(json.dumps(sorted({name.partition('.')[0] for name in sys.modules})))"
    )
    ran = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True, timeout=60)

    assert HEAVY.isdisjoint(json.loads(ran.stdout))
    assert on(*event_types())(noop).types == event_types().keys()
