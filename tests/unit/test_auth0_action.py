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
const login = async (event) => {
  const done = [];
  const api = {
    access: { deny: (reason) => done.push(["deny", reason]) },
    user: { setAppMetadata: (name, value) => done.push(["set", name, value]) },
  };
  await action.onExecutePostLogin(event, api);
  return done;
};
Promise.all(JSON.parse(process.argv[2]).map(login)).then((all) => console.log(JSON.stringify(all)));
"""

pytestmark = pytest.mark.skipif(NODE is None, reason="Node is not installed: the Action is JavaScript")


def login(strategy: str = "auth0", changed: str | None = None, **app_metadata: Any) -> dict[str, Any]:
    """An event of a login."""
    user = {"app_metadata": app_metadata} | ({"last_password_reset": changed} if changed else {})
    return {"user": user, "connection": {"strategy": strategy}}


def done_at(*logins: dict[str, Any]) -> list[list[Any]]:
    """What the Action does at each login."""
    command = [NODE or "", "-e", HARNESS, str(ACTION), json.dumps(logins)]
    done: list[list[Any]] = json.loads(subprocess.run(command, check=True, capture_output=True, timeout=60).stdout)
    return done


def test_who_has_the_flag_is_turned_away() -> None:
    """With the way out; also where nothing says since when, and where the change was before it."""
    since = "2026-03-02T09:00:00.000+00:00"

    for ((what, message),) in done_at(
        login(needsPasswordReset=True),
        login(needsPasswordReset=True, needsPasswordResetSince=since),
        login(changed="2026-03-01T09:00:00.000Z", needsPasswordReset=True, needsPasswordResetSince=since),
    ):
        assert (what, "Forgot Password" in message) == ("deny", True)


def test_who_has_changed_the_password_since_comes_in_at_once() -> None:
    """Usher clears the flag when the log entry reaches it: nobody should wait for that."""
    after = login(
        changed="2026-03-02T09:05:00.000Z",
        needsPasswordReset=True,
        needsPasswordResetSince="2026-03-02T09:00:00.000+00:00",
    )

    assert done_at(after) == [[["set", "needsPasswordReset", False]]]


def test_nobody_else_is_touched() -> None:
    """Without the flag, with a cleared one, and where there is no password of Auth0's."""
    others = login(), login(needsPasswordReset=False), login(strategy="google-oauth2", needsPasswordReset=True)

    assert done_at(*others) == [[], [], []]
