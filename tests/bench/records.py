"""The records of all workloads: Authgear's events of about 1.3 kB, keyed by user. Hides what they look like."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from functools import cache

from usher import Event
from usher.testing import raw_event

USERS = 1_000
OURS = "admin_api"
NOT_OURS = "user"
_AGENT = "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/124.0.0.0 Safari/537.36"
_REFERER = "https://portal.example.org/project/demo/user-management/users/add-user"
_TEMPLATE = raw_event(
    id="@ID",
    user_id="@USER",
    email="@MAIL",
    language="@LANGUAGE",
    triggered_by="@BY",
    timestamp=0,
    context={"user_agent": _AGENT, "audit_context": {"http_referer": _REFERER, "usage": "proxy"}, "timestamp": "@AT"},
)
_PAYLOAD = b'"payload": {'
Pair = tuple[bytes, bytes]
"""The key and the value of a record."""


def record(
    number: int, user: int, *, at: float, ours: bool = True, email: str = "kim.berg@example.com", language: str = "en"
) -> Pair:
    """Event *number*, of a *user*, that happened *at* (Unix seconds)."""
    key = f"00000000-0000-4000-8000-{user:012d}".encode()
    value = (
        _TEMPLATE.replace(b"@ID", b"%016x" % number)
        .replace(b"@USER", key)
        .replace(b"@BY", (OURS if ours else NOT_OURS).encode())
        .replace(b"@MAIL", email.encode())
        .replace(b"@LANGUAGE", language.encode())
        .replace(b'"@AT"', b"%.3f" % at)
    )
    return key, value


def mix(
    count: int, *, at: float, share: float = 1.0, seed: int = 1, first_user: int = 0, users: int = USERS
) -> Iterator[Pair]:
    """*count* events of as many *users* in turns of chance; every 1/*share*-th is ours, evenly, so that each run has as many."""
    chance = random.Random(seed)
    every = round(1 / share)
    for number in range(count):
        yield record(number, first_user + chance.randrange(users), at=at, ours=number % every == 0)


def people(count: int, *, at: float) -> Iterator[Pair]:
    """The creation of *count* users, all by an administrator: each has an address, and every second one speaks German."""
    for number in range(count):
        yield record(number, number, at=at, email=f"user.{number}@example.org", language="de" if number % 2 else "en")


def grown(pair: Pair, more: int) -> Pair:
    """The same event, whose payload also has a list of small objects of *more* bytes or a little less."""
    key, value = pair
    return key, value.replace(_PAYLOAD, _PAYLOAD + _history(more), 1) if more else value


@cache
def _history(size: int) -> bytes:
    entries = [{"number": number, "action": "profile.updated", "by": "someone@example.com"} for number in range(size)]
    fitting = size // (len(json.dumps(entries[-1])) + 2)
    return b'"history":' + json.dumps(entries[:fitting]).encode() + b","


def look_at(event: Event) -> None:
    """What a handler that reads its event does: user, payload and context are asked for."""
    _seen = event.user.email, event.payload, event.context.language
