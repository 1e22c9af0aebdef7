"""`usher demo`, as a new user runs it: what it leaves, what it says, and that it does not praise what did not happen."""

from __future__ import annotations

import asyncio
import contextlib
import email
import email.policy
import json
import os
import re
import signal
import sys
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests import warm

from usher.cli import main
from usher.demo import play, service, story
from usher.demo.cast import MARA, NOOR, SCENES
from usher.demo.judge import Facts, Scrape, failures, kind_of
from usher.demo.outbox import NOTE, DemoOutbox, SentMessage
from usher.testing.providers import DROP, FakeProviders, Fault
from usher.testing.wire import Request

_MAILS = Counter(
    {f"{name}@example.org": 2 if name == "mara" else 1 for name in ("mara", "jonas", "noor", "ines", "lin", "tomas")}
)
_TEXTS = Counter({"+12025550123": 1})
_WITHIN = 100.0


@contextlib.asynccontextmanager
async def _demo(folder: Path, *options: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """The demo, started in *folder* by a user whose own settings would break it."""
    temporary = folder / "tmp"
    temporary.mkdir()
    (folder / ".env").write_text("USHER_NO_SUCH_SETTING=1\n")
    hostile = {"USHER_EVENT_LOG": "kafka://127.0.0.1:1", "USHER_EMAIL": "smtp", "USHER_NO_SUCH_SETTING": "1"}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "usher", "demo", *options,
        cwd=folder, env={**os.environ, **hostile, "TMPDIR": str(temporary)},
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def _end(process: asyncio.subprocess.Process) -> tuple[int, str, str]:
    out, err = await asyncio.wait_for(process.communicate(), _WITHIN)
    return process.returncode or 0, out.decode(), err.decode()


def _addressees(folder: Path, suffix: str) -> Counter[str]:
    """Whom the messages with this *suffix* are to."""
    contents = [
        email.message_from_bytes(path.read_bytes(), policy=email.policy.default) for path in folder.glob(suffix)
    ]
    return Counter(str(content["To"]) for content in contents)


async def test_the_demo_sends_what_it_says_and_nothing_else(tmp_path: Path) -> None:
    """Each admin's event gives one message, self-signups are left out with the reason on the screen, and a user's files stay."""
    outbox = tmp_path / "outbox"
    outbox.mkdir()
    (outbox / "offer.eml").write_text("To: somebody@example.net\n\nKeep me.\n")
    (outbox / "welcome_email-old.eml").write_text("To: mara@example.org\n\nFrom an earlier demo.\n")
    (outbox / NOTE).write_text(json.dumps(["welcome_email-old.eml", "../.env"]))

    async with _demo(tmp_path) as process:
        code, out, err = await _end(process)

    assert code == 0, out + err
    assert _addressees(outbox, "*.eml") == _MAILS + Counter({"somebody@example.net": 1})
    assert _addressees(outbox, "*.txt") == _TEXTS
    said = _texts(outbox)
    assert "Forgot Password" in said
    assert "Passwort vergessen" in said, "Jonas reads German"
    assert not re.search(r"(password|passwort)\s*(is|ist|lautet|:)", said, re.IGNORECASE), "no message gives a password"
    assert re.search(r"Felix +triggered by user, not admin_api", out)
    assert re.search(r"sendgrid answered 503.*parked until", out)
    assert re.search(r"welcome_email +rejected:\s+sendgrid answered 400", out)
    assert "1 requested, 1 replayed" in out
    assert "401 refused" in out
    assert (tmp_path / ".env").exists()
    assert list((tmp_path / "tmp").iterdir()) == [], "the working folder should be gone"


def _texts(outbox: Path) -> str:
    """What all the mails say, one after another."""
    messages = [
        email.message_from_bytes(path.read_bytes(), policy=email.policy.default) for path in outbox.glob("*.eml")
    ]
    bodies = [body for message in messages if (body := message.get_body(("plain",))) is not None]
    return "\n".join(str(body.get_content()) for body in bodies)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_an_interrupted_demo_ends_its_service(number: signal.Signals, tmp_path: Path) -> None:
    """Ctrl-C and SIGTERM leave no process and no working folder behind."""
    async with _demo(tmp_path) as process:
        assert process.stdout is not None
        port = 0
        async with asyncio.timeout(_WITHIN):
            while not port:
                line = (await process.stdout.readline()).decode()
                assert line, "the demo ended before its service was ready"
                port = int(found[1]) if (found := re.search(r"Ready at http://127\.0\.0\.1:(\d+)", line)) else 0
        process.send_signal(number)
        code, _, err = await _end(process)

    assert code == 130, err
    assert "Traceback" not in err
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", port)
    assert list((tmp_path / "tmp").iterdir()) == []


async def test_an_outbox_that_cannot_be_written_is_said_at_once(tmp_path: Path) -> None:
    """Where the outbox can't be a folder, the demo says so with the way out, and exits with 1."""
    (tmp_path / "taken").write_text("a file")

    async with _demo(tmp_path, "--outbox", "taken/outbox") as process:
        code, out, err = await _end(process)

    assert code == 1, out + err
    assert "taken/outbox" in err
    assert "--outbox DIR" in err


def test_a_message_that_goes_out_twice_fails_the_demo(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """A provider that takes Mara's mail and loses the answer gets it again: the demo sees both, shows the log, exits with 1."""
    monkeypatch.setattr(play, "providers", _losing_one_answer(story.providers))
    monkeypatch.setattr(service, "_start", _warm)

    code = main(["demo", "--outbox", str(tmp_path / "outbox")])

    out, err = capfd.readouterr()
    assert code == 1, out + err
    assert "1 message too many: welcome_email to mara@example.org" in err
    assert '"event": "message sent"' in err
    assert "really happened" not in out


def test_a_service_that_does_not_start_fails_the_demo_with_its_own_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Where `usher run` ends at once, the demo says which step that was, shows what the service said, and exits with 1."""
    right = service.environment
    monkeypatch.setattr(play, "environment", lambda *given: right(*given) | {"USHER_RETRY_DELAYS": "soon"})

    code = main(["demo", "--outbox", str(tmp_path / "outbox")])

    _, err = capfd.readouterr()
    assert code == 1
    assert "the service ended (exit code 2) before its log said" in err
    assert "USHER_RETRY_DELAYS='soon'" in err


async def _warm(folder: Path, env: Mapping[str, str], *arguments: str, out: int) -> warm.Process:
    """A child of the demo that is quick to start: a start from nothing is what the demo itself is for."""
    return await warm.start(*arguments, cwd=folder, env=env, stdout=out)


def _losing_one_answer(original: Callable[[Path], FakeProviders]) -> Callable[[Path], FakeProviders]:
    def providers(outbox: Path) -> FakeProviders:
        fake, usual = original(outbox), original(outbox).rule
        lost: list[Request] = []
        assert usual is not None

        def rule(request: Request) -> Fault | None:
            if request.to == MARA.to and not lost:
                lost.append(request)
                return DROP
            return usual(request)

        fake.rule = rule
        return fake

    return providers


# The judge


def _messages() -> list[SentMessage]:
    return [SentMessage(kind_of(scene.handler), scene.to, "", Path()) for scene in SCENES if scene.to is not None]


def _facts() -> Facts:
    dead_letter = {
        "event_id": NOOR.id,
        "handler": NOOR.handler,
        "reason": "rejected",
        "error": "sendgrid answered 400: no",
    }
    untold = [{"reason": "dead", "event": {"id": NOOR.id}}]
    return Facts(
        messages=_messages(), dead=[dead_letter], dead_in_the_end=[], untold=untold, metrics=_metrics(), exit_code=0
    )


def _metrics(**changed: float) -> Scrape:
    samples: dict[str, float] = {
        'usher_records_total{topic="identity.events"}': 11,
        'usher_ingested_total{source="authgear",outcome="stored"}': 5,
        'usher_ingested_total{source="authgear",outcome="bad-signature"}': 1,
        'usher_ingested_total{source="auth0",outcome="stored"}': 1,
        'usher_ingested_total{source="genauth",outcome="stored"}': 1,
        'usher_ingested_total{source="keycloak",outcome="stored"}': 1,
        'usher_events_filtered_total{reason="duplicate"}': 1,
        'usher_events_filtered_total{reason="prefilter"}': 2,
        'usher_attempts_total{handler="welcome_email",outcome="retry"}': 1,
        'usher_attempts_total{handler="welcome_email",outcome="rejected"}': 1,
        'usher_attempts_total{handler="welcome_email",outcome="done"}': 6,
        'usher_attempts_total{handler="sms_notice",outcome="done"}': 1,
        'usher_attempts_total{handler="reset_instructions",outcome="done"}': 1,
        'usher_replays_total{handler="welcome_email",outcome="replayed"}': 1,
        'usher_dead_letters_total{handler="welcome_email",reason="rejected"}': 1,
        'usher_parked{topic="identity.events",partition="0"}': 0,
    }
    for word, value in changed.items():
        samples |= {name: value for name in samples if word.replace("_", "-") in name.replace("_", "-")}
    return Scrape("".join(f"{name} {value}\n" for name, value in samples.items()))


def test_the_judge_is_content_with_what_was_announced() -> None:
    """Facts as announced meet every expectation."""
    assert failures(_facts()) == []


def _with(**changed: Any) -> Facts:
    return replace(_facts(), **changed)


@pytest.mark.parametrize(
    ("facts", "complaint"),
    [
        (_with(messages=_messages()[1:]), "the outbox lacks 1 message: welcome_email to mara@example.org"),
        (_with(messages=[*_messages(), _messages()[2]]), "the outbox holds 1 message too many: SMS to +12025550123"),
        (
            _with(messages=[*_messages(), SentMessage("welcome_email", "felix@example.org", "", Path())]),
            "the outbox holds 1 message too many: welcome_email to felix@example.org",
        ),
        (_with(dead=[]), "dlq list should have named Noor's welcome_email alone, as rejected; it named []"),
        (
            _with(dead=[{**_facts().dead[0], "error": "no"}]),
            "the dead letter should say that the provider answered 400",
        ),
        (_with(dead_in_the_end=_facts().dead), "after the replay no dead letter should be open; there are 1"),
        (_with(metrics=_metrics(bad_signature=0)), "/metrics: webhook calls with a bad signature should be 1, not 0"),
        (_with(metrics=_metrics(duplicate=0)), "/metrics: events left out as duplicates should be 1, not 0"),
        (_with(metrics=_metrics(retry=0)), "/metrics: attempts to be retried should be 1, not 0"),
        (_with(metrics=_metrics(parked=1)), "/metrics: deliveries still parked should be 0, not 1"),
        (_with(leaks=["usher.db"]), "usher.db holds a password that an identity system has sent"),
        (_with(exit_code=1), "after SIGTERM the service should have ended with exit code 0, not 1"),
    ],
)
def test_the_judge_names_what_did_not_happen(facts: Facts, complaint: str) -> None:
    """Each expectation that is not met is named, and only that one."""
    said = failures(facts)

    assert len(said) == 1
    assert said[0].startswith(complaint)


# The outbox


def _names(messages: Sequence[SentMessage]) -> list[str]:
    return [message.path.name for message in messages]


def test_the_outbox_takes_away_only_what_an_earlier_demo_noted(tmp_path: Path) -> None:
    """A second demo replaces the first one's messages; other files stay, and is not counted."""
    (tmp_path / "mine.eml").write_text("To: a@example.org\n\nMine.\n")
    first, second = DemoOutbox(tmp_path), DemoOutbox(tmp_path)
    first.open()
    (tmp_path / "first.txt").write_text("To: +12025550123\n\nHello.\n")
    first.close()

    second.open()
    (tmp_path / "second.txt").write_text("To: +12025550123\n\nHello again.\n")

    assert _names(second.messages()) == ["second.txt"]
    assert second.messages()[0].text == "Hello again."
    assert not (tmp_path / "first.txt").exists()
    assert (tmp_path / "mine.eml").exists()
