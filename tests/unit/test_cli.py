"""The `usher` command in process, on the embedded log: what is printed where, and the exit codes."""

from __future__ import annotations

import asyncio
import csv
import json
import os
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import structlog
import typer
from tests.receipts import AT, receipt

from usher import __version__ as usher_version
from usher import cli
from usher.cli import _options, main
from usher.cli._exits import Exit, code_of
from usher.cli._progress import spoken
from usher.delivery import Delivery, Origin
from usher.delivery.headers import delivery_headers
from usher.engine.dead_letters import dead_letter_headers
from usher.eventlog.names import dead_letter_topic, retry_topic
from usher.operate import errors
from usher.operate.errors import OperateError
from usher.receipts import Receipt, pack
from usher.receipts.keys import AddressKeys
from usher.settings import Settings
from usher.settings.table import settings_table
from usher.storage import browser
from usher.systems.decode import decode
from usher.systems.source import event_key
from usher.testing import raw_event

TOPIC = "identity.events"
DEAD, RETRY = dead_letter_topic("usher", TOPIC), retry_topic("usher", TOPIC)
KIM = "kim.berg@example.com"


class Ended(NamedTuple):
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def rows(self) -> list[dict[str, Any]]:
        """What `--json` printed: stdout has to be one JSON array and nothing else."""
        rows = json.loads(self.out)
        assert isinstance(rows, list)
        return rows


Usher = Callable[..., Ended]


@pytest.fixture
def usher(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Usher]:
    """Runs a command in a folder of its own, without settings from outside and without a terminal."""
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith("USHER_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("USHER_LOGIN_URL", "https://login.example.com")

    def run(*arguments: object) -> Ended:
        capsys.readouterr()
        code = main([str(argument) for argument in arguments])
        return Ended(code, *capsys.readouterr())

    configured = structlog.get_config()
    yield run
    structlog.configure(**configured)


def file(name: str, *events: bytes) -> str:
    Path(name).write_bytes(b"\n".join(events) + b"\n")
    return name


async def _bury(dead_letters: list[tuple[Delivery, str, int | None]]) -> None:
    async with browser(Settings.load(), create=True) as event_log:
        for delivery, reason, expires_at in dead_letters:
            headers = dead_letter_headers(delivery, reason=reason, group="usher", expires_at=expires_at)
            await event_log.append(DEAD, delivery.origin.key, delivery.value, headers, partition=0)


def bury(
    id_: str,
    handler: str = "welcome_email",
    reason: str = "rejected",
    *,
    expires_at: int | None = None,
    replays: int = 0,
    username: str | None = None,
) -> None:
    """Put a dead letter into the event log, as a worker does."""
    value = raw_event(id=id_, username=username, email=KIM)
    event = decode(value)
    origin = Origin(TOPIC, 0, 1000, 1_750_000_000_000, event_key(event))
    delivery = Delivery(handler, event.uid, "lane", origin, value, attempt=5, error="550 no such user", replays=replays)
    asyncio.run(_bury([(delivery, reason, expires_at)]))


def records(topic: str) -> list[Any]:
    async def scan() -> list[Any]:
        async with browser(Settings.load(), create=True) as event_log:
            return [record async for batch in event_log.scan(topic) for record in batch]

    return asyncio.run(scan())


def test_the_help_names_the_exit_codes(usher: Usher) -> None:
    """Every exit code is in the epilog."""
    ended = usher("--help")

    assert ended.code == Exit.OK
    shown = " ".join(ended.out.split())
    for code in Exit:
        assert re.search(rf"\b{code.value} ", shown), code


def described(command: Any) -> Iterator[str]:
    """The help texts of all commands below *command*, which is one of click's."""
    for sub in getattr(command, "commands", {}).values():
        yield sub.help
        yield from described(sub)


def test_no_sentence_of_the_help_is_broken_in_the_middle() -> None:
    """A help text is wrapped by the terminal's width, but keeps the line ends of its docstring after the first paragraph."""
    texts = list(described(typer.main.get_command(cli.app)))
    broken = [
        line for text in texts for line in text.partition("\n\n")[2].splitlines() if line and line[-1] not in ".:"
    ]

    assert len(texts) > 10
    assert broken == []


@pytest.mark.parametrize(
    "arguments", [["dlq", "list"], ["handlers"], ["topics", "plan"], ["check"], ["dlq", "replay", "--all"]]
)
def test_json_is_one_array_and_nothing_else(usher: Usher, arguments: list[str]) -> None:
    """stdout of --json is an array of objects, also where there is nothing to list."""
    usher("topics", "apply")
    ended = usher(*arguments, "--json")

    assert ended.code == Exit.OK, ended.err
    assert all(isinstance(row, dict) for row in ended.rows)


def test_no_colour_where_there_is_no_terminal(usher: Usher) -> None:
    """What goes into a pipe has no escape sequences and no line of more than its content."""
    bury("0001")
    ended = usher("dlq", "list")

    assert "\x1b" not in ended.out
    assert all(line == line.rstrip() for line in ended.out.splitlines())


def test_wrong_settings_are_reported_in_sentences(usher: Usher) -> None:
    """Exit code 2, the option's setting and its value, no traceback."""
    ended = usher("dlq", "list", "--event-log", "mysql://here")

    assert ended.code == Exit.USAGE
    assert "USHER_EVENT_LOG" in ended.err
    assert "Traceback" not in ended.err


def errors_of_operate() -> list[type[OperateError]]:
    return [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, OperateError)]


@pytest.mark.parametrize("kind", errors_of_operate())
def test_each_error_of_operate_has_an_exit_code(kind: type[OperateError]) -> None:
    """An operator gets its sentence, and never a traceback."""
    assert code_of(kind("no")) in {Exit.FAILED, Exit.NOT_FOUND}


def test_a_log_that_is_not_there_is_exit_code_3(usher: Usher) -> None:
    """Scripts can distinguish an unreachable broker from a refusal."""
    ended = usher("dlq", "list", "--event-log", "kafka://127.0.0.1:1")

    assert ended.code == Exit.LOG_UNREACHABLE
    assert "127.0.0.1:1" in ended.err


def test_check_reports_what_is_wrong_and_how_to_mend_it(usher: Usher) -> None:
    """A default set-up has warnings only; an unreachable event log is a problem."""
    usher("topics", "apply")
    fine = usher("check", "--json")
    assert fine.code == Exit.OK
    by_what = {row["what"]: row for row in fine.rows}
    assert "404" in by_what["webhook"]["text"]
    assert by_what["webhook"]["status"] == "warn"
    assert by_what[RETRY]["status"] in {"ok", "warn"}
    assert {row["area"] for row in fine.rows} == {
        "settings",
        "handlers",
        "templates",
        "channels",
        "systems",
        "event log",
    }

    broken = usher("check", "--json", "--event-log", "kafka://127.0.0.1:1")
    assert broken.code == Exit.LOG_UNREACHABLE
    assert [row["area"] for row in broken.rows if row["status"] == "problem"] == ["event log"]


def test_check_warns_of_a_service_without_a_name(usher: Usher, monkeypatch: pytest.MonkeyPatch) -> None:
    """`Your account on our service` is what nobody wants to have sent."""
    nameless = {row["what"]: row["status"] for row in usher("check", "--json").rows}
    monkeypatch.setenv("USHER_SERVICE_NAME", "Acme")
    named = {row["what"]: row["status"] for row in usher("check", "--json").rows}

    assert nameless["USHER_SERVICE_NAME"] == "warn"
    assert named["USHER_SERVICE_NAME"] == "ok"


def test_the_version_is_printed(usher: Usher) -> None:
    """`usher --version` is what a report of a problem begins with."""
    ended = usher("--version")

    assert ended.code == Exit.OK
    assert ended.out == f"usher {usher_version}\n"


def test_check_warns_of_a_handler_that_no_system_would_run(
    usher: Usher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each type that none sends which is set up, with those that would; of a bundled handler only where it has nothing left."""
    (tmp_path / "mine").mkdir()
    for name, types in (
        ("never", '"identity.email.added"'),
        ("partly", '"user.disabled", "sapi"'),
        ("ours", '"user.deleted"'),
    ):
        code = f"from usher import on\n\n@on({types})\nasync def {name}(event, ctx): ...\n"
        (tmp_path / "mine" / f"{name}.py").write_text(code)

    def warned() -> dict[str, list[str]]:
        rows = usher("check", "--json", "--handlers-dir", str(tmp_path / "mine")).rows
        found: dict[str, list[str]] = {}
        for row in rows:
            if row["area"] == "handlers" and row["status"] == "warn":
                found.setdefault(row["what"], []).append(row["text"])
        return found

    assert warned() == {}  # events may come from anywhere
    monkeypatch.setenv("USHER_GENAUTH__WEBHOOK_SECRET", "opensesame")
    monkeypatch.setenv("USHER_HANDLERS", "+clear_reset_flag")
    by_handler = warned()
    assert sorted(by_handler) == ["clear_reset_flag", "never", "partly"]
    assert "sends identity.email.added (authgear would)" in by_handler["never"][0]
    assert "sends sapi (auth0 would)" in by_handler["partly"][0]
    assert "sends password.changed (auth0, keycloak would)" in by_handler["clear_reset_flag"][0]
    monkeypatch.setenv("USHER_TOPICS", "identity.events,raw=auth0")
    assert sorted(warned()) == ["never"]


def test_check_masks_secrets(usher: Usher, monkeypatch: pytest.MonkeyPatch) -> None:
    """A secret is shown to be set, not what it is."""
    monkeypatch.setenv("USHER_AUTHGEAR__WEBHOOK_SECRET", "opensesame")
    ended = usher("check")

    assert "USHER_AUTHGEAR__WEBHOOK_SECRET" in ended.out
    assert "opensesame" not in ended.out + ended.err


@pytest.mark.parametrize(("secret", "warned"), [("fifteen-charact", True), ("sixteen-characte", False)])
def test_check_warns_of_a_short_secret(
    usher: Usher, monkeypatch: pytest.MonkeyPatch, secret: str, warned: bool
) -> None:
    """One that is guessed from a recorded call lets anybody sign; it is not shown, and the worker starts all the same."""
    monkeypatch.setenv("USHER_KEYCLOAK__SHOP__WEBHOOK_SECRET", f"long-enough-and-more,{secret}")
    ended = usher("check", "--json")

    said = [row["text"] for row in ended.rows if row["status"] == "warn" and row["what"].endswith("WEBHOOK_SECRET")]
    assert ended.code == Exit.OK
    assert [text.partition(":")[0] for text in said] == ["is shorter than 16 characters"] * warned
    assert secret not in ended.out


@pytest.mark.parametrize(
    ("url", "warned"),
    [
        ("http://id.example.invalid", True),
        ("https://id.example.invalid", False),
        ("http://127.0.0.1:9", False),
        ("http://localhost:9", False),
    ],
)
def test_check_warns_of_credentials_without_tls(
    usher: Usher, monkeypatch: pytest.MonkeyPatch, url: str, warned: bool
) -> None:
    """For an identity system and for a provider; on this machine nobody reads along."""
    given = {"URL": url, "REALM": "main", "CLIENT_ID": "usher", "CLIENT_SECRET": "0123456789abcdef"}
    for name, value in given.items():
        monkeypatch.setenv(f"USHER_KEYCLOAK__{name}", value)
    for name, value in {
        "EMAIL": "sendgrid",
        "MAIL_FROM": "a@example.org",
        "SENDGRID__API_KEY": "SG.0123456789abcdef",
        "SENDGRID__BASE_URL": url,
    }.items():
        monkeypatch.setenv(f"USHER_{name}", value)
    ended = usher("check", "--json")

    said = {row["what"] for row in ended.rows if row["status"] == "warn" and "no https" in row["text"]}
    assert said == ({"keycloak: API", "email: sendgrid"} if warned else set())


def test_check_says_by_which_way_others_are_called(usher: Usher, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the proxy or past it, for each; a password of the proxy's is not shown."""
    given = {
        "EMAIL": "sendgrid",
        "MAIL_FROM": "a@example.org",
        "SENDGRID__API_KEY": "SG.0123456789abcdef",
        "SMS": "twilio",
    }
    twilio = {"TWILIO__ACCOUNT_SID": "AC" + "0" * 32, "TWILIO__AUTH_TOKEN": "0" * 32, "TWILIO__FROM": "+15005550006"}
    for name, value in {**given, **twilio, "PROXY": "http://usher:s3cret@proxy.example.org:3128"}.items():
        monkeypatch.setenv(f"USHER_{name}", value)
    monkeypatch.setenv("NO_PROXY", "api.twilio.com")
    ended = usher("check", "--json")

    said = {row["what"]: row["text"] for row in ended.rows if "called" in row["text"]}
    assert said == {
        "email: sendgrid": "https://api.sendgrid.com is called by the proxy http://proxy.example.org:3128",
        "sms: twilio": "https://api.twilio.com is called directly, past the proxy",
    }
    assert "s3cret" not in ended.out


def test_check_names_every_wrong_setting(usher: Usher, monkeypatch: pytest.MonkeyPatch) -> None:
    """All mistakes are problems of their own."""
    monkeypatch.setenv("USHER_TOPIC", "a")
    monkeypatch.setenv("USHER_HTTP", "nowhere")
    ended = usher("check", "--json")

    assert ended.code == Exit.USAGE
    assert len([row for row in ended.rows if row["status"] == "problem"]) == 2


def test_check_reports_what_a_system_lacks_beside_all_else(usher: Usher, monkeypatch: pytest.MonkeyPatch) -> None:
    """Half-set systems are problems of their settings, reported with those of all others."""
    monkeypatch.setenv("USHER_KEYCLOAK__URL", "https://id.example.com")
    monkeypatch.setenv("USHER_GENAUTH__SHOP__POLL", "true")
    monkeypatch.setenv("USHER_HTTP", "nowhere")
    ended = usher("check", "--json")

    wrong = {row["what"]: row["text"] for row in ended.rows}
    assert ended.code == Exit.USAGE
    assert {row["area"] for row in ended.rows} == {"settings"}
    assert wrong["USHER_KEYCLOAK__REALM"] == "is needed for the admin API; set it"
    assert "USHER_KEYCLOAK__CLIENT_SECRET" in wrong
    assert wrong["USHER_GENAUTH__SHOP__ACCESS_KEY_ID"] == "is needed for USHER_GENAUTH__SHOP__POLL; set it"
    assert "USHER_HTTP='nowhere'" in wrong


def test_check_warns_of_an_open_webhook_only_where_nothing_comes_in(
    usher: Usher, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A system that is polled needs no webhook; the check names what is polled instead."""
    with_the_shops_api(monkeypatch)
    monkeypatch.setenv("USHER_KEYCLOAK__POLL", "true")
    by_what = {row["what"]: row for row in usher("check", "--json").rows}

    assert "webhook" not in by_what
    assert by_what["keycloak: polling"]["status"] == "ok"
    assert "127.0.0.1:1" in by_what["keycloak: API"]["text"]
    assert "refused" in by_what["keycloak: API"]["text"].lower()


def test_check_misses_the_topic_that_webhooks_need(usher: Usher, monkeypatch: pytest.MonkeyPatch) -> None:
    """What `usher run` would refuse to start with is a problem here, too."""
    monkeypatch.setenv("USHER_TOPICS", "kc=keycloak")
    monkeypatch.setenv("USHER_KEYCLOAK__WEBHOOK_SECRET", "opensesame")
    ended = usher("check", "--json")

    assert ended.code == Exit.USAGE
    assert [row["what"] for row in ended.rows if row["status"] == "problem"] == ["USHER_TOPICS"]


@pytest.mark.parametrize("system", ["keycloak", "genauth"])
def test_check_says_what_a_webhook_alone_does_not_report(
    usher: Usher, monkeypatch: pytest.MonkeyPatch, system: str
) -> None:
    """Without their APIs a password that an administrator set is not reported: that is a warning, not a surprise."""
    monkeypatch.setenv(f"USHER_{system.upper()}__WEBHOOK_SECRET", "opensesame")
    by_what = {row["what"]: row for row in usher("check", "--json").rows}

    assert by_what[system]["status"] == "warn"
    assert "password" in by_what[system]["text"]


def test_handlers_lists_the_effective_table(usher: Usher, monkeypatch: pytest.MonkeyPatch) -> None:
    """The service's filter and retry delays show where a handler has none of its own."""
    monkeypatch.setenv("USHER_RETRY_DELAYS", "1s,2s")
    ended = usher("handlers", "--json", "--triggered-by", "portal", "--handlers", "welcome_email")

    (row,) = ended.rows
    assert row["handler"] == "welcome_email"
    assert row["types"] == ["user.created"]
    assert row["triggered_by"] == ["portal"]
    assert row["retry_delays"] == [1.0, 2.0]


def test_handlers_lists_their_settings(usher: Usher) -> None:
    """The README promises the names of a handler's settings, also to people."""
    assert "USHER_SMS_NOTICE__WHEN" in usher("handlers").out


def test_handlers_says_which_are_off(usher: Usher) -> None:
    """And how to turn one on; with a plus it runs beside the others."""
    ended = usher("handlers")
    more = usher("handlers", "--json", "--handlers", "+clear_reset_flag")

    said = " ".join((ended.out + ended.err).split())
    assert (
        "Off: clear_reset_flag, force_password_change. To run one of them too, set for example USHER_HANDLERS=+clear_reset_flag."
        in said
    )
    assert [row["handler"] for row in more.rows] == [
        "clear_reset_flag",
        "reset_instructions",
        "sms_notice",
        "welcome_email",
    ]


def test_handlers_types_lists_what_a_handler_may_ask_for(usher: Usher) -> None:
    """Canonical types first, with their meaning; each with the systems that send it, and their own names for it."""
    rows = {row["type"]: row for row in usher("handlers", "--types", "--json").rows}
    shown = usher("handlers", "--types").out

    every = ["authgear", "auth0", "genauth", "keycloak"]
    for type_ in ("user.created", "user.disabled", "user.reenabled", "user.deleted"):
        assert rows[type_]["systems"] == list(rows[type_]["raw"]) == every
    assert next(iter(rows)) == "user.created"
    assert rows["user.disabled"]["meaning"] == "someone has disabled the account"
    assert rows["user.disabled"]["raw"]["genauth"] == "user:blocked"
    assert rows["sapi"] == {"type": "sapi", "meaning": None, "systems": ["auth0"], "raw": {"auth0": "sapi"}}
    assert re.search(r"access\.LOGIN +keycloak +access\.LOGIN ", shown)
    assert re.search(r"user\.disabled +keycloak +admin\.USER-UPDATE with enabled: false", shown)


def test_explain_shows_what_each_handler_would_do(usher: Usher) -> None:
    """The condition that decided, the template and language; and nothing is sent."""
    ended = usher("explain", file("event.json", raw_event(email=KIM, language="de")), "--json")

    assert ended.code == Exit.OK
    would = {row["handler"]: (row["runs"], row["would"]) for row in ended.rows}
    assert would["welcome_email"] == (True, "would send mail welcome_email (de)")
    assert would["reset_instructions"][0] is False
    assert would["sms_notice"][1].startswith("would be skipped")
    assert not list(Path().glob("outbox/*"))


@pytest.mark.parametrize("provider", ["outbox", "smtp", "sendgrid"])
def test_explain_judges_a_mail_as_its_provider_will(
    usher: Usher, monkeypatch: pytest.MonkeyPatch, provider: str
) -> None:
    """A name with an escape character goes out without it; what the channel can't write is said beforehand."""
    known = {"USHER_SENDGRID__API_KEY": "SG.key", "USHER_SMTP__URL": "smtp://mail.example.org"}
    for name, value in {**known, "USHER_EMAIL": provider, "USHER_MAIL_FROM": "no-reply@example.org"}.items():
        monkeypatch.setenv(name, value)
    Path("templates/welcome_email").mkdir(parents=True)
    Path("templates/welcome_email/en.txt").write_text("Subject: Welcome, {{ user.name }}\n\nThe text.\n")
    choice = ("--templates-dir", "templates", "--handlers", "welcome_email")

    escaped = usher("explain", file("a.json", raw_event(name="Kim\x1b[31m Berg")), *choice)
    hijack = usher("explain", file("b.json", raw_event(email="=?utf-8?q?a=0AX=3Ay?=@example.com")), *choice)

    assert "would send mail welcome_email (en)" in escaped.out
    assert "would be dead-lettered: this mail can't be sent: an address holds an encoded word" in hijack.out


def test_explain_shows_a_missing_address_as_a_skip(usher: Usher) -> None:
    """A missing address is shown before it happens."""
    ended = usher("explain", file("event.json", raw_event(email=None)))

    assert "would be skipped: no email address" in ended.out


def test_explain_says_who_triggered_what_does_not_run(usher: Usher) -> None:
    """A self-signup is left out, and the line says why."""
    ended = usher("explain", file("event.json", raw_event(triggered_by="user")), "--json")

    row = next(row for row in ended.rows if row["handler"] == "welcome_email")
    assert not row["runs"]
    assert row["condition"] == "context.triggered_by is 'user', not 'admin_api'"


def test_explain_makes_no_request_of_a_handlers_own(usher: Usher) -> None:
    """A handler that uses ctx.http is stopped there."""
    Path("mine").mkdir()
    Path("mine/calls_home.py").write_text(
        "from usher import Context, Event, on\n\n\n"
        '@on("user.created")\n'
        "async def calls_home(event: Event, ctx: Context) -> None:\n"
        '    async with ctx.http.get("http://127.0.0.1:1/"):\n'
        "        pass\n"
    )
    ended = usher("explain", file("event.json", raw_event()), "--handlers-dir", "mine", "--handlers", "calls_home")

    assert "would call an HTTP API" in ended.out


def of_the_shop(event: bytes) -> bytes:
    """*event* as Keycloak's source stores those of the realm ``shop``."""
    return json.dumps(json.loads(event) | {"source": "keycloak", "tenant": "shop"}).encode()


def with_the_shops_api(monkeypatch: pytest.MonkeyPatch) -> None:
    """Set up the admin API of the realm ``shop``; nobody answers there."""
    monkeypatch.setenv("USHER_KEYCLOAK__URL", "http://127.0.0.1:1")
    monkeypatch.setenv("USHER_KEYCLOAK__REALM", "shop")
    monkeypatch.setenv("USHER_KEYCLOAK__CLIENT_ID", "usher")
    monkeypatch.setenv("USHER_KEYCLOAK__CLIENT_SECRET", "opensesame")


def test_explain_does_not_take_for_missing_what_would_be_looked_up(
    usher: Usher, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An event without an address is a skip only if there is no API to ask; else the look-up is shown."""
    event = file("event.json", of_the_shop(raw_event(email=None)))
    blind = usher("explain", event, "--handlers", "welcome_email")
    with_the_shops_api(monkeypatch)
    seeing = usher("explain", event, "--handlers", "welcome_email")

    assert "look" not in blind.out
    assert "would look the user up in keycloak" in seeing.out


def test_explain_says_which_api_a_handler_lacks(usher: Usher, monkeypatch: pytest.MonkeyPatch) -> None:
    """A handler that needs the identity system's API would be dead-lettered without one; with one, explain stops there."""
    event = file("event.json", of_the_shop(raw_event(email=KIM)))
    blind = usher("explain", event, "--handlers", "force_password_change")
    with_the_shops_api(monkeypatch)
    seeing = usher("explain", event, "--handlers", "force_password_change")

    assert "would be dead-lettered" in blind.out
    assert "USHER_KEYCLOAK__" in blind.out
    assert "would call the API of keycloak (require_password_change)" in seeing.out


def test_what_a_system_sent_wants_its_name(usher: Usher) -> None:
    """A body that is no event of ours is refused with the option that reads it; `preview` takes that one, too."""
    sample = SAMPLES / "user.created.import.json"
    for refused in (
        usher("explain", sample),
        usher("emit", sample),
        usher("preview", "welcome_email", "--event", sample),
    ):
        assert refused.code == Exit.FAILED
        assert "--source" in refused.err
    shown = usher("preview", "welcome_email", "--event", sample, "--source", "genauth")

    assert shown.code == Exit.OK, shown.err
    assert shown.out.startswith("Subject: ")


def test_a_missing_file_is_exit_code_4(usher: Usher) -> None:
    """The file is named."""
    ended = usher("explain", "nowhere.json")

    assert ended.code == Exit.NOT_FOUND
    assert "nowhere.json" in ended.err


@pytest.mark.parametrize("form", ["lines", "array", "one"])
def test_emit_takes_an_event_an_array_or_lines(usher: Usher, form: str) -> None:
    """Each event is a record, keyed by its user."""
    events = [raw_event(id=f"000{n}", email=f"user{n}@example.com") for n in range(1 if form == "one" else 3)]
    content = b"[" + b",".join(events) + b"]" if form == "array" else b"\n".join(events)
    ended = usher("emit", file("events.json", content))

    assert ended.code == Exit.OK, ended.err
    assert f"{TOPIC} partition 0: {len(events)} appended" in ended.out
    assert [record.key for record in records(TOPIC)] == [event_key(decode(event)) for event in events]


def test_emit_appends_nothing_when_one_event_cannot_be_decoded(usher: Usher) -> None:
    """File and line are named; --force stores the bytes as they are."""
    name = file("events.jsonl", raw_event(), b'{"no": "type"}')
    ended = usher("emit", name)

    assert ended.code == Exit.FAILED
    assert "events.jsonl:2: " in ended.err
    assert records(TOPIC) == []

    assert usher("emit", "--force", name).code == Exit.OK
    assert [record.value for record in records(TOPIC)][1] == b'{"no": "type"}'


def test_emit_stores_no_credentials(usher: Usher) -> None:
    """What a source strips is not stored by the command line either."""
    usher("emit", file("event.json", raw_event(payload={"password": "correct horse"})))

    assert b"correct horse" not in records(TOPIC)[0].value


SAMPLES = Path(__file__).parents[1] / "samples" / "genauth"


def test_explain_reads_what_a_system_sends(usher: Usher) -> None:
    """It shows who triggered a raw event, by which rule, and what would be sent; also of a form."""
    imported = usher("explain", SAMPLES / "user.created.import.json", "--source", "genauth")
    form = usher("explain", SAMPLES / "user.created.form.txt", "--source", "genauth")
    self_signup = usher("explain", SAMPLES / "user.created.self.json", "--source", "genauth", "--json")

    assert "triggered by admin_api (registerSource import:manual)" in imported.out
    assert "triggered by admin_api (registerSource import:excel)" in form.out
    assert [row["condition"] for row in self_signup.rows if row["handler"] == "welcome_email"] == [
        "context.triggered_by is 'user', not 'admin_api'"
    ]


def test_explain_reads_for_a_tenant_of_the_settings(usher: Usher, monkeypatch: pytest.MonkeyPatch) -> None:
    """A tenant that nothing is set for, or a system that there is not, is a mistake that is named."""
    sample = SAMPLES / "user.created.import.json"
    monkeypatch.setenv("USHER_GENAUTH__SHOP__USER_POOL_ID", "64c0ffee0000000000000001")
    monkeypatch.setenv("USHER_GENAUTH__YARD__USER_POOL_ID", "another")

    assert usher("explain", sample, "--source", "genauth/shop").code == Exit.OK
    assert "only those of another are taken" in usher("explain", sample, "--source", "genauth/yard").err
    for source, why in (("genauth/other", "USHER_GENAUTH__OTHER__"), ("genuath", "is no source")):
        ended = usher("explain", sample, "--source", source)
        assert ended.code == Exit.USAGE
        assert why in ended.err


@pytest.mark.parametrize("form", ["lines", "array", "one"])
def test_emit_takes_what_a_system_sends(usher: Usher, form: str) -> None:
    """It is stored as its webhook would store it: canonical, keyed by the user, without credentials."""
    names = ("user.created.import",) if form == "one" else ("user.created.import", "test", "user.password-changed")
    bodies = [json.dumps(json.loads((SAMPLES / f"{name}.json").read_bytes())).encode() for name in names]
    content = b"[" + b",".join(bodies) + b"]" if form == "array" else b"\n".join(bodies)
    ended = usher("emit", file("events.json", content), "--source", "genauth")

    assert ended.code == Exit.OK, ended.err
    stored = [decode(record.value or b"") for record in records(TOPIC)]
    assert [event.type for event in stored] == ["user.created", "user:password-changed"][: len(stored)]
    assert len(stored) == (1 if form == "one" else 2)
    assert {record.key for record in records(TOPIC)} == {b"64c0ffee0000000000000a02"}
    assert b"d41d-hash" not in b"".join(record.value or b"" for record in records(TOPIC))


def test_emit_stores_nothing_of_what_a_system_would_not_send(usher: Usher) -> None:
    """With --force a stub is stored, since what can't be read can't be stripped."""
    name = file("events.json", b'{"password": "correct horse"}')

    assert usher("emit", name, "--source", "genauth").code == Exit.FAILED
    assert records(TOPIC) == []
    assert usher("emit", name, "--source", "genauth", "--force").code == Exit.OK
    assert b"correct horse" not in (records(TOPIC)[0].value or b"")


def test_why_reads_a_raw_topic_through_its_source(usher: Usher) -> None:
    """An id that only the source knows is found in what the system itself wrote."""
    sample = (SAMPLES / "user.created.import.json").read_bytes()

    async def write() -> None:
        async with browser(Settings.load({"USHER_TOPICS": "raw"}, env_file=None), create=True) as event_log:
            await event_log.append("raw", None, sample)

    asyncio.run(write())
    ended = usher("why", "created-64c0ffee0000000000000a02", "--topics", f"{TOPIC},raw=genauth", "--json")

    assert ended.code == Exit.OK, ended.err
    assert states_of(ended.rows[0])["welcome_email"] == "not-read"


def states_of(event: dict[str, Any]) -> dict[str, str]:
    """The state of each delivery of an event, as `why --json` has it."""
    return {row["handler"]: row["state"] for row in event["deliveries"]}


def deliveries_of(ended: Ended) -> dict[str, dict[str, Any]]:
    """The deliveries of the only event, by handler."""
    (event,) = ended.rows
    return {row["handler"]: row for row in event["deliveries"]}


def test_why_of_an_event_that_nobody_has_read(usher: Usher) -> None:
    """Not read for those that will run; those for other types only with --all: filtered, with the rule."""
    usher("emit", file("event.json", raw_event(id="00ff")))
    ended, everything = usher("why", "00ff", "--json"), usher("why", "00ff", "--json", "--all")

    assert ended.code == Exit.OK
    (event,) = ended.rows
    assert (event["event"]["id"], event["event"]["type"], event["event"]["source"]) == (
        "00ff",
        "user.created",
        "authgear",
    )
    assert states_of(event) == {"welcome_email": "not-read", "sms_notice": "not-read"}
    filtered = deliveries_of(everything)["reset_instructions"]
    assert filtered["state"] == "filtered"
    assert "not user.created (by the rules of now)" in filtered["reason"]


def test_why_names_the_rule_where_no_handler_runs(usher: Usher) -> None:
    """In one line for the event; the deliveries are filtered, by the rules of now."""
    usher("emit", file("event.json", raw_event(id="00ff", triggered_by="user")))
    usher("emit", file("event.json", raw_event("user.blocked", id="00fe")))

    assert "no handler runs for it: triggered by user, not admin_api" in usher("why", "00ff").out
    assert "no handler runs for it: no handler is for" in usher("why", "00fe").out
    assert set(states_of(usher("why", "00ff", "--json").rows[0]).values()) == {"filtered"}


def test_why_fits_80_columns(usher: Usher) -> None:
    """A heading for the event, a line a handler, the details indented."""
    bury("5f2c9d0e-6a0b-4f3c-9a57-0123456789ab", reason="attempts-exhausted")
    usher("emit", file("event.json", raw_event(id="5f2c9d0e-6a0b-4f3c-9a57-0123456789ab", email=KIM, username="kim.b")))
    lines = usher("why", "5f2c9d0e-6a0b-4f3c-9a57-0123456789ab", "--all").out.splitlines()

    assert max(map(len, lines)) <= 80
    assert lines[0].startswith("user.created")
    handlers = [line for line in lines if line.startswith("  ") and line[2] != " " and not line.startswith("  about")]
    assert len(handlers) == 4
    assert next(line.split()[:2] for line in handlers) == ["welcome_email", "dead"]


def test_why_shows_parked_dead_and_dropped(usher: Usher) -> None:
    """The retry topic and the dead letters say what became of a delivery, also when the event itself is gone."""
    bury("00aa")
    event = decode(raw_event(id="00aa", email=KIM))
    parked = Delivery(
        "sms_notice", event.uid, "lane", Origin(TOPIC, 0, 1000, 0, b"k"), b"{}", attempt=2, due=1, error="busy"
    )

    async def park() -> None:
        async with browser(Settings.load(), create=True) as event_log:
            await event_log.append(RETRY, parked.key.encode(), parked.value, delivery_headers(parked), partition=0)

    asyncio.run(park())
    rows = deliveries_of(usher("why", "00aa", "--json"))
    parked_row = rows["sms_notice"]
    assert (parked_row["state"], parked_row["attempts"], parked_row["reason"]) == ("parked", 2, "busy")
    assert parked_row["due"] == "1970-01-01T00:00:00+00:00"
    assert (rows["welcome_email"]["state"], rows["welcome_email"]["reason"]) == ("dead", "rejected: 550 no such user")

    assert usher("dlq", "drop", "--all", "--yes").code == Exit.OK
    rows = deliveries_of(usher("why", "00aa", "--json"))
    assert rows["welcome_email"]["state"] == "dropped"


def test_why_of_several_events_shows_each_and_names_those_that_are_not_there(usher: Usher) -> None:
    """In the order in which they are asked for; one that is missing is exit code 4, and the others are shown."""
    usher("emit", file("e", *(raw_event(id=id_, email=KIM) for id_ in ("00a1", "00a2", "00a3"))))

    both, one = usher("why", "00a3", "00a1", "--json"), usher("why", "00a1", "00ff", "00fe", "--json")

    assert [row["event"]["id"] for row in both.rows] == ["00a3", "00a1"]
    assert [row["event"]["id"] for row in one.rows] == ["00a1"]
    assert (both.code, one.code) == (Exit.OK, Exit.NOT_FOUND)
    assert "no event 00ff, 00fe in" in one.err
    assert "00a3" in usher("why", "00a3", "00a1").out


def test_why_of_a_user_shows_all_their_events(usher: Usher) -> None:
    """A person who misses a mail knows their address or user name, not an event's id; the user's id in the system works too."""
    events = [
        raw_event(id="00a1", username="kim.b", email=KIM, user_id="u-kim", triggered_by="user"),
        raw_event("password.reset", id="00a2", username="kim.b", email=KIM, user_id="u-kim"),
        raw_event(id="00b1", email="lee@example.com", user_id="u-lee"),
    ]
    usher("emit", file("events.json", b"\n".join(events)))
    by_id, by_address = usher("why", "--user", "u-kim", "--json"), usher("why", "--user", KIM.upper(), "--json")

    assert [row["event"]["id"] for row in by_id.rows] == ["00a1", "00a2"]
    assert by_address.rows == by_id.rows
    assert usher("why", "--user", "Kim.B", "--json").rows == by_id.rows
    assert "00a2" in usher("why", "--user", "u-kim").out
    assert usher("why", "--address", "KIM.berg@EXAMPLE.com", "--json").rows == by_id.rows
    assert usher("why", "--user", "u-nobody").code == Exit.NOT_FOUND
    assert usher("why", "--address", "nobody@example.com").code == Exit.NOT_FOUND
    assert usher("why", "--message-id", "m-1").code == Exit.NOT_FOUND
    assert usher("why").code == Exit.USAGE
    assert usher("why", "00a1", "--user", "u-kim").code == Exit.USAGE


def test_why_of_an_unknown_event_is_exit_code_4(usher: Usher) -> None:
    """And --json is an empty array."""
    usher("topics", "apply")
    ended = usher("why", "nothing", "--json")

    assert ended.code == Exit.NOT_FOUND
    assert ended.rows == []
    assert usher("why", "nothing").out == ""


def test_untold_is_fit_for_cron(usher: Usher) -> None:
    """Exit code 0 where everybody was told, 1 with the reason and what mends it where not, 3 where there is no event log."""
    assert usher("untold").code == Exit.LOG_UNREACHABLE
    usher("topics", "apply")
    nobody = usher("untold", "--json")
    bury("00aa")
    somebody, shown = usher("untold", "--json"), usher("untold")

    assert (nobody.code, nobody.rows) == (Exit.OK, [])
    assert (somebody.code, shown.code) == (Exit.FAILED, Exit.FAILED)
    (row,) = somebody.rows
    assert set(row) == {"reason", "event", "deliveries", "mend"}
    assert (row["reason"], row["event"]["id"], row["event"]["type"]) == ("dead", "00aa", "user.created")
    assert [(each["handler"], each["state"]) for each in row["deliveries"]] == [("welcome_email", "dead")]
    assert row["mend"].startswith("mend the cause, then: usher dlq replay 0@")
    assert "dead: 1 event" in shown.out
    assert max(map(len, shown.out.splitlines())) <= 80
    assert usher("untold", "--since", "soon").code == Exit.USAGE


def test_what_takes_longer_than_a_second_is_said_on_stderr(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Not before; and then ever more rarely."""
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    progress = spoken()
    for second in range(90):
        now[0] = second + 0.5
        progress.read("identity.events", second * 1_000)
    out, err = capsys.readouterr()

    assert out == ""
    assert err.splitlines()[0] == "usher: reading identity.events: 1,000 so far"
    assert len(err.splitlines()) == 7


def keep(*receipts: Receipt) -> None:
    """Put receipts into the event log, as a worker does."""

    async def write() -> None:
        async with browser(Settings.load(), create=True) as event_log:
            for value in pack(receipts):
                await event_log.append("usher.receipts", None, value)

    asyncio.run(write())


def test_receipts_are_listed_in_a_table_and_as_json(usher: Usher) -> None:
    """What matches, the oldest first, within 80 columns; what ended before --since is left out."""
    now = time.time_ns() // 1_000_000
    keep(
        receipt(
            "5f2c9d0e-6a0b-4f3c-9a57-0123456789ab", "skipped", at=now - 10, reason="no-address", user_id="u-2", offset=1
        ),
        receipt("00aa", at=now - 60_000, username="kim.b"),
        receipt(
            "00aa", "dead", handler="a_handler_with_a_rather_long_name_of_its_own", at=now - 50_000, reason="rejected"
        ),
        receipt("00ab", offset=2, at=now - 30 * 86_400_000),
    )
    shown, rows = usher("receipts", "list"), usher("receipts", "list", "--json").rows

    assert (shown.code, len(shown.out.splitlines())) == (Exit.OK, 1 + 2 + 2 + 1)
    assert max(map(len, shown.out.splitlines())) <= 80
    assert [(row["event"]["id"][:4], row["state"]) for row in rows] == [
        ("00aa", "sent"),
        ("00aa", "dead"),
        ("5f2c", "skipped"),
    ]
    assert rows[0]["provider_id"] == "00aa.eml"
    for options, found in (
        (("--state", "dead", "--state", "sent"), ["sent", "dead"]),
        (("--handler", "welcome_email"), ["sent", "skipped"]),
        (("--user", "KIM.B"), ["sent", "dead"]),
        (("--user", "u-2"), ["skipped"]),
        (("--since", "60d"), ["sent", "sent", "dead", "skipped"]),
    ):
        assert [row["state"] for row in usher("receipts", "list", *options, "--json").rows] == found, options
    assert usher("receipts", "list", "--state", "lost").code == Exit.USAGE
    assert "There are no such receipts in sqlite:///usher.db" in usher("receipts", "list", "--user", "nobody").err


def test_a_user_whose_name_is_an_address_is_found_by_it(usher: Usher, monkeypatch: pytest.MonkeyPatch) -> None:
    """A receipt keeps the HMAC in its place; every key that is set reads, and without the key nobody finds it."""
    old = AddressKeys([b"the old one"])
    keep(
        receipt("00aa", username=old.kept(KIM)),
        receipt("00ab", offset=1, address=old.address_hmac(KIM, "email"), key=old.name),
    )
    monkeypatch.setenv("USHER_RECEIPTS__KEY", "a new one,the old one")

    assert [row["event"]["id"] for row in usher("why", "--user", KIM.upper(), "--json").rows] == ["00aa", "00ab"]
    assert [row["event"]["id"] for row in usher("why", "--address", KIM, "--json").rows] == ["00ab"]
    assert len(usher("receipts", "list", "--user", KIM, "--since", "9999d", "--json").rows) == 2
    assert KIM not in usher("receipts", "export").out

    monkeypatch.setenv("USHER_RECEIPTS__KEY", "a new one")
    assert usher("why", "--user", KIM).code == Exit.NOT_FOUND


def test_receipts_are_exported_as_lines_of_json_and_as_csv(usher: Usher) -> None:
    """Everything that is kept; a delivery and its event a line; equal receipts are one, a repeat is in the history."""
    again = receipt("00ab", provider_id="second", offset=1, at=AT + 5)
    keep(receipt("00aa", username="=cmd()"), receipt("00ab", offset=1), receipt("00ab", offset=1), again)

    exported = [json.loads(line) for line in usher("receipts", "export").out.splitlines()]
    table = list(csv.DictReader(usher("receipts", "export", "--format", "csv").out.splitlines()))

    assert [(row["event"]["id"], row["state"], row["provider_id"]) for row in exported] == [
        ("00aa", "sent", "00aa.eml"),
        ("00ab", "sent", "second"),
    ]
    assert [entry["repeat"] for entry in exported[1]["history"]] == [False, True]
    assert [(row["event_id"], row["handler"], row["provider_id"]) for row in table] == [
        ("00aa", "welcome_email", "00aa.eml"),
        ("00ab", "welcome_email", "second"),
    ]
    assert table[0]["event_username"] == "'=cmd()"
    assert [entry["provider_id"] for entry in json.loads(table[1]["history"])] == ["00ab.eml", "second"]
    assert usher("receipts", "export", "--since", "1d").out == ""
    assert usher("receipts", "export", "--format", "xml").code == Exit.USAGE


def test_dlq_list_shows_the_open_dead_letters(usher: Usher) -> None:
    """By handler and reason; what is closed only on demand."""
    bury("0001")
    bury("0002", handler="sms_notice", reason="attempts-exhausted")

    assert [row["event_id"] for row in usher("dlq", "list", "--json").rows] == ["0001", "0002"]
    assert [row["event_id"] for row in usher("dlq", "list", "--json", "--handler", "sms_notice").rows] == ["0002"]
    assert usher("dlq", "list", "--json", "--older-than", "1h").rows == []
    assert usher("dlq", "list", "--json", "--state", "dropped").rows == []
    assert usher("dlq", "list", "--state", "opne").code == Exit.USAGE


def test_dlq_show_masks_addresses(usher: Usher) -> None:
    """The payload is printed only when it is asked for."""
    bury("0001")
    (dead_letter,) = usher("dlq", "list", "--json").rows
    ended = usher("dlq", "show", dead_letter["id"])

    assert ended.code == Exit.OK
    assert "k…@example.com" in ended.out
    assert KIM not in ended.out
    assert KIM in usher("dlq", "show", dead_letter["id"], "--payload").out
    assert usher("dlq", "show", "0@999").code == Exit.NOT_FOUND


@pytest.mark.parametrize(
    ("username", "shown"),
    [("kim.berg@example.org", "k…@example.org"), ("kimberly", "…ly"), ("kim", "…"), ("+447400123456", "…56")],
)
def test_dlq_show_masks_a_username_like_an_address(usher: Usher, username: str, shown: str) -> None:
    """It may be an address; of a short one nothing is left."""
    bury("0001", username=username)
    (row,) = usher("dlq", "show", usher("dlq", "list", "--json").rows[0]["id"], "--json").rows

    assert row["username"] == shown


def test_replay_of_nothing_is_a_usage_error(usher: Usher) -> None:
    """Everything has to be asked for by name."""
    ended = usher("dlq", "replay")

    assert ended.code == Exit.USAGE
    assert "--all" in ended.err


def test_replay_appends_a_request_once(usher: Usher) -> None:
    """The dead letter is requested then, and not asked for again."""
    bury("0001")
    (dead_letter,) = usher("dlq", "list", "--json").rows

    first = usher("dlq", "replay", dead_letter["id"], "--json")
    assert first.code == Exit.OK, first.err
    assert [row["result"] for row in first.rows] == ["requested"]
    (request,) = records(RETRY)
    assert request.key.decode() == f"replay/{first.rows[0]['request']}"
    assert usher("dlq", "list", "--json").rows == []
    assert [row["state"] for row in usher("dlq", "list", "--json", "--state", "requested").rows] == ["requested"]

    assert usher("dlq", "replay", "--all").code == Exit.OK
    again = usher("dlq", "replay", dead_letter["id"])
    assert again.code == Exit.FAILED
    assert "requested" in again.out
    assert len(records(RETRY)) == 1


def test_a_dry_run_counts_and_writes_nothing(usher: Usher) -> None:
    """Per handler and reason: how many, expired, replayed before, beyond the limit."""
    bury("0001")
    bury("0002", expires_at=1)
    bury("0003", replays=5)
    bury("0004", handler="sms_notice")
    before = len(records(DEAD))
    ended = usher("dlq", "replay", "--all", "--dry-run", "--json")

    assert ended.rows == [
        {"handler": "sms_notice", "reason": "rejected", "dead_letters": 1, "expired": 0, "replayed_before": 0, "beyond_limit": 0},
        {"handler": "welcome_email", "reason": "rejected", "dead_letters": 3, "expired": 1, "replayed_before": 1, "beyond_limit": 1},
    ]  # fmt: skip
    assert records(RETRY) == []
    assert len(records(DEAD)) == before


def test_expired_dead_letters_are_refused_and_listed(usher: Usher) -> None:
    """Unless the operator says --even-expired."""
    bury("0001", expires_at=1)
    ended = usher("dlq", "replay", "--all", "--json")

    assert ended.code == Exit.FAILED
    assert [row["result"] for row in ended.rows] == ["expired"]
    assert records(RETRY) == []
    assert usher("dlq", "replay", "--all", "--even-expired").code == Exit.OK
    assert len(records(RETRY)) == 1


def test_a_dead_letter_is_not_replayed_for_ever(usher: Usher) -> None:
    """After five replays it is refused."""
    bury("0001", replays=5)
    ended = usher("dlq", "replay", "--all")

    assert ended.code == Exit.FAILED
    assert "replayed 5 times" in ended.out
    assert records(RETRY) == []


def test_many_dead_letters_need_a_yes(usher: Usher) -> None:
    """Without a terminal there is no question: the flag is named, and nothing is written."""
    for number in range(11):
        bury(f"00{number:02}")
    ended = usher("dlq", "replay", "--all")

    assert ended.code == Exit.USAGE
    assert "--yes" in ended.err
    assert records(RETRY) == []
    assert usher("dlq", "replay", "--all", "--yes").code == Exit.OK
    assert len(records(RETRY)) == 11


def test_drop_always_needs_a_yes(usher: Usher) -> None:
    """Dropping is for good."""
    bury("0001")
    refused = usher("dlq", "drop", "--all")
    assert refused.code == Exit.USAGE
    assert "--yes" in refused.err

    assert usher("dlq", "drop", "--all", "--yes").code == Exit.OK
    assert usher("dlq", "list", "--json").rows == []
    assert [row["state"] for row in usher("dlq", "list", "--json", "--state", "all").rows] == ["dropped"]


def test_a_replay_without_a_worker_times_out(usher: Usher) -> None:
    """--wait says that there is no outcome yet, and gives the exit code of a failure."""
    bury("0001")
    ended = usher("dlq", "replay", "--all", "--wait", "--timeout", "10ms")

    assert ended.code == Exit.FAILED
    assert "is a worker running?" in ended.err


def test_ids_carry_their_topic_where_there_are_several(usher: Usher) -> None:
    """An id stays unambiguous, and is taken back as it was given."""
    bury("0001")
    topics = f"{TOPIC},second"
    (row,) = usher("dlq", "list", "--json", "--topics", topics).rows
    assert row["id"].startswith(f"{TOPIC}:0@")
    assert usher("dlq", "show", row["id"], "--topics", topics).code == Exit.OK
    assert usher("dlq", "show", row["id"]).code == Exit.OK


def test_control_characters_do_not_reach_the_terminal(usher: Usher) -> None:
    """An event id is a stranger's text."""
    bury("evil\x1b[2J")

    assert "\x1b" not in usher("dlq", "list").out


UNSEEN = "evil\x1b[2J\x07\x85\x9b\u2028\u2029\u202e\u2066\u200f\ufeff\x7f"


@pytest.mark.parametrize("command", ["dlq list", "dlq show {letter}", "why {id}", "explain event.json"])
@pytest.mark.parametrize("json", [False, True])
def test_what_a_stranger_named_is_shown_on_one_line(usher: Usher, command: str, json: bool) -> None:
    """An id can neither end a line, nor turn the direction, nor control the terminal; JSON gives it back as it is."""
    id_ = f"{UNSEEN}\n{UNSEEN}\tend"
    bury(id_)
    file("event.json", raw_event(id=id_))
    letter = usher("dlq", "list", "--json").rows[0]["id"]
    arguments = [part.format(id=id_, letter=letter) for part in command.split()]
    ended = usher(*arguments, *(["--json"] if json else []))
    shown = [line for line in ended.out.split("\n") if "evil" in line]

    assert not set(UNSEEN) - set("evil[2J") & set(ended.out)
    if json:
        row = ended.rows[0]
        assert (row["event"]["id"] if command.startswith("why") else row["event_id"]) == id_
    else:
        assert all(line.count("evil") == 2 for line in shown)
        assert shown or command.startswith("why")


def test_preview_shows_what_is_sent(usher: Usher) -> None:
    """Subject, text and HTML of a mail; an SMS with its segments; in the language asked for."""
    name = file("event.json", raw_event(email=KIM, phone="+12025550123"))
    mail = usher("preview", "welcome_email", "--event", name, "--html", "mail.html")
    assert mail.code == Exit.OK, mail.err
    assert "Subject: " in mail.out
    assert "https://login.example.com" in Path("mail.html").read_text()

    assert "SMS, 1 segment (en)" in usher("preview", "sms_notice", "--event", name).out
    assert "Language: de" in usher("preview", "welcome_email", "--event", name, "--language", "de").out
    assert usher("preview", "welcome_mail", "--event", name).code == Exit.NOT_FOUND


def test_topics_are_planned_and_applied(usher: Usher) -> None:
    """The embedded log has all it needs after apply."""
    assert usher("topics", "apply").code == Exit.OK
    ended = usher("topics", "plan", "--json")

    assert ended.code == Exit.OK
    assert [(row["topic"], row["kind"], row["wrong"]) for row in ended.rows] == [
        (TOPIC, "source", ""),
        (RETRY, "retry", ""),
        (DEAD, "dlt", ""),
        ("usher.receipts", "receipts", ""),
    ]


def test_without_receipts_their_topic_is_not_planned(usher: Usher, monkeypatch: pytest.MonkeyPatch) -> None:
    """`USHER_RECEIPTS=off` needs none."""
    monkeypatch.setenv("USHER_RECEIPTS", "off")
    usher("topics", "apply")

    assert [row["topic"] for row in usher("topics", "plan", "--json").rows] == [TOPIC, RETRY, DEAD]


@pytest.mark.parametrize(
    ("name", "why"),
    [("Welcome", "lower case"), ("2nd", "a letter first"), ("import", "keyword of Python"), ("test_it", "a test file")],
)
def test_a_name_that_cannot_be_one_is_explained(usher: Usher, name: str, why: str) -> None:
    """Nothing is written."""
    ended = usher("new", "handler", name)

    assert ended.code == Exit.USAGE
    assert why in ended.err
    assert not Path("handlers").exists()


def test_an_unknown_type_names_the_nearest(usher: Usher) -> None:
    """As @on does."""
    ended = usher("new", "handler", "welcome_back", "--type", "user.create")

    assert ended.code == Exit.USAGE
    assert "user.created" in ended.err


def test_a_new_handler_overwrites_nothing(usher: Usher) -> None:
    """If one of its files is there, none is written."""
    Path("handlers").mkdir()
    Path("handlers/test_welcome_back.py").write_text("mine")
    ended = usher("new", "handler", "welcome_back")

    assert ended.code == Exit.FAILED
    assert [path.name for path in Path("handlers").iterdir()] == ["test_welcome_back.py"]


def test_options_mirror_settings_that_exist() -> None:
    """Every [USHER_…] in an option's help is a setting."""
    names = {row.name for row in settings_table()}
    mirrored = re.findall(r"\[(USHER_\w+)\]", Path(_options.__file__).read_text())

    assert mirrored
    assert set(mirrored) <= names


READERS = [
    ("why", "00aa"),
    ("why", "--user", KIM),
    ("dlq", "list"),
    ("dlq", "show", "0@0"),
    ("dlq", "replay", "--all", "--dry-run"),
    ("dlq", "drop", "--all", "--yes"),
    ("topics", "plan"),
]


@pytest.mark.parametrize("command", READERS, ids=" ".join)
@pytest.mark.parametrize("empty", [False, True], ids=["no file", "an empty file"])
def test_a_command_that_only_reads_makes_no_event_log(
    usher: Usher, tmp_path: Path, command: tuple[str, ...], empty: bool
) -> None:
    """In a folder without one, or with an empty file, it says where it looked, exits with 3, and leaves nothing behind."""
    if empty:
        (tmp_path / "usher.db").touch()

    ended = usher(*command)

    assert ended.code == Exit.LOG_UNREACHABLE
    assert f"there is no event log at {tmp_path / 'usher.db'}" in ended.err
    assert [(file.name, file.stat().st_size) for file in tmp_path.iterdir()] == [("usher.db", 0)] * empty


def test_check_makes_no_event_log_either(usher: Usher, tmp_path: Path) -> None:
    """Before the first start there is none: that is a warning with the place, and no problem."""
    ended = usher("check", "--json")

    found, folder = [row for row in ended.rows if row["area"] == "event log"]
    assert (found["status"], folder["status"], ended.code) == ("warn", "ok", Exit.OK)
    assert str(tmp_path / "usher.db") in found["text"]
    assert not list(tmp_path.glob("usher.db*"))


@pytest.mark.parametrize("command", [("dlq", "list"), ("why", "ffff")], ids=" ".join)
def test_nothing_found_names_the_event_log_that_was_searched(usher: Usher, command: tuple[str, ...]) -> None:
    """An empty answer may be the answer of the wrong event log."""
    usher("emit", file("one.json", raw_event(id="00aa")))

    assert "sqlite:///usher.db" in usher(*command).err
