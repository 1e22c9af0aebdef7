"""The web side as its callers see it: a real server on a port of the system's choice, spoken to over HTTP."""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest
import structlog
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.ingress import PATH, Site, Vitals, sign

from usher.eventlog.errors import LogUnavailable, TooLarge
from usher.metrics import Metrics
from usher.settings.http import HttpLimits
from usher.systems.authgear.source import SIGNATURE, AuthgearSource
from usher.systems.prefilter import prefilter
from usher.web import OK, WebServer, build_web

SECRET = "whsec-first"
EVENT = {
    "id": "0000000000000001",
    "type": "user.created",
    "payload": {"user": {"id": "u-1", "standard_attributes": {"email": "ada@example.com"}}},
    "context": {"triggered_by": "admin_api", "user_id": "u-1", "app_id": "demo"},
}


@asynccontextmanager
async def running(secrets: tuple[str, ...] = (SECRET,), **options: Any) -> AsyncIterator[Site]:
    async with Site(AuthgearSource(secrets) if secrets else None, signed, **options) as site:
        yield site


def signed(body: bytes, secret: str = SECRET) -> dict[str, str]:
    return sign(SIGNATURE, body, secret)


BODY = json.dumps(EVENT, indent=2).encode()


async def test_a_signed_event_is_stored_as_it_came_under_its_user() -> None:
    """A signed event is in the topic byte for byte, keyed by its user, when the sender hears 200."""
    async with running() as site:
        assert await site.post(BODY, signed(BODY)) == 200
        assert site.kept == [("identity.events", b"u-1", BODY)]
        assert site.counted("stored") == 1


async def test_the_answer_waits_for_the_log() -> None:
    """No success is answered before the event log has acknowledged."""
    async with running() as site:
        site.shelf.acknowledges.clear()
        call = asyncio.create_task(site.post(BODY, signed(BODY)))
        await site.shelf.reached.wait()
        assert not call.done()
        site.shelf.trouble = LogUnavailable("no broker")
        site.shelf.acknowledges.set()
        assert await call == 503


async def test_stopping_lets_a_call_that_waits_for_the_log_end() -> None:
    """A call that is being answered when the server stops gets its answer."""
    async with running() as site:
        site.shelf.acknowledges.clear()
        call = asyncio.create_task(site.post(BODY, signed(BODY)))
        await site.shelf.reached.wait()
        stop = asyncio.create_task(site.server.stop())
        site.shelf.acknowledges.set()
        assert await call == 200
        await stop


@pytest.mark.parametrize("secret", ["whsec-old", "whsec-new"])
async def test_every_secret_counts_while_they_are_rotated(secret: str) -> None:
    """With two secrets configured, a body signed by either is taken."""
    async with running(secrets=("whsec-old", "whsec-new")) as site:
        assert await site.post(BODY, signed(BODY, secret)) == 200


@pytest.mark.parametrize(
    "signature",
    [None, "", "0" * 64, "zz", "é" * 64, "sha256=" + signed(BODY)[SIGNATURE], signed(BODY, "other")[SIGNATURE]],
    ids=["missing", "empty", "zeros", "short", "non-ascii", "prefixed", "other-secret"],
)
async def test_a_wrong_signature_is_401(signature: str | None) -> None:
    """A signature that no known secret made of this body, or none at all, is refused and nothing is stored."""
    async with running() as site:
        assert await site.post(BODY, {} if signature is None else {SIGNATURE: signature}) == 401
        assert site.kept == []
        assert site.counted("bad-signature") == 1


async def test_the_signature_is_over_the_raw_body() -> None:
    """The same document with other white space needs another signature."""
    async with running() as site:
        assert await site.post(json.dumps(EVENT).encode(), signed(BODY)) == 401


async def test_a_signature_in_capitals_counts() -> None:
    """Hexadecimal digits are the same in either case."""
    async with running() as site:
        assert await site.post(BODY, {SIGNATURE: signed(BODY)[SIGNATURE].upper()}) == 200


async def test_forgeries_warn_once_a_minute_with_their_number() -> None:
    """The first bad signature warns at once; those of the next minute are one line that counts them."""
    async with running() as site:
        for _ in range(3):
            await site.post(BODY, {})
        site.now = 61.0
        await site.post(BODY, {})
        warnings = [line for line in site.lines.entries if line["event"] == "webhook refused: bad signature"]
        assert [line["count"] for line in warnings] == [1, 3]


async def test_without_a_secret_there_is_no_such_path() -> None:
    """Nobody configured a secret: the path is 404."""
    async with running(secrets=()) as site:
        assert await site.post(BODY, signed(BODY)) == 404


@pytest.mark.parametrize("secrets", [("",), ("good", ""), "one-text"])
def test_an_empty_secret_is_refused_at_construction(secrets: Any) -> None:
    """An empty key would sign for anybody, and a text is not a list of secrets."""
    with pytest.raises(ValueError, match="secrets"):
        AuthgearSource(secrets)


@pytest.mark.parametrize("body", [b"", b"hello", b"{", b'{"a": NaN}', b"\xff{}", b"a=1&b=2", gzip.compress(BODY)])
async def test_signed_bytes_that_are_no_json_are_400(body: bytes) -> None:
    """What is not JSON is refused, once the signature is known to be good."""
    async with running() as site:
        assert await site.post(body, signed(body)) == 400
        assert await site.post(body, {}) == 401
        assert site.kept == []
        assert site.counted("not-json") == 1


@pytest.mark.parametrize(
    "body",
    [
        b"[]",
        b'"text"',
        b"{}",
        b'{"type": null}',
    ],
    ids=["list", "text", "empty", "null-type"],
)
async def test_signed_json_that_is_no_event_is_stored_and_202(body: bytes) -> None:
    """Authgear never sends again: signed JSON that can't be decoded is kept, and no prefilter hides it from the decoder."""
    async with running() as site:
        assert await site.post(body, signed(body)) == 202
        [(topic, key, value)] = site.kept
        assert (topic, key) == ("identity.events", None)
        assert value.rstrip(b"\n") == body
        assert prefilter({"admin_api"})(value)
        assert site.counted("undecodable") == 1


@pytest.mark.parametrize(
    "body",
    [
        b'{"password": "hunter2", "type": "\\ud800"}',
        b'{"password": "hunter2", "x": ' + b"[" * 2000 + b"]" * 2000 + b"}",
        b'{"password": "hunter2", "n":' + b"9" * 5000 + b"}",
    ],
    ids=["lone-surrogate", "deep", "huge-number"],
)
async def test_of_signed_json_that_cannot_be_parsed_a_stub_is_stored(body: bytes) -> None:
    """Nobody can take the credentials out of it: the dead letter says that there was something, its size and its digest."""
    async with running() as site:
        assert await site.post(body, signed(body)) == 202
        [(_topic, _key, value)] = site.kept
        assert b"hunter2" not in value
        assert json.loads(value)["sha256"] == hashlib.sha256(body).hexdigest()
        assert prefilter({"admin_api"})(value)
        assert site.counted("undecodable") == 1


async def test_credentials_are_taken_out_before_storing() -> None:
    """A password or a code in the body never reaches the event log."""
    body = json.dumps(
        {**EVENT, "payload": {"user": {"id": "u-1", "newPassword": "hunter2"}, "code": "420240"}}
    ).encode()
    async with running() as site:
        assert await site.post(body, signed(body)) == 200
        [(_topic, key, value)] = site.kept
        assert key == b"u-1"
        assert b"hunter2" not in value
        assert b"420240" not in value
        assert json.loads(value)["payload"] == {"user": {"id": "u-1"}}


async def test_a_body_at_the_limit_is_taken_and_one_byte_more_is_413() -> None:
    """The limit is a number of bytes of the body, inclusive."""
    async with running(limit=len(BODY)) as site:
        assert await site.post(BODY, signed(BODY)) == 200
        longer = BODY + b" "
        assert await site.post(longer, signed(longer)) == 413
        assert site.counted("too-large") == 1


async def test_a_chunked_body_is_cut_off_at_the_limit() -> None:
    """A body that does not say its length is refused while it still arrives: the sender never gets to its end."""
    sent = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal sent
        for _ in range(4096):
            sent += 65536
            yield b"x" * 65536

    async with running(limit=1000) as site:
        try:
            status = await site.post(endless(), {SIGNATURE: "0" * 64})
        except aiohttp.ClientError:  # the connection may be closed under a sender that goes on and on
            status = 413
        assert status == 413
        assert site.counted("too-large") == 1
        assert site.kept == []


async def test_a_compressed_bomb_is_not_unpacked() -> None:
    """Content-Encoding changes nothing: the signature and the limit are about the bytes as sent."""
    bomb = gzip.compress(b" " * 50_000_000)
    async with running(limit=len(bomb)) as site:
        status = await site.post(bomb, {**signed(bomb), "Content-Encoding": "gzip"})
        assert status == 400
        assert site.kept == []


@pytest.mark.parametrize(
    ("trouble", "status", "outcome"),
    [
        (LogUnavailable("no broker"), 503, "event-log-down"),
        (ConnectionRefusedError(111, "refused"), 503, "event-log-down"),
        (TooLarge("2 MB"), 413, "too-large"),
    ],
)
async def test_what_the_log_refuses(trouble: Exception, status: int, outcome: str) -> None:
    """An event log that is down is 503 with the time to wait, a record that will never fit is 413."""
    async with running() as site:
        site.shelf.trouble = trouble
        async with site.client.post(PATH, data=BODY, headers=signed(BODY)) as answer:
            assert answer.status == status
            assert ("Retry-After" in answer.headers) == (status == 503)
        assert site.counted(outcome) == 1


async def test_a_log_that_never_answers_is_503() -> None:
    """The sender does not wait for ever."""
    async with running(patience=0.05) as site:
        site.shelf.acknowledges.clear()
        assert await site.post(BODY, signed(BODY)) == 503


async def test_a_defect_is_503_and_says_nothing_of_the_request() -> None:
    """Even an error that nobody thought of is no 500, and its line quotes nothing."""
    async with running() as site:
        site.shelf.trouble = RuntimeError("ada@example.com")
        assert await site.post(BODY, signed(BODY)) == 503
        assert "ada@example.com" not in repr(site.lines.entries)
        assert [line["error"] for line in site.lines.entries if line["event"] == "web defect"] == ["RuntimeError"]


async def test_no_personal_data_in_the_lines() -> None:
    """The log line of a stored event names its topic and partition, not its user."""
    async with running() as site:
        await site.post(BODY, signed(BODY))
        [line] = site.lines.entries
        assert (line["event"], line["log_level"]) == ("webhook stored", "debug")
        assert "ada@" not in repr(line)
        assert "u-1" not in repr(line)


async def raw(port: int, request: bytes) -> bytes:
    """What the server says to these bytes until it closes the connection."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(request)
        async with asyncio.timeout(20):
            return await reader.read()
    except ConnectionError:
        return b""
    finally:
        writer.close()


@pytest.mark.parametrize(
    "rest",
    [
        b"Transfer-Encoding: chunked\r\n\r\nzz\r\nhello\r\n0\r\n\r\n",
        b"Transfer-Encoding: chunked\r\n\r\n5\r\nhel",
        b"Content-Length: -1\r\n\r\n",
        b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
        b"Content-Length: 99999999999999999999\r\n\r\nhello",
        b"Content-Length: 2\r\nExpect: miracles\r\n\r\n{}",
        b"X-Long: " + b"x" * 20000 + b"\r\nContent-Length: 0\r\n\r\n",
        b"\xff\xfe: \x00\r\n\r\n",
        SIGNATURE.encode() + b": \xff\xfe\r\nContent-Length: 2\r\n\r\n{}",
    ],
)
async def test_malformed_http_is_refused(rest: bytes) -> None:
    """Broken framing and headers end in a 4xx or a closed connection, and the server goes on."""
    async with running(body_timeout=0.5) as site:
        answer = await raw(
            site.server.port, b"POST " + PATH.encode() + b" HTTP/1.1\r\nHost: x\r\nConnection: close\r\n" + rest
        )
        assert answer == b"" or answer.startswith((b"HTTP/1.1 4", b"HTTP/1.0 4")), answer
        assert await site.post(BODY, signed(BODY)) == 200


async def test_a_body_that_never_comes_is_408() -> None:
    """A sender that stops in the middle does not hold its connection for ever."""
    async with running(body_timeout=0.05) as site:
        reader, writer = await asyncio.open_connection("127.0.0.1", site.server.port)
        writer.write(b"POST " + PATH.encode() + b" HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n{")
        assert (await reader.readline()).startswith(b"HTTP/1.1 408")
        writer.close()
        assert site.counted("incomplete") == 1


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=12,
)
_BODIES = st.binary(max_size=300) | _JSON.map(lambda document: json.dumps(document).encode())
_ALLOWED = {200, 202, 400, 401, 413, 503}


def test_never_a_500_whatever_comes() -> None:
    """Any body, any content type, signed or not, a log that works or not: the answer is one of the documented ones."""

    async def everything() -> None:
        async with running() as site:
            loop = asyncio.get_running_loop()

            @settings(max_examples=150, deadline=None)
            @given(
                body=_BODIES,
                sign=st.booleans(),
                kind=st.sampled_from(
                    ["application/json", "text/plain", "multipart/form-data", "x", "", "a/b; charset=?"]
                ),
                signature=st.text(
                    st.characters(min_codepoint=32, max_codepoint=255, exclude_characters="\x7f"), max_size=70
                ),
                trouble=st.sampled_from([None, LogUnavailable("x"), TooLarge("x"), ValueError("x")]),
            )
            def check(body: bytes, sign: bool, kind: str, signature: str, trouble: Exception | None) -> None:
                site.shelf.trouble = trouble
                headers = {**(signed(body) if sign else {SIGNATURE: signature}), "Content-Type": kind}
                status = asyncio.run_coroutine_threadsafe(site.post(body, headers), loop).result(20)
                assert status in _ALLOWED
                assert sign == (status != 401) or signature == signed(body)[SIGNATURE]

            await asyncio.to_thread(check)

    asyncio.run(everything())


async def test_health_names_each_check() -> None:
    """Alive and ready answer 200 with every check; one that fails makes it 503 and says what is wrong."""
    async with running() as site:
        async with site.client.get("/healthz") as answer:
            assert answer.status == 200
            assert await answer.json() == {"status": "ok", "checks": {"loop": "ok", "polling": "ok"}}
        site.vitals.ready_checks = {"claims": "starting: 1 of 3 loaded", "event_log": OK}
        async with site.client.get("/readyz") as answer:
            assert answer.status == 503
            assert await answer.json() == {
                "status": "failing",
                "checks": {"claims": "starting: 1 of 3 loaded", "event_log": "ok"},
            }


async def test_a_check_that_breaks_has_failed() -> None:
    """An error inside a check is 503 with its kind, without its text."""
    async with running() as site:
        site.vitals.trouble = RuntimeError("secret")
        async with site.client.get("/readyz") as answer:
            text = await answer.text()
            assert answer.status == 503
            assert "RuntimeError" in text
            assert "secret" not in text


async def test_metrics_are_prometheus_text() -> None:
    """What was counted can be scraped."""
    async with running() as site:
        await site.post(BODY, signed(BODY))
        async with site.client.get("/metrics") as answer:
            text = await answer.text()
            assert answer.headers["Content-Type"].startswith("text/plain; version=")
            assert 'usher_ingested_total{outcome="stored",source="authgear"} 1.0' in text


@pytest.mark.parametrize(
    ("method", "path", "status"), [("GET", PATH, 405), ("POST", "/ingest/other", 404), ("GET", "/", 404)]
)
async def test_other_paths_and_methods(method: str, path: str, status: int) -> None:
    """What is not offered is refused in the usual words."""
    async with running() as site, site.client.request(method, path) as answer:
        assert answer.status == status
        assert "Server" not in answer.headers


async def test_a_taken_port_is_named() -> None:
    """A second server on the same port says which address can't be had."""
    async with running() as site:
        second = WebServer(
            build_web(vital=Vitals(), metrics=Metrics(), logger=structlog.get_logger()),
            "127.0.0.1",
            site.server.port,
            limits=HttpLimits(),
            bounds=site.bounds,
        )
        with pytest.raises(OSError, match=f"can't listen on 127.0.0.1:{site.server.port}"):
            await second.start()
