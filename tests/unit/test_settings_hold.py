"""What the settings accept, every part takes; what they refuse, every command refuses with the same sentences and exit code 2."""

from __future__ import annotations

import contextlib
import io
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from unittest import mock

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from usher.app import build
from usher.cli import main
from usher.cli._exits import Exit
from usher.registry import SYSTEMS
from usher.settings import Settings, SettingsError
from usher.settings.table import every_setting
from usher.terminal import plain

SID = "AC" + "0" * 32
LONG = "x" * 300
SMTP, SENDGRID = {"USHER_EMAIL": "smtp", "USHER_MAIL_FROM": "a@example.org"}, {"USHER_EMAIL": "sendgrid"}
TWILIO = {"USHER_SMS": "twilio", "USHER_TWILIO__ACCOUNT_SID": SID, "USHER_TWILIO__AUTH_TOKEN": "x"}
KEYCLOAK = {"URL": "https://id.example.com", "REALM": "shop", "CLIENT_ID": "usher", "CLIENT_SECRET": "s", "POLL": "1"}
WHOLE: list[dict[str, str]] = [
    {},
    {"USHER_EVENT_LOG": "kafka://127.0.0.1:9092", "USHER_KAFKA__CLIENT_ID": "usher-eu"},
    {**SMTP, "USHER_SMTP__URL": "smtp://usher:p%40ss@mail.example.org:587"},
    {**SENDGRID, "USHER_SENDGRID__API_KEY": "SG.key", "USHER_MAIL_FROM": "Accounts <a@example.org>"},
    {**TWILIO, "USHER_TWILIO__FROM": "+15005550006"},
    {f"USHER_KEYCLOAK__{name}": text for name, text in KEYCLOAK.items()},
    {"USHER_GENAUTH__SHOP__ACCESS_KEY_ID": "pool", "USHER_GENAUTH__SHOP__ACCESS_KEY_SECRET": "s"},
    {"USHER_AUTH0__DOMAIN": "acme.eu.auth0.com", "USHER_AUTH0__CLIENT_ID": "c", "USHER_AUTH0__CLIENT_SECRET": "s"},
    {"USHER_TOPICS": "identity.events,raw=keycloak", "USHER_AUTHGEAR__WEBHOOK_SECRET": "s"},
]
"""Settings that fit together, each of another kind."""
TEXTS = [
    "", " ", ",", "-", "0", "1", "-1", "2", "nan", "inf", "1e400", "9" * 20, "9" * 5000, "0s", "10s", "1d", "9999d", "true",
    "none", "é", "a b", "a\nb", "a\x00b", "\udcff", "{", "%", "%0A", "*", ".", "..", "/", "/tmp", "/nowhere/at/all", LONG,
    __file__, "a,b", "a,a", "a=keycloak", "a=keycloak/shop", "a=b", "unknown", "earliest", "2026-05-01",
    "0001-01-01T00:00:00+23:00", ":80", "h:0", "h:99999", "[::1]:80", "a..b:80", "http://h", "https://h:0", "https://u:p@h",
    "https://h?q", "https://h/#", "https://h/p/", "https://a..b", "https://[", "h\\@k", "acme.eu.auth0.com",
    "sqlite:///", "sqlite:///dir/", "sqlite:///:memory:", "sqlite:////tmp", f"sqlite:///{LONG}", "sqlite:///a/b.db",
    "kafka://h:9092,", "kafka://u@h:9092", "kafka://a..b:1", "kafka://[::1]:1", "smtp://u@h:587", "smtp://:p@h:587",
    "smtp://h:587/path", "smtps://h", "smtp://[", "smtp://u:p%ff@h", "a@example.org", "A <a@example.org>",
    "a@x.org, b@x.org", "a@localhost", "abc!!", "+0123", "+15005550006", "12345", "ACME", "MG" + "0" * 32, SID,
    "outbox", "smtp", "sendgrid", "twilio", "SASL_SSL", "PLAIN", "events", "created", "sapi", "user.created",
]  # fmt: skip
"""What is written by mistake, and what is right for some setting and wrong for others."""
NAMES = [leaf.name for leaf in every_setting() if leaf.name != "USHER_HANDLERS"]
NAMES += [f"USHER_{system.upper()}__SHOP__{name}" for system in SYSTEMS for name in ("REALM", "APP_ID", "POLL")]
NAMES += [f"USHER_KAFKA__{name}" for name in ("SECURITY_PROTOCOL", "SESSION_TIMEOUT_MS", "SSL_CAFILE", "ACKS")]
CASES = [
    {"USHER_EVENT_LOG": "kafka://host:9092,"},
    {"USHER_EVENT_LOG": "kafka://user@host:9092"},
    {"USHER_EVENT_LOG": "sqlite:///dir/"},
    {"USHER_EVENT_LOG": "sqlite:///:memory:"},
    {**SMTP, "USHER_SMTP__URL": "smtp://user@host:587"},
    {**SMTP, "USHER_SMTP__URL": "smtp://:password@host:587"},
    {**SMTP, "USHER_SMTP__URL": "smtp://host:587/path"},
    {**TWILIO, "USHER_TWILIO__FROM": "abc!!"},
    {**TWILIO, "USHER_TWILIO__FROM": "+0123"},
    {**TWILIO, "USHER_TWILIO__FROM": "+15005550006", "USHER_TWILIO__ACCOUNT_SID": "AC0"},
    {**SENDGRID, "USHER_MAIL_FROM": "a@example.org", "USHER_SENDGRID__API_KEY": "é"},
    {"USHER_TWILIO__BASE_URL": "https://api.example.com?key=1"},
    {"USHER_KAFKA__ACKS": "1"},
    {"USHER_KEYCLOAK__URL": "https://id.example.com"},
    {"USHER_AUTHGEAR__PRIVATE_KEY": "no key"},
]
environments = st.builds(
    lambda whole, more: {**whole, **more},
    st.sampled_from(WHOLE),
    st.dictionaries(st.sampled_from(NAMES), st.sampled_from(TEXTS) | st.text(max_size=8), max_size=3),
)


@contextlib.contextmanager
def alone(environ: Mapping[str, str], folder: Path) -> Iterator[tuple[io.StringIO, io.StringIO]]:
    """Without settings from outside, in a folder without a `.env`; what is printed on stdout and stderr."""
    out, err = io.StringIO(), io.StringIO()
    inherited = {name: text for name, text in os.environ.items() if not name.startswith("USHER_")}
    with (
        contextlib.chdir(folder),
        # Not os.environ itself: it holds neither NUL nor what is no text, and a `.env` may.
        mock.patch("os.environ", {**inherited, **environ}),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        yield out, err


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty folder."""
    return tmp_path_factory.mktemp("settings")


def load(environ: Mapping[str, str], folder: Path) -> Settings | tuple[str, ...]:
    """The settings; or what is said instead."""
    with alone(environ, folder):
        try:
            return Settings.load()
        except SettingsError as refusal:
            return refusal.problems


@given(environ=environments)
@settings(max_examples=4 * settings().max_examples)
@pytest.mark.heavy
def test_what_is_accepted_is_taken_by_every_part(environ: dict[str, str], folder: Path) -> None:
    """Either there are sentences, each of which begins with a setting's name, or the service can be built."""
    match load(environ, folder):
        case Settings() as accepted:
            with alone(environ, folder):
                assert build(accepted, handlers=[]).settings is accepted
        case problems:
            assert problems
            assert all(problem.startswith("USHER_") for problem in problems)


@given(environ=environments)
@example(environ={"USHER_AUTHGEAR__POLL": "true", "USHER_AUTHGEAR__POLL_TYPES": "\ud7fc"})
@example(environ={"USHER_AUTHGEAR__POLL_TYPES": "\x08"})
@example(environ={"USHER_AUTHGEAR__POLL_TYPES": "0\t0"})
@settings(max_examples=6 * settings().max_examples // 10)
@pytest.mark.heavy
def test_what_is_refused_is_refused_alike_by_check_and_run(environ: dict[str, str], folder: Path) -> None:
    """The same sentences, and exit code 2."""
    problems = load(environ, folder)
    assume(isinstance(problems, tuple))
    assert isinstance(problems, tuple)
    with alone(environ, folder) as (_, err):
        assert main(["run"]) == Exit.USAGE
        assert err.getvalue() == plain("usher: " + "\n".join(problems) + "\n")
    with alone(environ, folder) as (out, _):
        assert main(["check", "--json"]) == Exit.USAGE
        rows = json.loads(out.getvalue())
    assert [f"{row['what']}: {row['text']}" for row in rows] == list(problems)


@pytest.mark.parametrize("environ", CASES, ids=lambda environ: " ".join(list(environ.items())[-1]))
@pytest.mark.parametrize("command", ["run", "check", "handlers", "topics plan", "dlq list", "why 00ff"])
def test_every_command_refuses_what_no_part_could_take(command: str, environ: dict[str, str], folder: Path) -> None:
    """One sentence that names the setting, exit code 2, no traceback."""
    with alone(environ, folder) as (out, err):
        code = main(command.split())

    lines = [line for line in (out.getvalue() + err.getvalue()).splitlines() if "USHER_" in line]
    assert code == Exit.USAGE
    assert all(any(name in line for name in environ) or "KEYCLOAK__" in line or "AUTHGEAR__" in line for line in lines)
    assert lines
    assert "Traceback" not in err.getvalue()
