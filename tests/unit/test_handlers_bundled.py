"""The bundled handlers say what the issue of an account or a password needs, once, to the right address."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from importlib.metadata import entry_points
from pathlib import Path

import pytest

import usher_handlers
from usher import Context, Event, Handler, Outcome, Reject, Retry, Skip, User, on
from usher.channels.gsm7 import length
from usher.channels.templates import Brand, Templates, template_folders
from usher.plugins import GROUP, find, select
from usher.testing import FakeIdentity, an_event, run
from usher_handlers.clear_reset_flag import clear_reset_flag
from usher_handlers.force_password_change import force_password_change
from usher_handlers.reset_instructions import reset_instructions
from usher_handlers.sms_notice import sms_notice
from usher_handlers.welcome_email import welcome_email

ALL = [welcome_email, sms_notice, reset_instructions]
PHONE = "+12025550123"
TEMPLATES = Path(usher_handlers.__file__).parent / "templates"
LONG = Brand(
    "Twenty letters long!", "https://login.example.com/a/path/of/40xy", "https://login.example.com/a/path/of/40xy"
)
RESETS = ["password.reset", "password.expired", "password.reset_requested"]


async def test_a_user_made_by_an_admin_is_welcomed() -> None:
    """The mail names the service, where to go, what to choose there, and the user id."""
    result = await run(welcome_email, an_event(email="kim.berg@example.com"))

    (mail,) = result.emails
    assert (result.outcome, mail.to, mail.subject) == ("done", "kim.berg@example.com", "Your account on Example")
    for part in (mail.text, mail.html or ""):
        assert "https://login.example.com" in part
        assert "Forgot Password" in part
        assert "kim.berg@example.com" in part


@pytest.mark.parametrize("language", ["en", "de"])
@pytest.mark.parametrize(
    ("handler", "type_"), [(welcome_email, "user.created"), (reset_instructions, "password.reset")]
)
async def test_a_mail_names_the_account_as_the_user_logs_in(handler: Handler, type_: str, language: str) -> None:
    """By the user name where there is one, else by the address."""
    named = await run(handler, an_event(type_, username="kim.b", email="kim.berg@example.com", language=language))
    unnamed = await run(handler, an_event(type_, email="kim.berg@example.com", language=language))

    for result, account in ((named, "kim.b"), (unnamed, "kim.berg@example.com")):
        (mail,) = result.emails
        assert f" {account}.\n" in mail.text
        assert f" <strong>{account}</strong>." in (mail.html or "")


async def test_a_self_signup_is_not_welcomed() -> None:
    """A user who signs up knows it already."""
    result = await run(welcome_email, an_event(triggered_by="user"))

    assert (result.outcome, result.emails) == ("filtered", [])
    assert "'user', not 'admin_api'" in result.reason


@pytest.mark.parametrize(("expires_after", "left"), [("1h", 3000.0), (None, None)])
async def test_an_sms_says_until_when_it_is_of_use(expires_after: str | None, left: float | None) -> None:
    """Until the handler's time for the event is over: the provider is to drop it then."""

    @on("user.created", expires_after=expires_after)
    async def notice(event: Event, ctx: Context) -> None:
        await ctx.sms("sms_notice", to=event.user)

    now = 1_750_000_600.0
    event = an_event(email=None, phone=PHONE, timestamp=now - 600)

    (text,) = (await run(notice, event, now=now, templates=TEMPLATES)).texts

    assert text.expires_at == (None if left is None else now + left)


async def test_a_user_without_email_gets_the_sms() -> None:
    """One SMS of one segment, with the way to a password."""
    event = an_event(email=None, phone=PHONE)

    result = await run(sms_notice, event)

    (text,) = result.texts
    assert (result.outcome, text.to) == ("done", PHONE)
    assert "Forgot Password" in text.body
    assert "https://login.example.com" in text.body
    assert (await run(welcome_email, event)).reason == "no email address"


async def test_a_user_with_email_gets_no_sms() -> None:
    """The mail is enough, unless the operator wants both."""
    event = an_event(phone=PHONE)

    assert (await run(sms_notice, event)).outcome == "skipped"
    assert (await run(sms_notice, event, settings={"when": "always"})).texts[0].to == PHONE


@pytest.mark.parametrize("type_", RESETS[:2])
async def test_a_reset_is_notified_by_mail_or_else_by_sms(type_: str) -> None:
    """One message a delivery: mail where there is an address, SMS where there is only a number, nothing where there is neither."""
    both = await run(reset_instructions, an_event(type_, phone=PHONE))
    number = await run(reset_instructions, an_event(type_, email=None, phone=PHONE))
    neither = await run(reset_instructions, an_event(type_, email=None))

    assert (len(both.emails), len(both.texts)) == (1, 0)
    assert (len(number.emails), len(number.texts)) == (0, 1)
    assert (neither.outcome, neither.reason) == ("skipped", "no email address")


async def test_a_reset_says_what_the_administrator_did() -> None:
    """Changed and expired are worded differently, in mail and SMS."""
    subjects = [(await run(reset_instructions, an_event(type_))).emails[0].subject for type_ in RESETS[:2]]
    texts = [
        (await run(reset_instructions, an_event(type_, email=None, phone=PHONE))).texts[0].body for type_ in RESETS[:2]
    ]

    assert subjects == ["Your password for Example was changed", "Your password for Example has expired"]
    assert ["changed your password" in texts[0], "made your password expire" in texts[1]] == [True, True]


async def test_a_requested_reset_is_silent_unless_asked_for() -> None:
    """The identity system has written already; the setting says it all the same."""
    event = an_event("password.reset_requested")

    assert (await run(reset_instructions, event)).reason == "the identity system has sent its own message"
    result = await run(reset_instructions, event, settings={"also_after_request": True})
    assert result.emails[0].subject == "Set a new password for Example"


@pytest.mark.parametrize(
    ("language", "subject"), [("de-CH", "Ihr Konto bei Example"), ("fr", "Your account on Example")]
)
async def test_messages_are_in_the_users_language(language: str, subject: str) -> None:
    """German for de-CH; English for a language that nobody has written."""
    result = await run(welcome_email, an_event(language=language))

    assert result.emails[0].subject == subject


@pytest.mark.parametrize("language", ["en", "de"])
@pytest.mark.parametrize(
    ("handler", "type_"), [(sms_notice, "user.created"), *((reset_instructions, t) for t in RESETS)]
)
async def test_an_sms_is_one_gsm7_segment(handler: Handler, type_: str, language: str) -> None:
    """With a service name of 20 letters and a login address of 40."""
    event = an_event(type_, email=None, phone=PHONE, language=language)
    assert (len(LONG.service_name), len(LONG.login_url or "")) == (20, 40)

    result = await run(
        handler, event, brand=LONG, settings={"also_after_request": True} if handler is reset_instructions else None
    )

    assert length(result.texts[0].body)[::2] == ("GSM-7", 1)


@pytest.mark.parametrize("brand", [Brand(), LONG, Brand("Ex", "https://a.example", "https://b.example")])
def test_all_bundled_templates_are_sound(brand: Brand) -> None:
    """Every file renders, also without any address of the service."""
    templates = Templates(template_folders(ALL), brand=brand)

    assert templates.check() == []
    assert templates.names == ["reset_instructions", "sms_notice", "welcome_email"]


@pytest.mark.parametrize("type_", RESETS)
async def test_a_reset_page_of_its_own_is_linked(type_: str) -> None:
    """Where the service has one, nobody is sent around by Forgot Password."""
    result = await run(
        reset_instructions,
        an_event(type_),
        brand=Brand("Ex", "https://login.example", "https://reset.example"),
        settings={"also_after_request": True},
    )

    mail = result.emails[0]
    assert "https://reset.example" in mail.text
    assert 'href="https://reset.example"' in (mail.html or "")
    assert "login.example" not in mail.text


async def test_mail_loads_nothing_and_links_only_to_the_service() -> None:
    """No remote image, style or script; a mail program shows it whole."""
    html = (await run(welcome_email, an_event())).emails[0].html or ""

    assert html.count("http") == html.count('href="https://login.example.com"') == 1
    assert not any(tag in html for tag in ("<img", "<link", "<script", "url("))


ENDS = datetime(2026, 5, 1, 12, 30, tzinfo=UTC)


@pytest.mark.parametrize(
    ("handler", "type_"), [(welcome_email, "user.created"), (reset_instructions, "password.reset")]
)
@pytest.mark.parametrize(("language", "said"), [("en", "01 May 2026, 12:30 UTC"), ("de", "01.05.2026, 12:30 Uhr UTC")])
async def test_a_mail_may_have_a_link_of_the_identity_system(
    handler: Handler, type_: str, language: str, said: str
) -> None:
    """The link is in both parts of the mail, with its end, and nobody is sent to Forgot Password first."""
    system = FakeIdentity(expires_at=ENDS)

    result = await run(handler, an_event(type_, language=language), settings={"sending": "link"}, system=system)

    (mail,) = result.emails
    assert system.calls == ["password_link"]
    for part in (mail.text, mail.html or ""):
        assert system.url in part
        assert said in part
        assert "login.example.com" not in part


@pytest.mark.parametrize("language", ["en", "de"])
async def test_an_sms_may_have_the_link(language: str) -> None:
    """Where there is only a number."""
    event = an_event("password.reset", email=None, phone=PHONE, language=language)

    result = await run(reset_instructions, event, settings={"sending": "link"}, system=FakeIdentity())

    assert FakeIdentity().url in result.texts[0].body


async def test_a_link_is_not_made_for_nobody() -> None:
    """A link that goes nowhere would work all the same."""
    system = FakeIdentity()

    result = await run(welcome_email, an_event(email=None), settings={"sending": "link"}, system=system)

    assert result.outcome == "skipped"
    assert "password_link" not in system.calls


@pytest.mark.parametrize(
    ("handler", "type_"), [(welcome_email, "user.created"), (reset_instructions, "password.expired")]
)
async def test_the_identity_system_may_send_its_own_message(handler: Handler, type_: str) -> None:
    """Then nothing of ours goes out."""
    system = FakeIdentity()

    result = await run(handler, an_event(type_), settings={"sending": "system"}, system=system)

    assert (result.outcome, result.emails, system.calls) == ("done", [], ["send_password_reset"])


async def test_a_change_of_password_is_forced_on_whom_an_administrator_made() -> None:
    """At the first login; after a reset only where the setting says so; never on who signed up."""
    system = FakeIdentity()

    async def outcome(type_: str, **more: bool) -> str:
        return (await run(force_password_change, an_event(type_), system=system, settings=more)).outcome

    assert await outcome("user.created") == "done"
    assert await outcome("password.reset") == "skipped"
    assert await outcome("password.reset", after_reset=True) == "done"
    assert system.calls == ["require_password_change"] * 2
    assert (await run(force_password_change, an_event(triggered_by="user"), system=system)).outcome == "filtered"


async def test_the_flag_is_cleared_by_the_users_own_change() -> None:
    """Whatever the service's filter says: it is the user who changes the password."""
    system = FakeIdentity()
    event = an_event("password.changed", triggered_by="user")

    assert (await run(clear_reset_flag, event, system=system)).outcome == "done"
    assert system.calls == ["clear_password_change"]
    system.trouble = Skip("it was required again")
    assert (await run(clear_reset_flag, event, system=system)).outcome == "skipped"


async def test_without_the_api_they_say_what_to_set() -> None:
    """The dead letter names the settings."""
    result = await run(force_password_change, an_event())

    assert result.outcome == "rejected"
    assert "USHER_AUTHGEAR__" in result.reason


def test_what_changes_the_identity_system_is_off_unless_named() -> None:
    """Two of the bundled ones."""
    found = find(announced=[point for point in entry_points(group=GROUP) if point.value.startswith("usher_handlers.")])

    assert sorted({handler.name for handler in found} - {handler.name for handler in select(found, ())}) == [
        "clear_reset_flag",
        "force_password_change",
    ]


@pytest.mark.parametrize(
    ("handler", "type_"),
    [(welcome_email, "user.created"), (sms_notice, "user.created"), *((reset_instructions, type_) for type_ in RESETS)],
)
async def test_a_disabled_account_gets_no_message(handler: Handler, type_: str) -> None:
    """Its user can't log in, nor set a password: not even the identity system's own message is sent."""
    system = FakeIdentity()
    event = an_event(type_, email=None if handler is sms_notice else "kim.berg@example.com", phone=PHONE, disabled=True)
    settings = {"also_after_request": True} if handler is reset_instructions else {}

    result = await run(handler, event, settings=settings, system=system)

    assert (result.outcome, result.emails, result.texts, system.calls) == ("skipped", [], [], [])
    assert result.reason.startswith("disabled")


async def test_a_disabled_account_has_to_choose_a_password_all_the_same() -> None:
    """The first password that an administrator chose is to be changed, whenever the account is enabled."""
    system = FakeIdentity()

    assert (await run(force_password_change, an_event(disabled=True), system=system)).outcome == "done"
    assert system.calls == ["require_password_change"]


async def test_a_handler_of_ones_own_decides_about_disabled_accounts(tmp_path: Path) -> None:
    """One for user.disabled writes to exactly these."""

    @on("user.disabled")
    async def account_disabled(event: Event, ctx: Context) -> None:
        """Write to a user whose account was disabled."""
        await ctx.email("account_disabled", to=event.user)

    (tmp_path / "account_disabled").mkdir()
    (tmp_path / "account_disabled" / "en.txt").write_text("Subject: Your account\n\nIt is disabled.\n")
    result = await run(account_disabled, an_event("user.disabled", disabled=True), templates=tmp_path)

    assert (result.outcome, len(result.emails)) == ("done", 1)


@dataclass
class _Knows(FakeIdentity):
    """An identity system that knows the user; the event that it is asked for names only the id."""

    known: User = field(default_factory=User)

    async def user(self, event: Event) -> User:
        await super().user(event)
        return self.known


@pytest.mark.parametrize(
    ("event", "known", "outcome", "to"),
    [
        (User(id="u"), User(id="u", email="kim@example.org", disabled=True), "skipped", []),
        (User(id="u"), User(id="u", email="kim@example.org", disabled=False), "done", ["kim@example.org"]),
        (User(id="u", email="a@example.org"), User(id="u", email="b@example.org", disabled=True), "skipped", []),
        (User(id="u", email="a@example.org"), User(id="u", email="b@example.org"), "done", ["a@example.org"]),
        # The event is older than what the system says now.
        (
            User(id="u", disabled=True),
            User(id="u", email="kim@example.org", disabled=False),
            "done",
            ["kim@example.org"],
        ),
    ],
)
async def test_what_the_event_does_not_say_is_looked_up(event: User, known: User, outcome: str, to: list[str]) -> None:
    """Whether the account is disabled; the addresses only where it has none."""
    given = replace(an_event("password.reset"), user=event)

    result = await run(reset_instructions, given, system=_Knows(known=known))

    assert (result.outcome, [mail.to for mail in result.emails]) == (outcome, to)


@pytest.mark.parametrize("trouble", [Retry("it is down"), Skip("no such user"), Reject("there is no look-up")])
async def test_a_message_with_an_address_does_not_wait_for_a_look_up(trouble: Outcome) -> None:
    """Whether the account is disabled is not worth a mail that comes late, or never."""
    event = replace(an_event(), user=User(id="u", email="kim@example.org"))

    result = await run(welcome_email, event, system=FakeIdentity(trouble=trouble))

    assert (result.outcome, len(result.emails)) == ("done", 1)


class _Hangs(FakeIdentity):
    """An identity system that does not answer."""

    async def user(self, event: Event) -> User:
        await super().user(event)
        answer: asyncio.Future[User] = asyncio.get_running_loop().create_future()
        return await answer


async def test_a_message_with_an_address_does_not_wait_for_a_system_that_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    """The handler's own time is for the message: else a hanging system would hold up all mails."""
    monkeypatch.setattr("usher.engine.attempt._PATIENCE", 0.01)
    event = replace(an_event(), user=User(id="u", email="kim@example.org"))

    result = await run(welcome_email, event, system=_Hangs())

    assert (result.outcome, len(result.emails)) == ("done", 1)


async def test_a_log_in_with_an_address_is_not_looked_up() -> None:
    """There are many of them, and each would be a request."""
    system, seen = FakeIdentity(), []

    @on("access.LOGIN", triggered_by="user")
    async def new_device(event: Event, ctx: Context) -> None:
        """Note whose log-in it is."""
        seen.append(event.user.id)

    event = replace(an_event("access.LOGIN", triggered_by="user"), user=User(id="u", email="kim@example.org"))

    assert (await run(new_device, event, system=system)).outcome == "done"
    assert (seen, system.calls) == (["u"], [])


async def test_a_deleted_user_is_not_looked_up() -> None:
    """There is nobody to be found, and a handler may have other things to do than to write."""
    system, seen = FakeIdentity(trouble=Skip("no such user")), []

    @on("user.deleted")
    async def clean_up(event: Event, ctx: Context) -> None:
        """Note who is gone."""
        seen.append(event.user.id)

    gone = replace(an_event("user.deleted", email=None), user=User(id="u"))

    assert (await run(clean_up, gone, system=system)).outcome == "done"
    assert (seen, system.calls) == (["u"], [])
