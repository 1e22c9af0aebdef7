"""Authgear's webhook over HTTP, given anything at all: a documented answer, no defect in the lines, no credential in the topic."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
from typing import Any

import aiohttp
import structlog
from hypothesis import given, settings
from hypothesis import strategies as st
from structlog.testing import CapturingLogger, LogCapture

from usher.delivery import Headers
from usher.engine.port import Place
from usher.event import Undecodable
from usher.metrics import Metrics
from usher.sources import decode
from usher.sources.authgear import SIGNATURE, Authgear, Habits, Step
from usher.web import OK, Ingress, Server, build_web

SECRET, HIDDEN = "whsec", "hunter2-credential"
_BOTH: frozenset[Step] = frozenset({"created", "reset"})


class Site:
    """What the web needs around it: a sink that keeps, and vitals that are fine."""

    def __init__(self) -> None:
        self.kept: list[bytes] = []
        self.lines = LogCapture()
        self.log = structlog.wrap_logger(
            CapturingLogger(), processors=[self.lines], wrapper_class=structlog.BoundLogger
        )

    async def append(self, topic: str, key: bytes | None, value: bytes, headers: Headers = ()) -> Place:
        self.kept.append(value)
        return Place(topic, 0)

    async def alive(self) -> dict[str, str]:
        return {"loop": OK}

    async def ready(self) -> dict[str, str]:
        return {"log": OK}


_LEAF = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=12)
_FIELDS = st.sampled_from(
    ["id", "seq", "type", "payload", "context", "user", "identities", "claims", "standard_attributes", "created_at",
     "timestamp", "triggered_by", "audit_context", "app_id", "told", "login_id", "body", "to", "template_variables"]
)  # fmt: skip
_SECRET_FIELDS = st.sampled_from(
    ["password", "newPassword", "code", "otp", "access_token", "reset_link", "clientSecret"]
)
_JSON = st.recursive(
    _LEAF,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(_FIELDS | st.text(max_size=6), inner, max_size=5)
        | st.dictionaries(
            _SECRET_FIELDS, st.just(HIDDEN) | st.just([HIDDEN]) | st.just({"x": HIDDEN}), min_size=1, max_size=2
        )
    ),
    max_leaves=20,
)
_EVENTS = st.fixed_dictionaries(
    {"type": st.sampled_from(["user.created", "admin_api.mutation.reset_password.executed", "x"]) | _JSON},
    optional={
        "id": _JSON,
        "payload": _JSON,
        "context": _JSON,
        "user": _JSON,
        "source": _JSON,
        "password": st.just(HIDDEN),
    },
)
_BODIES = (
    (_EVENTS | _JSON).map(lambda document: json.dumps(document).encode())
    | _EVENTS.map(
        lambda document: json.dumps({**document, "odd": "\ud800"}).encode()
    )  # JSON that no later reader could take
    | st.binary(max_size=200)
)


def test_no_body_is_too_strange() -> None:
    """Signed, and whatever it holds: 200, 202 or 400; what is stored is an event again or a dead letter, without credentials."""

    async def everything() -> None:
        site = Site()
        source = Authgear([SECRET], Habits(_BOTH, _BOTH))
        ingress = Ingress(site, "identity.events", source, Metrics(), site.log)
        web = build_web(vital=site, metrics=Metrics(), log=site.log, ingresses={"/ingest/authgear": ingress})
        server = Server(web, "127.0.0.1", 0)
        await server.start()
        async with aiohttp.ClientSession(f"http://127.0.0.1:{server.port}") as client:
            await asyncio.to_thread(_all, asyncio.get_running_loop(), client, site)
        await server.stop()

    asyncio.run(everything())


def _all(loop: asyncio.AbstractEventLoop, client: aiohttp.ClientSession, site: Site) -> None:
    async def post(body: bytes) -> int:
        signature = hmac.new(SECRET.encode(), body, hashlib.sha256).hexdigest()
        async with client.post("/ingest/authgear", data=body, headers={SIGNATURE: signature}) as answer:
            return answer.status

    @settings(max_examples=200, deadline=None)
    @given(body=_BODIES)
    def one(body: bytes) -> None:
        site.kept.clear()
        status = asyncio.run_coroutine_threadsafe(post(body), loop).result(30)
        assert status in {200, 202, 400}
        assert len(site.kept) == (status != 400)
        for value in site.kept:
            assert HIDDEN.encode() not in value
            assert _decodes(value) == (status == 200)
        told: list[Any] = [line for line in site.lines.entries if line["log_level"] != "debug"]
        assert told == []

    one()


def _decodes(value: bytes) -> bool:
    try:
        decode(value)
    except Undecodable:
        return False
    return True
