"""The settings: what an operator writes, what the service gets, and what is said about mistakes."""

from pathlib import Path
from typing import Any, Literal, cast

import pytest
from platformdirs import user_cache_path
from pydantic import BaseModel, SecretStr

from usher import Context, Event, on
from usher.addresses import MailSender, SmtpServer
from usher.eventlog.browse import Browser
from usher.eventlog.port import EventLog
from usher.redact import Ours, scrub
from usher.settings import Address, Settings, SettingsError
from usher.settings.report import MASK
from usher.settings.secret_values import know_handlers
from usher.settings.table import settings_table
from usher.storage import exposed_key, log_config, reading_keys, writing_keys


def load(**environ: str) -> Settings:
    return Settings.load(environ, env_file=None)


def first(settings: Settings, system: str) -> Any:
    """The settings of a system's tenant that has no name."""
    return settings.tenants_of(system)[""]


def problems(**environ: str) -> tuple[str, ...]:
    with pytest.raises(SettingsError) as caught:
        load(**environ)
    assert str(caught.value) == "\n".join(caught.value.problems)
    return caught.value.problems


SASL = {
    "USHER_KAFKA__SECURITY_PROTOCOL": "SASL_PLAINTEXT",
    "USHER_KAFKA__SASL_MECHANISM": "PLAIN",
    "USHER_KAFKA__SASL_PLAIN_USERNAME": "usher",
}


class NoticeSettings(BaseModel):
    when: Literal["phone-only", "always"] = "phone-only"
    languages: tuple[str, ...] = ()
    key: SecretStr | None = None


@on("user.created", settings=NoticeSettings)
async def notice(event: Event, ctx: Context) -> None:
    """Tell."""


@on("user.created")
async def plain(event: Event, ctx: Context) -> None:
    """Tell plainly."""


def test_an_empty_environment_is_a_service_that_starts() -> None:
    """Without a single name set, there is an embedded log, the outbox, and the filter that the design promises."""
    settings = load()

    assert str(settings.event_log) == "sqlite:///usher.db"
    assert settings.topic_names == ("identity.events",)
    assert settings.ingest_topic == "identity.events"
    assert settings.triggered_by == ("admin_api",)
    assert settings.http == Address("127.0.0.1", 8080)
    assert (settings.email, settings.sms) == ("outbox", "outbox")
    assert settings.retry_policy.attempts == 5
    assert (settings.shutdown_grace, settings.dedupe_window) == (25.0, 600.0)
    assert settings.login_url is None


def test_every_kind_of_value_is_read_as_it_is_written() -> None:
    """Lists are comma separated, durations have units, groups have two underscores."""
    settings = load(
        USHER_EVENT_LOG="kafka://a:9092, b:9092",
        USHER_TOPICS="one, two",
        USHER_HTTP="[::1]:0",
        USHER_RETRY_DELAYS="500ms,2m",
        USHER_TWILIO__FROM="+15550100",
        USHER_MAIL_FROM="Accounts <accounts@Example.com>",
        USHER_SMTP__URL="smtp://usher:p%40ss%2Fw%C3%B6rd@mail.example.com",
        USHER_SENDGRID__BASE_URL="http://127.0.0.1:9999/",
        USHER_AUTHGEAR__WEBHOOK_SECRET="new, old",
        USHER_KAFKA__CLIENT_ID="usher-eu",
        USHER_LOGIN_URL="https://id.example.com/login",
    )

    assert str(settings.event_log) == "kafka://a:9092,b:9092"
    assert settings.topic_names == ("one", "two")
    assert settings.ingest_topic == "one"
    assert settings.http == Address("::1", 0)
    assert str(settings.http) == "[::1]:0"
    assert settings.retry_delays == (0.5, 120.0)
    assert str(settings.twilio.from_) == "+15550100"
    assert settings.mail_from == MailSender("accounts@example.com", "Accounts")
    assert settings.smtp.url == SmtpServer("mail.example.com", 587, user="usher", password="p@ss/wörd")
    assert settings.sendgrid.base_url == "http://127.0.0.1:9999"
    assert [secret.get_secret_value() for secret in first(settings, "authgear").webhook_secret] == ["new", "old"]
    assert settings.kafka.given == {"client_id": "usher-eu"}
    assert settings.reset_url == "https://id.example.com/login"


@pytest.mark.parametrize(
    ("text", "start"),
    [
        ("latest", "latest"),
        ("earliest", "earliest"),
        ("1767225600", 1767225600.0),
        ("2026-01-01T00:00:00Z", 1767225600.0),
        ("2026-01-01T00:00:00", 1767225600.0),
        ("2026-01-01T02:00:00+02:00", 1767225600.0),
    ],
)
def test_a_start_is_a_word_or_a_time(text: str, start: str | float) -> None:
    """A time without a zone is UTC: the same on every machine."""
    assert load(USHER_START_FROM=text).start_from == start


def test_no_retry_at_all_can_be_said() -> None:
    """`none` leaves one attempt; an empty text means not set, as Compose writes it."""
    assert load(USHER_RETRY_DELAYS="none").retry_policy.attempts == 1
    assert load(USHER_RETRY_DELAYS="").retry_policy.attempts == 5


@pytest.mark.parametrize(
    ("name", "value", "hint"),
    [
        ("USHER_EVENT_LOG", "postgres://x", "sqlite:///usher.db"),
        ("USHER_EVENT_LOG", "kafka://broker", "kafka://host:9092"),
        ("USHER_EVENT_LOG", "sqlite://usher.db", "sqlite:///usher.db"),
        ("USHER_TOPICS", "a,a", "each once"),
        ("USHER_GROUP", "my group", "letters, digits"),
        ("USHER_START_FROM", "yesterday", "latest, earliest"),
        ("USHER_START_FROM", "nan", "latest, earliest"),
        ("USHER_START_FROM", "-1", "latest, earliest"),
        ("USHER_START_FROM", "1e300", "latest, earliest"),
        ("USHER_TOPICS", "..", "letters, digits"),
        ("USHER_TOPICS", "t" * 201 + ",a", "at most 200"),
        ("USHER_HANDLERS_DIR", "d" * 300, "File name too long"),
        ("USHER_OUTBOX_DIR", __file__, "a file of that name is in the way"),
        ("USHER_SERVICE_NAME", "Acme\nSons", "on one line"),
        ("USHER_DEDUPE_WINDOW", "9" * 400 + "d", "a number and a unit"),
        ("USHER_DEDUPE_WINDOW", "367d", "366d at most"),
        ("USHER_SHUTDOWN_GRACE", "2d", "1d at most"),
        ("USHER_KEYCLOAK__POLL_EVERY", "0s", "greater than 0"),
        ("USHER_AUTH0__POLL_EVERY", "0s", "greater than 0"),
        ("USHER_AUTH0__MESSAGES_PER_MINUTE", "9" * 20, "a whole number from 1 to"),
        ("USHER_HTTP", "a..b:80", "host:port"),
        ("USHER_TRIGGERED_BY", "unknown", "@on(..., triggered_by="),
        ("USHER_HANDLERS_DIR", "/nowhere/at/all", "a folder that exists"),
        ("USHER_RETRY_DELAYS", "10s,soon", "a number and a unit"),
        ("USHER_HTTP", "8080", "host:port"),
        ("USHER_HTTP", "localhost:99999", "host:port"),
        ("USHER_SHUTDOWN_GRACE", "-1s", "a number and a unit"),
        ("USHER_EMAIL", "pigeon", "'outbox', 'sendgrid' or 'smtp'"),
        ("USHER_MAIL_FROM", "nobody", "should be an address"),
        ("USHER_LOGIN_URL", "javascript:alert(1)", "should be a URL"),
        ("USHER_LOGIN_URL", "https://a..b/login", "should be a URL"),
        ("USHER_RESET_URL", "https://example.com:0/", "should be a URL"),
        ("USHER_SENDGRID__BASE_URL", "https://api.example.com/v3", "without a path"),
        ("USHER_SENDGRID__BASE_URL", "https://api.example.com?v=3", "without a query"),
        ("USHER_TWILIO__BASE_URL", "https://api.example.com/?", "without a query"),
        ("USHER_KEYCLOAK__URL", "https://id.example.com/auth#", "without a query"),
        ("USHER_TWILIO__FROM", "abc!!", "should be a number"),
        ("USHER_TWILIO__FROM", "+0123", "should be a number"),
        ("USHER_TWILIO__FROM", "MG0123456789", "a name of at most 11"),
        ("USHER_TWILIO__ACCOUNT_SID", "SK123", "AC and 32 hexadecimal digits"),
        ("USHER_TWILIO__ACCOUNT_SID", "SK" + "0" * 32, "goes into USHER_TWILIO__API_KEY"),
        ("USHER_TWILIO__API_KEY", "AC" + "0" * 32, "SK and 32 hexadecimal digits"),
        ("USHER_MAIL_INTERNAL_DOMAINS", "kim@firma.local", "no address, no port"),
        ("USHER_MAIL_INTERNAL_DOMAINS", "firma.local:25", "no address, no port"),
        ("USHER_MAIL_FROM", "no-reply@firma.local", "name it in USHER_MAIL_INTERNAL_DOMAINS"),
        ("USHER_MAIL_FROM", "no-reply@intranet", "name it in USHER_MAIL_INTERNAL_DOMAINS"),
        ("USHER_GENAUTH__ACCESS_KEY_ID", "pool id", "it is sent in a header"),
        ("USHER_MAX_IN_FLIGHT", "many", "a whole number"),
        ("USHER_INGEST_TOPIC", "elsewhere", "one of USHER_TOPICS"),
    ],
)
def test_a_wrong_value_is_reported_with_its_name_and_the_way_out(name: str, value: str, hint: str) -> None:
    """One line: the name and value as they were written, then what should be there."""
    (line,) = problems(**{name: value})

    assert line.startswith(f"{name}={value!r}: ")
    assert hint in line


@pytest.mark.parametrize(
    ("url", "hint"),
    [
        ("mail.example.org:587", "should be smtp://user:password@host:587"),
        ("http://mail.example.org", "should be smtp://"),
        ("smtp://mail.example.org:70000", "should be smtp://"),
        ("smtp://usher:hush@/x", "should be smtp://"),
        ("smtp://usher:hush@mail.example.org/x", "has something after the server"),
        ("smtp://usher:hush@mail.example.org?tls=no", "has something after the server"),
        *(
            (f"smtp://usher:{sign}hush@mail.example.org", "/ # ? [ ] @ : % are written %2F %23 %3F %5B")
            for sign in "/#?["
        ),
        ("smtp://usher:12/hush@mail.example.org", "are written %2F"),
        ("smtp://usher:hush%0A@mail.example.org", "has a control character"),
        ("smtp://usher@mail.example.org:587", "has a user without a password"),
        ("smtp://:hush@mail.example.org:587", "or a password without a user"),
    ],
)
def test_a_mail_server_that_could_not_be_used_is_refused(url: str, hint: str) -> None:
    """One line, which does not repeat the password; the server's port has a default, by its scheme."""
    (line,) = problems(USHER_SMTP__URL=url)

    assert line.startswith("USHER_SMTP__URL: ")
    assert hint in line
    assert "hush" not in line
    assert load(USHER_SMTP__URL="smtps://mail.example.org").smtp.url == SmtpServer("mail.example.org", 465, tls=True)


@pytest.mark.parametrize("secret", ["SG.é", "SG.a\nb", "SG.a b", "SG.a\x00b", " "])
@pytest.mark.parametrize("name", ["USHER_SENDGRID__API_KEY", "USHER_TWILIO__AUTH_TOKEN"])
def test_a_credential_that_no_header_can_hold_is_refused(name: str, secret: str) -> None:
    """At once, and not with the first message; blanks around it are a slip that does no harm."""
    (line,) = problems(**{name: secret})

    assert line.startswith(f"{name}: should be letters, digits and signs of ASCII")
    assert "SG" not in line
    key = load(USHER_SENDGRID__API_KEY=" SG.key ").sendgrid.api_key
    assert key is not None
    assert key.get_secret_value() == "SG.key"


@pytest.mark.parametrize(
    "name", ["AUTH0__BASE_URL", "GENAUTH__SHOP__URL", "AUTHGEAR__ENDPOINT", "TWILIO__BASE_URL", "KEYCLOAK__URL"]
)
def test_the_address_of_an_api_takes_no_login(name: str) -> None:
    """What proves us is sent in a header of its own, and no client sends both."""
    (line,) = problems(**{f"USHER_{name}": "https://user:p@hush@api.example.com"})

    assert line.startswith(
        f"USHER_{name}='https://********@api.example.com': should be a URL without a user and password"
    )


def test_the_names_of_our_own_topics_have_to_fit() -> None:
    """Kafka takes 249 characters; a name that is too long would be found when the first delivery is parked."""
    (line,) = problems(USHER_GROUP="g" * 200, USHER_TOPICS="t" * 43)

    assert line.startswith("USHER_TOPICS=ttt")
    assert load(USHER_GROUP="g" * 200, USHER_TOPICS="t" * 42).group == "g" * 200


@pytest.mark.parametrize("own", ["g.events-retry", "g.events-dlt", "g.checkpoints", "g.g.checkpoints-retry"])
def test_a_source_topic_with_the_name_of_one_of_ours_is_refused(own: str) -> None:
    """Usher would read its own records as events: those of any topic that this group reads."""
    topics = {"events", own, own.removeprefix("g.").removesuffix("-retry") if own.startswith("g.g.") else own}

    [line] = [line for line in problems(USHER_GROUP="g", USHER_TOPICS=",".join(sorted(topics))) if own in line]
    assert line.startswith(
        f"USHER_TOPICS={own}: with USHER_GROUP=g Usher writes its own records to a topic of that name;"
    )


def test_what_is_no_text_is_refused() -> None:
    """A value that is not UTF-8 could be neither shown nor sent; a webhook's secret is bytes, whatever they are."""
    assert problems(USHER_LOGIN_URL="https://example.com/\udcff") == (
        "USHER_LOGIN_URL: is not UTF-8 text; write it anew",
    )
    assert first(load(USHER_AUTHGEAR__WEBHOOK_SECRET="\udcff"), "authgear").brings_events
    assert load(USHER_AUTHGEAR__SHOP__WEBHOOK_SECRET="\udcff").tenants_of("authgear")["shop"].brings_events


def test_all_mistakes_are_reported_at_once() -> None:
    """Nobody has to start the service five times to find five mistakes."""
    lines = problems(USHER_HTTP="x", USHER_SMS="y", USHER_TOPIC="z", USHER_SENDGRID__API_KEY_FILE="/nowhere")

    assert {line.partition(":")[0].partition("=")[0] for line in lines} == {
        "USHER_HTTP",
        "USHER_SMS",
        "USHER_TOPIC",
        "USHER_SENDGRID__API_KEY_FILE",
    }


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("USHER_LOGN_URL", "USHER_LOGIN_URL"),
        ("USHER_TWILIO__FORM", "USHER_TWILIO__FROM"),
        ("USHER_SENDGRID_API_KEY", "USHER_SENDGRID__API_KEY"),
        ("USHER_SENDGRID__APIKEY_FILE", "USHER_SENDGRID__API_KEY_FILE"),
        ("USHER_HTTP_PORT", "USHER_HTTP"),
    ],
)
def test_an_unknown_name_refuses_and_names_the_nearest(name: str, nearest: str) -> None:
    """Its value is not shown: it may well be a secret under a misspelt name."""
    (line,) = problems(**{name: "hush-hush-1234"})

    assert line.startswith(f"{name}: there is no such setting (did you mean '{nearest}'?)")
    assert "hush" not in line


def test_an_old_name_is_refused_with_the_new_one() -> None:
    """The event log and the level of the log lines had names that looked alike."""
    assert problems(USHER_LOG="sqlite:///usher.db") == ("USHER_LOG: is called USHER_EVENT_LOG now; rename it",)


def test_what_kubernetes_injects_is_ignored() -> None:
    """A Service named usher, or usher-http, puts names into every pod that look like settings."""
    load(
        USHER_SERVICE_HOST="10.0.0.7",
        USHER_SERVICE_PORT="8080",
        USHER_SERVICE_PORT_HTTP="8080",
        USHER_PORT="tcp://10.0.0.7:8080",
        USHER_PORT_8080_TCP="tcp://10.0.0.7:8080",
        USHER_PORT_8080_TCP_ADDR="10.0.0.7",
        USHER_PORT_8080_TCP_PORT="8080",
        USHER_PORT_8080_TCP_PROTO="tcp",
        USHER_HTTP_SERVICE_HOST="10.0.0.8",
        USHER_HTTP_PORT="tcp://10.0.0.8:80",
        USHER_HTTP_PORT_80_TCP_ADDR="10.0.0.8",
    )


@pytest.mark.parametrize(
    ("environ", "missing"),
    [
        ({"USHER_EMAIL": "sendgrid"}, {"USHER_SENDGRID__API_KEY", "USHER_MAIL_FROM"}),
        ({"USHER_EMAIL": "smtp", "USHER_MAIL_FROM": "a@example.com"}, {"USHER_SMTP__URL"}),
        (
            {"USHER_SMS": "twilio"},
            {"USHER_TWILIO__ACCOUNT_SID", "USHER_TWILIO__AUTH_TOKEN", "USHER_TWILIO__FROM"},
        ),
        (
            {"USHER_SMS": "twilio", "USHER_TWILIO__API_KEY": "SK" + "0" * 32},
            {"USHER_TWILIO__ACCOUNT_SID", "USHER_TWILIO__API_KEY_SECRET", "USHER_TWILIO__FROM"},
        ),
        ({"USHER_TWILIO__API_KEY_SECRET": "hush"}, {"USHER_TWILIO__API_KEY"}),
        (
            {
                "USHER_EMAIL": "sendgrid",
                "USHER_SENDGRID__API_KEY": "k",
                "USHER_MAIL_FROM": "a@example.com",
                "USHER_MAIL_INTERNAL_DOMAINS": "firma.local",
            },
            {"USHER_MAIL_INTERNAL_DOMAINS=firma.local"},
        ),
    ],
)
def test_a_provider_without_its_account_is_refused(environ: dict[str, str], missing: set[str]) -> None:
    """Choosing a provider says which names are needed."""
    assert {line.partition(":")[0] for line in problems(**environ)} == missing


def test_a_sender_may_be_of_the_own_network() -> None:
    """Where the domain is named: in any case, with a dot before it, in Unicode, and those below it."""
    settings = load(
        USHER_MAIL_INTERNAL_DOMAINS="Firma.local, .test,*.bücher.local", USHER_MAIL_FROM="IT <it@mx.FIRMA.local>"
    )

    assert settings.mail_internal_domains == ("firma.local", "test", "xn--bcher-kva.local")
    assert str(settings.mail_from) == '"IT" <it@mx.firma.local>'


def test_a_secret_can_be_a_file(tmp_path: Path) -> None:
    """The newline that editors leave at the end is no part of it; Kafka's password goes the same way."""
    secret = tmp_path / "secret"
    secret.write_text("hush-hush\n")

    settings = load(
        USHER_SENDGRID__API_KEY_FILE=str(secret),
        USHER_AUTHGEAR__WEBHOOK_SECRET_FILE=str(secret),
        USHER_KAFKA__SASL_PLAIN_PASSWORD_FILE=str(secret),
        **SASL,
    )

    assert settings.sendgrid.api_key is not None
    assert settings.sendgrid.api_key.get_secret_value() == "hush-hush"
    assert [key.get_secret_value() for key in first(settings, "authgear").webhook_secret] == ["hush-hush"]
    assert settings.kafka.common["sasl_plain_password"] == "hush-hush"


def test_a_secret_that_is_given_twice_or_not_there_is_refused(tmp_path: Path) -> None:
    """Which of two would win is nothing to guess about."""
    empty = tmp_path / "empty"
    empty.write_text("\n")

    assert problems(USHER_SENDGRID__API_KEY="a", USHER_SENDGRID__API_KEY_FILE=str(empty)) == (
        "USHER_SENDGRID__API_KEY_FILE: USHER_SENDGRID__API_KEY is given as well; keep one of the two",
    )
    assert "is empty" in problems(USHER_TWILIO__AUTH_TOKEN_FILE=str(empty))[0]
    (line,) = problems(USHER_TWILIO__AUTH_TOKEN_FILE="/nowhere")
    assert line.startswith("USHER_TWILIO__AUTH_TOKEN_FILE='/nowhere': can't be read: No such file or directory")
    assert "no such setting" in problems(USHER_LOGIN_URL_FILE="/nowhere")[0]


def test_a_secret_whose_file_cannot_be_read_is_not_called_missing() -> None:
    """One mistake is one line, also where other settings need the secret."""
    for environ in (
        {"USHER_EMAIL": "sendgrid", "USHER_MAIL_FROM": "a@example.com", "USHER_SENDGRID__API_KEY_FILE": "/nowhere"},
        {"USHER_GENAUTH__SHOP__ACCESS_KEY_ID": "k", "USHER_GENAUTH__SHOP__ACCESS_KEY_SECRET_FILE": "/nowhere"},
        {**SASL, "USHER_KAFKA__SASL_PLAIN_PASSWORD_FILE": "/nowhere"},
    ):
        (line,) = problems(**environ)
        assert "can't be read" in line


def test_no_secret_is_ever_shown(tmp_path: Path) -> None:
    """Neither in the table of `usher check`, nor in a repr, nor in the mistakes."""
    environ = {
        **SASL,
        "USHER_SENDGRID__API_KEY": "hush-1",
        "USHER_TWILIO__AUTH_TOKEN": "hush-2",
        "USHER_SMTP__URL": "smtp://user:hush-3@localhost",
        "USHER_AUTHGEAR__WEBHOOK_SECRET": "hush-4",
        "USHER_KAFKA__SASL_PLAIN_PASSWORD": "hush-5",
        "USHER_NOTICE__KEY": "hush-6",
        "USHER_NOTICE__API_TOKEN": "hush-7",
        "USHER_NOTICE__API_KEY": "hush-10",
        "USHER_NOTICE__PASSPHRASE": "hush-11",
        "USHER_LOGIN_URL": "https://user:hush-8@example.com/",
        "USHER_RESET_URL": "https://user:p@hush-12@id.example.com",
    }
    settings = load(**{name: value for name, value in environ.items() if name != "USHER_NOTICE__KEY"})
    shown = {row.name: row.text for row in settings.shown()}
    wrong = problems(**environ | {"USHER_SMTP__URL": "ftp://user:hush-3@x", "USHER_LOGIN_URL": "ftp://user:hush-8@x"})
    wrong += problems(USHER_LOGIN_URL="https://user:hush 8@x", USHER_KEYCLOAK__URL="https://user:p@hush@")

    assert "hush" not in f"{settings!r} {settings} {shown}".replace("https://user:hush-8@example.com/", "").replace(
        "https://user:p@hush-12@id.example.com", ""
    )
    assert shown["USHER_SENDGRID__API_KEY"] == "********"
    assert shown["USHER_KAFKA__SASL_PLAIN_PASSWORD"] == "********"
    assert shown["USHER_LOGIN_URL"] == "https://********@example.com/"
    assert "hush" not in "\n".join(wrong)
    with pytest.raises(SettingsError) as caught:
        load(USHER_NOTICE__KEY="hush-6", USHER_NOTICE__WEHN="hush-9").for_handlers([notice])
    assert "hush" not in str(caught.value)


def test_what_is_shown_says_what_was_set() -> None:
    """The table has the value in force, in the units an operator writes, and whether it is a default."""
    rows = {row.name: row for row in load(USHER_RETRY_DELAYS="90s,2h", USHER_TOPICS="a,b").shown()}

    assert rows["USHER_RETRY_DELAYS"][1:] == ("90s,2h", "set")
    assert rows["USHER_TOPICS"][1:] == ("a,b", "set")
    assert rows["USHER_DEDUPE_WINDOW"][1:] == ("10m", "default")
    assert rows["USHER_HTTP"][1:] == ("127.0.0.1:8080", "default")


def test_a_flag_beats_the_environment_and_the_environment_beats_the_file(tmp_path: Path) -> None:
    """None is a flag that was not given."""
    env_file = tmp_path / ".env"
    env_file.write_text("USHER_GROUP=file\nUSHER_TOPICS=file\nUSHER_SERVICE_NAME='Acme & Sons'\nOTHER=ignored\n")

    settings = Settings.load(
        {"USHER_GROUP": "environment", "USHER_TOPICS": "environment"},
        env_file,
        group=None,
        topics="flag",
        http="127.0.0.1:0",
        sendgrid__base_url="http://localhost:1",
    )

    assert (settings.service_name, settings.group, settings.topic_names) == ("Acme & Sons", "environment", ("flag",))
    assert settings.http.port == 0
    assert settings.sendgrid.base_url == "http://localhost:1"


def test_an_unknown_name_in_the_file_refuses_as_well(tmp_path: Path) -> None:
    """A misspelling in `.env` is as silent as one in the environment."""
    env_file = tmp_path / ".env"
    env_file.write_text("USHER_GRUOP=x\n")

    with pytest.raises(SettingsError, match="did you mean 'USHER_GROUP'"):
        Settings.load({}, env_file)


def test_the_process_environment_is_read_only_by_load(monkeypatch: pytest.MonkeyPatch) -> None:
    """The constructor takes exactly what it is given; `load` without arguments reads the process's."""
    monkeypatch.setenv("USHER_GROUP", "from-the-process")

    assert Settings().group == "usher"
    assert Settings.load(env_file=None).group == "from-the-process"


def test_a_handlers_own_settings_are_typed_by_its_model() -> None:
    """`USHER_<HANDLER>__FIELD` fills the model of that handler; one without a model has none."""
    settings = load(USHER_NOTICE__WHEN="always", USHER_NOTICE__LANGUAGES="de, fr")

    assert settings.for_handlers([notice, plain]) == {
        "notice": NoticeSettings(when="always", languages=("de", "fr")),
        "plain": None,
    }


def test_a_handlers_secret_can_be_a_file(tmp_path: Path) -> None:
    """The same `_FILE` as for the service's own."""
    secret = tmp_path / "key"
    secret.write_text("hush\n")

    model = load(USHER_NOTICE__KEY_FILE=str(secret)).for_handlers([notice])["notice"]

    assert model == NoticeSettings(key=SecretStr("hush"))


@pytest.mark.parametrize(
    ("environ", "line"),
    [
        (
            {"USHER_NOTISE__WHEN": "x"},
            (
                "USHER_NOTISE__WHEN: there is no handler or setting USHER_NOTISE (did you mean 'USHER_NOTICE'?); "
                "correct or remove it"
            ),
        ),
        (
            {"USHER_SENDGIRD__API_KEY": "x"},
            (
                "USHER_SENDGIRD__API_KEY: there is no handler or setting USHER_SENDGIRD (did you mean 'USHER_SENDGRID'?); "
                "correct or remove it"
            ),
        ),
        (
            {"USHER_NOTICE__WEHN": "x"},
            "USHER_NOTICE__WEHN: there is no such setting (did you mean 'USHER_NOTICE__WHEN'?); correct or remove it",
        ),
        (
            {"USHER_NOTICE__WHEN": "never"},
            "USHER_NOTICE__WHEN='never': should be one of 'phone-only' or 'always'",
        ),
        ({"USHER_PLAIN__WHEN": "x"}, "USHER_PLAIN__WHEN: the handler plain has no settings; remove it"),
    ],
)
def test_a_mistake_in_a_handlers_settings_is_reported_like_any_other(environ: dict[str, str], line: str) -> None:
    """Once it is known which handlers there are."""
    settings = load(**environ)

    def check() -> None:
        settings.check_handler_options(["notice", "plain"])
        settings.for_handlers([notice, plain])

    with pytest.raises(SettingsError) as caught:
        check()

    assert caught.value.problems == (line,)


def test_what_is_set_for_a_handler_that_is_left_out_is_no_mistake() -> None:
    """`USHER_HANDLERS` may leave out a handler whose settings stay in the environment."""
    settings = load(USHER_NOTICE__WHEN="always")
    settings.check_handler_options(["notice", "plain"])

    assert settings.for_handlers([plain]) == {"plain": None}


def test_every_setting_has_a_row_with_its_meaning() -> None:
    """The README's table comes from here: a name without a meaning would be a hole in it."""
    rows = {row.name: row for row in settings_table()}

    assert rows["USHER_RETRY_DELAYS"].text == "10s,1m,10m,1h"
    assert rows["USHER_HTTP"].text == "127.0.0.1:8080"
    assert {"USHER_EVENT_LOG", "USHER_TWILIO__FROM", "USHER_AUTHGEAR__WEBHOOK_SECRET", "USHER_KAFKA__…"} <= rows.keys()
    assert all(row.note for row in rows.values())
    assert not any(name.startswith("USHER_HANDLER_OPTIONS") for name in rows)


class NestedSettings(BaseModel):
    token: SecretStr
    inner: NoticeSettings = NoticeSettings()
    more: tuple[SecretStr, ...] = ()
    built_in: SecretStr = SecretStr("in-the-code-1")


@on("user.created", settings=NestedSettings)
async def nested(event: Event, ctx: Context) -> None:
    """Tell in a nested way."""


def test_every_secret_of_the_settings_is_masked_from_then_on(tmp_path: Path) -> None:
    """Of the service, of a tenant, of Kafka, of handlers; one by one, in a list, in a group, in a file, or in the code."""
    (tmp_path / "token").write_text("file-secret-1\n")
    settings = load(
        **SASL,
        USHER_EVENT_LOG="kafka://k:9092",
        USHER_KAFKA__SASL_PLAIN_PASSWORD="kafka-secret-1",
        USHER_SENDGRID__API_KEY="SG.sendgrid-secret",
        USHER_TWILIO__AUTH_TOKEN="twilio-secret-1",
        USHER_SMTP__URL="smtp://usher:smtp%2Fsecret-1@mail.example.com",
        USHER_AUTHGEAR__WEBHOOK_SECRET="hook-secret-1,hook-secret-2",
        USHER_PROXY="http://usher:proxy-secret-1@proxy.example.org:3128",
        USHER_NESTED__TOKEN_FILE=str(tmp_path / "token"),
        USHER_NESTED__MORE="more-secret-1,more-secret-2",
        USHER_NESTED__INNER__KEY="inner-secret-1",
    )
    ours = [
        "kafka-secret-1",
        "SG.sendgrid-secret",
        "twilio-secret-1",
        "smtp/secret-1",
        "hook-secret-1",
        "hook-secret-2",
    ]
    theirs = ["file-secret-1", "more-secret-1", "more-secret-2", "inner-secret-1"]

    know_handlers([nested], settings.handler_options)  # as `usher why` does, where the settings need not be complete
    for secret in (*ours, *theirs):
        assert scrub(Ours(f"it said {secret} here")) == "it said <secret> here"
    settings.for_handlers([nested])
    for secret in (*ours, *theirs, "in-the-code-1"):
        assert scrub(Ours(f"it said {secret} here")) == "it said <secret> here"

    load()
    settings = load(USHER_NESTED__TOKEN="x")
    settings.for_handlers([nested])
    assert scrub(Ours("kafka-secret-1 file-secret-1")) == "kafka-secret-1 file-secret-1"


# Receipts


def test_receipts_are_on_and_kept_for_90_days() -> None:
    """Without any setting; the event log gets to know it."""
    settings = load()

    assert settings.receipts.on
    assert (log_config(settings).receipts, log_config(settings).keep) == (True, 90 * 86_400)


def test_receipts_are_switched_off_by_the_name_of_their_group() -> None:
    """`USHER_RECEIPTS` is a setting, and the group of others, which may stay set."""
    settings = load(USHER_RECEIPTS="off", USHER_RECEIPTS__KEEP="30d", USHER_RECEIPTS__KEY="new,old")
    settings.check_handler_options(())

    assert not settings.receipts.on
    assert not log_config(settings).receipts
    assert (settings.receipts.keep, settings.receipts.keys) == (30 * 86_400, (b"new", b"old"))
    shown = {row.name: row.text for row in settings.shown()}
    assert (shown["USHER_RECEIPTS"], shown["USHER_RECEIPTS__KEEP"], shown["USHER_RECEIPTS__KEY"]) == (
        "off",
        "30d",
        MASK,
    )


@pytest.mark.parametrize(
    ("environ", "line"),
    [
        ({"USHER_RECEIPTS": "perhaps"}, "USHER_RECEIPTS='perhaps': should be on or off"),
        ({"USHER_RECEIPTS__KEEP": "1h"}, "USHER_RECEIPTS__KEEP='1h': should be from 1d to 3650d, as in 90d"),
        (
            {"USHER_RECEIPTS__KEEP": "for ever"},
            "USHER_RECEIPTS__KEEP='for ever': should be from 1d to 3650d, as in 90d",
        ),
        (
            {"USHER_RECEIPTS__ON": "off"},
            "USHER_RECEIPTS__ON: there is no such setting (did you mean 'USHER_RECEIPTS'?); correct or remove it",
        ),
    ],
)
def test_a_mistake_about_receipts_is_reported_like_any_other(environ: dict[str, str], line: str) -> None:
    with pytest.raises(SettingsError) as caught:
        load(**environ)

    assert caught.value.problems == (line,)


def test_commands_keep_what_they_may_delete_in_the_platforms_cache_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/var/cache/of-somebody")

    assert load().cache_dir == user_cache_path("usher")
    assert load(USHER_CACHE_DIR="/tmp/elsewhere").cache_dir == Path("/tmp/elsewhere")


class _Log:
    """An event log that keeps this key."""

    def __init__(self, key: bytes | None) -> None:
        self._key = key

    async def address_key(self) -> bytes | None:
        return self._key


async def test_the_key_of_the_settings_writes_and_the_one_in_the_log_still_reads() -> None:
    """It wrote before one was set. Where none is set it writes, too."""
    kept, given = _Log(b"kept"), load(USHER_RECEIPTS__KEY="new,old")

    assert [key.secret for key in await writing_keys(given, cast("EventLog", kept))] == [b"new", b"old"]
    assert [key.secret for key in await writing_keys(load(), cast("EventLog", kept))] == [b"kept"]
    reading = await reading_keys(given, cast("Browser", kept))
    assert reading is not None
    assert [key.secret for key in reading] == [b"new", b"old", b"kept"]
    assert await reading_keys(load(), cast("Browser", _Log(None))) is None


@pytest.mark.parametrize(
    ("environ", "exposed"),
    [
        ({"USHER_EVENT_LOG": "kafka://h:9092", "USHER_GROUP": "mine"}, True),
        ({"USHER_EVENT_LOG": "kafka://h:9092", "USHER_RECEIPTS__KEY": "k"}, False),
        ({"USHER_EVENT_LOG": "kafka://h:9092", "USHER_RECEIPTS": "off"}, False),
        ({}, False),
    ],
)
def test_a_key_that_lies_in_a_topic_is_warned_of(environ: dict[str, str], exposed: bool) -> None:
    """In the file of the embedded log it is as safe as everything else there."""
    assert ("mine.checkpoints" in exposed_key(load(**environ))) is exposed
