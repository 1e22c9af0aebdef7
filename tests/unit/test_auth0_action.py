"""The post-login Action of deploy/auth0, run by Node with an event and an API such as Auth0 gives it."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

ACTION = Path(__file__).parents[2] / "deploy" / "auth0" / "require-new-password.js"
NODE = shutil.which("node")
HARNESS = """
const action = require(process.argv[1]);
const done = [];
const api = {
  access: { deny: (reason) => done.push(["deny", reason]) },
  user: { setAppMetadata: (name, value) => done.push(["set", name, value]) },
};
action.onExecutePostLogin(JSON.parse(process.argv[2]), api).then(() => console.log(JSON.stringify(done)));
"""

pytestmark = pytest.mark.skipif(NODE is None, reason="Node is not installed: the Action is JavaScript")


def login(strategy: str = "auth0", changed: str | None = None, **app_metadata: Any) -> list[Any]:
    """What the Action does at a login."""
    user = {"app_metadata": app_metadata} | ({"last_password_reset": changed} if changed else {})
    event = {"user": user, "connection": {"strategy": strategy}}
    command = [NODE or "", "-e", HARNESS, str(ACTION), json.dumps(event)]
    done: list[Any] = json.loads(subprocess.run(command, check=True, capture_output=True, timeout=60).stdout)
    return done


def test_who_has_the_flag_is_turned_away() -> None:
    """With the way out; also where nothing says since when, and where the change was before it."""
    since = "2026-03-02T09:00:00.000+00:00"

    for metadata in ({}, {"needsPasswordResetSince": since}):
        ((what, message),) = login(needsPasswordReset=True, **metadata)
        assert (what, "Forgot Password" in message) == ("deny", True)
    assert (
        login(changed="2026-03-01T09:00:00.000Z", needsPasswordReset=True, needsPasswordResetSince=since)[0][0]
        == "deny"
    )


def test_who_has_changed_the_password_since_comes_in_at_once() -> None:
    """Usher clears the flag when the log entry reaches it: nobody should wait for that."""
    done = login(
        changed="2026-03-02T09:05:00.000Z",
        needsPasswordReset=True,
        needsPasswordResetSince="2026-03-02T09:00:00.000+00:00",
    )

    assert done == [["set", "needsPasswordReset", False]]


def test_nobody_else_is_touched() -> None:
    """Without the flag, with a cleared one, and where there is no password of Auth0's."""
    assert login() == []
    assert login(needsPasswordReset=False) == []
    assert login(strategy="google-oauth2", needsPasswordReset=True) == []
