"""What importing costs: a handler's file, `usher --help` and the service load no client that they don't use."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

CLIENTS = {
    "aiohttp",
    "aiokafka",
    "aiosmtplib",
    "cryptography",
    "jinja2",
    "phonenumbers",
    "sendgrid",
    "twilio",
    "uvloop",
}
STEPS = [
    ("import usher", CLIENTS | {"pydantic_settings", "sqlite3"}),
    ("import usher_handlers.welcome_email", CLIENTS | {"pydantic_settings", "sqlite3"}),
    ("usher.on(*usher.event_types.event_types())", CLIENTS | {"pydantic_settings", "sqlite3"}),
    ("import usher.eventlog", CLIENTS | {"sqlite3"}),
    ("import usher.settings", CLIENTS - {"cryptography"} | {"sqlite3"}),
    ("import usher.app, usher.operate.checks, usher.channels.sendgrid", {"sendgrid", "twilio"}),
    ("import aiohttp, sendgrid", {"twilio"}),
]
"""What is done in one fresh interpreter, one after the other, and what is not loaded after each."""


@pytest.mark.heavy
def test_nothing_loads_a_client_before_it_is_wanted() -> None:
    """A handler's test starts at once, settings are read by every command, and only who sends by a provider waits for it."""
    done = "; ".join(f"{statement}; note()" for statement, _ in STEPS)
    script = f"import sys, json; note = lambda: print(json.dumps([*sys.modules])); {done}"
    ran = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True, timeout=60)
    loaded = [{name.partition(".")[0] for name in json.loads(line)} for line in ran.stdout.splitlines()]

    assert [unwanted & names for (_, unwanted), names in zip(STEPS, loaded, strict=True)] == [set()] * len(STEPS)
    assert {"aiohttp", "sendgrid"} <= loaded[-1], "the test is able to fail"
