"""The files of a new handler: a small handler that works, with its template and its test."""

from __future__ import annotations

import keyword
import re
from collections.abc import Mapping
from pathlib import Path

from usher.cli._exits import Exit, Stop
from usher.event_types import event_types
from usher.handler import nearest

_NAME = re.compile(r"[a-z][a-z0-9_]*")

_HANDLER = '''"""Send a mail to the user of a {type} event."""

from usher import Context, Event, on


@on("{type}")
async def {name}(event: Event, ctx: Context) -> None:
    """Send the user a mail."""
    await ctx.email("{name}", to=event.user)
'''

_TEMPLATE = """Subject: Your account on {{ service_name }}

Hello,

something happened to your account on {{ service_name }}: {{ event.type }}.
{% if login_url %}

Log in: {{ login_url }}
{% endif %}
"""

_TEST = '''"""Test {name}: when it writes to the user, and when it does not."""

import asyncio

from {name} import {name}

from usher.testing import an_event, run


def test_it_sends_the_user_a_mail() -> None:
    result = asyncio.run(run({name}, an_event("{type}", email="kim.berg@example.com")))

    assert result.outcome == "done", result.reason
    assert [mail.to for mail in result.emails] == ["kim.berg@example.com"]


def test_a_user_without_an_address_is_skipped() -> None:
    result = asyncio.run(run({name}, an_event("{type}", email=None)))

    assert result.outcome == "skipped"


def test_it_does_not_run_for_what_users_do_themselves() -> None:
    result = asyncio.run(run({name}, an_event("{type}", triggered_by="user")))

    assert result.outcome == "filtered"
'''


def write(name: str, folder: Path, type_: str) -> list[Path]:
    """Write the handler *name* for events of *type_*, its template and its test into *folder*. Return their paths.

    Raises:
        Stop: the name or the type is not valid (2); a file exists already, and nothing was written (1).
    """
    _check(name, type_)
    files = _files(name, folder, type_)
    if there := [path for path in files if path.exists()]:
        raise Stop(f"{', '.join(map(str, there))}: exists already; choose another name, or remove it")
    for path, text in files.items():
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        except OSError as error:
            raise Stop(f"{path} can't be written: {error.strerror}") from None
    return list(files)


def _files(name: str, folder: Path, type_: str) -> Mapping[Path, str]:
    return {
        folder / f"{name}.py": _HANDLER.format(name=name, type=type_),
        folder / "templates" / name / "en.txt": _TEMPLATE,
        folder / f"test_{name}.py": _TEST.format(name=name, type=type_),
    }


def _check(name: str, type_: str) -> None:
    if not _NAME.fullmatch(name):
        raise Stop(
            f"{name!r} can't name a handler: lower case letters, digits and _, a letter first, as in welcome_back",
            Exit.USAGE,
        )
    if keyword.iskeyword(name) or keyword.issoftkeyword(name):
        raise Stop(f"{name!r} is a keyword of Python; name what the handler does, as in welcome_back", Exit.USAGE)
    if name.startswith("test_") or name.endswith("_test") or name == "conftest":
        raise Stop(f"{name!r} is the name of a test file; name what the handler does, as in welcome_back", Exit.USAGE)
    if type_ not in (known := event_types()):
        raise Stop(
            f"there is no event type {type_!r}{nearest(type_, known)}; `usher handlers --types` lists them",
            Exit.USAGE,
        )
