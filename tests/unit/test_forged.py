"""Forged records: whatever others write into our own topics, no worker and no command ends because of it."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, get_args
from unittest.mock import Mock

import pytest
import structlog
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.engine import TOPIC, Bench, Script, raw, until
from tests.fakes.memory_log import MemoryBroker

from usher.cli import main
from usher.delivery import Delivery, Headers, Origin, Replay
from usher.delivery.headers import ORIGINAL_GROUP
from usher.engine.dead_letters import dead_letter_headers, state_headers
from usher.event import EventUid
from usher.eventlog.names import checkpoints_topic, dead_letter_topic, receipts_topic, retry_topic
from usher.eventlog.port import TopicPartition
from usher.outcome import Reject
from usher.receipts import Receipt, State, pack
from usher.settings import Settings
from usher.storage import browser
from usher.systems.auth0.feeds import Auth0EventsFeed, Auth0LogsFeed
from usher.systems.authgear.feed import AuthgearAuditFeed
from usher.systems.feed import Feed
from usher.systems.genauth.feed import GenAuthAuditFeed
from usher.systems.keycloak.feed import KeycloakAdminFeed

RETRY, DEAD, NOTES = retry_topic("usher", TOPIC), dead_letter_topic("usher", TOPIC), checkpoints_topic("usher")
FILED = receipts_topic("usher")


class Forged(NamedTuple):
    """A record that another program writes into a topic of ours."""

    topic: str
    key: bytes | None
    value: bytes | None
    headers: Headers


pytestmark = pytest.mark.heavy

NUMBERS = st.sampled_from(
    [
        "9" * 30, "9" * 5000, "-1", "-" + "9" * 18, "9223372036854775807", "-9223372036854775807", "253402300799999",
        "1.5", "NaN", "1_000", "", " 7", "\u0663", "0x10", "1e9",
    ]
).map(str.encode)  # fmt: skip
TEXTS = (
    st.sampled_from(
        [b"", b"/", b"//", b"a/b", b"\xff\xfe", b"\x00", b"\xed\xa0\x80", b"x" * 20_000, b"%zz/%/%2", b"0@0"]
    )
    | st.binary(max_size=12)
    | st.text(max_size=12).map(str.encode)
)
JSON = st.sampled_from(
    [
        b"{", b"[" * 100_000, b"null", b"[]", b'"x"', b"NaN", b"9" * 5000, b"-1", b"1e999", b"[1, 1, null, 7]", b"[NaN, 0, 0, null]",
        b'{"topic_id": "t", "stopped_at": 1e999}', b'{"begin": Infinity, "end": 0}', b'{"begin": 0, "end": 9e18}',
        b'{"at": "nan"}', b'{"at": 9e15}', raw("v"),
    ]
)  # fmt: skip
OURS: Headers = dead_letter_headers(
    Delivery(
        "script",
        EventUid("authgear", "demo", "x"),
        "authgear/demo/v",
        Origin(TOPIC, 0, 0, 1_764_240_000_000, b"k"),
        raw("v"),
        attempt=1,
        due=1_764_240_000_000,
        replay=Replay("r1", "0@0", 1),
    ),
    reason="rejected",
    group="usher",
    expires_at=None,
)
NAMES = sorted({name for name, _ in [*OURS, *state_headers("0@0", "open", group="usher", topic=TOPIC)]})
OWN_KEY = b"script/authgear/demo/x@0-0"
KEYS = (
    st.sampled_from([None, b"", OWN_KEY, b"replay/r1", b"replay/", b"replay/\xff", b"k" * 30_000])
    | st.sampled_from(
        [b"topic-id/identity.events/0", b"topic-id/x/" + b"9" * 5000, b"topic-id//\xd9\xa3", b"a@0-" + b"9" * 5000]
    )
    | TEXTS
)


@st.composite
def forged(draw: st.DrawFn) -> Forged:
    """A record of ours in which some headers are missing, others doubled, and others hold what Usher does not write."""
    dropped = draw(st.sets(st.sampled_from(NAMES), max_size=3))
    odd = draw(
        st.lists(st.tuples(st.sampled_from([*NAMES, "", "é", "traceparent"]), NUMBERS | TEXTS | JSON), max_size=4)
    )
    base = draw(st.sampled_from([OURS, [], [(ORIGINAL_GROUP, b"another")]]))
    return Forged(
        draw(st.sampled_from([RETRY, DEAD, NOTES])),
        draw(KEYS),
        draw(st.none() | TEXTS | JSON),
        [*(pair for pair in base if pair[0] not in dropped), *odd],
    )


RECORDS = st.lists(forged(), min_size=1, max_size=6)
WHOLE = st.sampled_from([0, 1, -1, 2**62, 2**63 - 1, -(2**63)])
TEXT = st.sampled_from(["", "x", "v", "m", "welcome_email", "é\x1b[2J", "k" * 3_000])
RECEIPTS = st.builds(
    Receipt,
    topic=st.sampled_from([TOPIC, "", "another"]), topic_id=TEXT, partition=WHOLE, offset=WHOLE, handler=TEXT, replay=TEXT, event_id=TEXT,
    type=TEXT, source=TEXT, tenant=TEXT, user_id=TEXT, username=TEXT, stored_at=WHOLE, state=st.sampled_from(get_args(State)), reason=TEXT,
    channel=TEXT, provider=TEXT, provider_id=TEXT, template=TEXT, language=TEXT, address=st.binary(max_size=40), key=TEXT,
    attempts=WHOLE, began=WHOLE, at=WHOLE, sends=st.booleans(),
)  # fmt: skip
FORGED_RECEIPTS = st.lists(RECEIPTS, min_size=1, max_size=4).map(lambda some: pack(some)[0]) | TEXTS | JSON


@given(RECORDS, st.booleans())
def test_a_worker_delivers_the_next_event_whatever_lies_in_its_topics(records: Sequence[Forged], loaded: bool) -> None:
    """Records that come while it runs (*loaded*), or were there before it started: nothing breaks, and nobody waits."""

    async def play() -> None:
        bench, script = Bench(MemoryBroker()), Script()

        async def write() -> None:
            for topic, key, value, headers in records:
                await bench.broker.write(TopicPartition(topic, 0), key, value, headers)

        if not loaded:
            await write()
        async with bench.running(script.handler()) as worker:
            if loaded:
                await write()
            await bench.emit(raw("ann"))
            await until(lambda: "ann" in [user for user, _ in script.done], within=20)
            async with worker.event_log.lease() as lease:
                lease.checkpoint("authgear")

    asyncio.run(play())


NOBODY: Any = Mock()
FEEDS: Sequence[Feed] = (
    Auth0EventsFeed(NOBODY, NOBODY),
    Auth0LogsFeed(NOBODY, NOBODY, every=1, types="*"),
    AuthgearAuditFeed(NOBODY, "app", NOBODY, ["user.created"], 1),
    GenAuthAuditFeed(NOBODY, name="audit", tenant="pool", every=1),
    KeycloakAdminFeed(NOBODY, NOBODY, name="admin", every=1),
)


@pytest.mark.parametrize("feed", FEEDS, ids=lambda feed: type(feed).__name__)
@given(cursor=JSON | TEXTS | NUMBERS)
def test_a_forged_checkpoint_is_a_lost_position(feed: Feed, cursor: bytes) -> None:
    """Polling goes on from now, and says so: it neither tries for ever nor waits for a time that is years ahead."""
    try:
        since = feed.since(cursor)
    except Reject:
        return
    assert since < time.time() + 2 * 86_400


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.chdir(tmp_path)
    configured = structlog.get_config()
    yield tmp_path
    structlog.configure(**configured)


@given(
    records=RECORDS
    | st.lists(FORGED_RECEIPTS.map(lambda value: Forged(FILED, None, value, [])), min_size=1, max_size=4)
)
@settings(
    max_examples=settings.default.max_examples // 8 if settings.default else 12,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
def test_a_command_says_something_whatever_lies_in_the_topics(
    here: Path, capsys: pytest.CaptureFixture[str], records: Sequence[Forged]
) -> None:
    """No command ends with a traceback, in rows or as JSON; what it shows of a forged dead letter can be asked for by its id."""
    for old in here.glob("usher.db*"):
        old.unlink()

    async def write() -> None:
        async with browser(Settings.load(), create=True) as event_log:
            for topic, key, value, headers in records:
                await event_log.append(topic, key, value, headers)

    asyncio.run(write())
    commands = [
        "why x", "why x --all --json", "why --user v --json", "why --address v@example.org", "why --message-id m", "untold",
        "untold --json --since 3000d", "receipts list", "receipts export", "receipts export --format csv", "receipts list --user v --json",
        "dlq list --state all", "topics plan", "topics plan --json", "check --json",
        "dlq replay --all --dry-run", "dlq replay --all --yes --even-expired", "dlq drop --all --yes", "dlq list --state all --json",
    ]  # fmt: skip
    for command in commands:
        capsys.readouterr()
        assert main(command.split()) in range(5), command
    for row in json.loads(capsys.readouterr().out):
        for how in ((), ("--json",), ("--payload",)):
            assert main(["dlq", "show", row["id"], *how]) == 0
