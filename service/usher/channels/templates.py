"""Templates: how the files that `template_files` finds become the text of a message.

Every template sees ``event``, ``user`` (the event's), ``service_name``, ``login_url``, ``reset_url``, ``email`` and ``phone``
(the user's, or the address written to), ``language``, and what the handler gives as keywords. A variable that is missing
or None is an error where it is printed, not a gap in a message; ``{% if email %}`` asks whether there is one.

HTML is escaped, text is not. Templates run in a sandbox, come from files only, never from an event, and one that reaches
for a password or secret is not loaded at all.
"""

from __future__ import annotations

import traceback
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn, cast

from jinja2 import ChainableUndefined, TemplateError, TemplateNotFound, TemplateSyntaxError, UndefinedError

from usher.channels import gsm7
from usher.channels.jinja import BREAK, CarefulLoader, careful_environment
from usher.channels.mime import one_line
from usher.channels.template_files import KINDS, TemplateFiles, TemplateKey, template_folders
from usher.event import Event, EventContext, User
from usher.outcome import Reject
from usher.redact import scrub

__all__ = ["Brand", "RenderedMail", "RenderedSms", "Templates", "template_folders"]

_LAYOUT = Path(__file__).with_name("layout")
_LONGEST_SUBJECT = 400
"""Characters of a subject that are kept: to fold a header takes longer than its length, and users write names and metadata."""


@dataclass(frozen=True, slots=True)
class Brand:
    """What messages say about the service that the account is for; without a URL they say it in words."""

    service_name: str = "our service"
    login_url: str | None = None
    reset_url: str | None = None


@dataclass(frozen=True, slots=True)
class RenderedMail:
    """A mail without its addresses. *html* is None where the language has no HTML file."""

    subject: str
    text: str
    html: str | None
    language: str


@dataclass(frozen=True, slots=True)
class RenderedSms:
    """An SMS without its number; *length* says how many segments it takes."""

    text: str
    length: gsm7.Length
    language: str


class Templates:
    """All templates of one Usher.

    Args:
        folders: of the handlers, as `template_folders` finds them.
        brand: what every template may say about the service.
        overrides: the user's own folder, searched first.
    """

    def __init__(self, folders: Sequence[Path], *, brand: Brand, overrides: Path | None = None) -> None:
        self._brand = brand
        self._files = TemplateFiles(folders, overrides)
        self._loader = CarefulLoader([*self._files.searched, _LAYOUT])
        self._environment = careful_environment(self._loader)

    @property
    def names(self) -> list[str]:
        """The names of all templates, sorted."""
        return self._files.names

    def kinds(self, name: str) -> list[str]:
        """What *name* can be sent as: ``mail``, ``SMS``, both, or nothing where there is no such template."""
        return sorted({KINDS[key.suffix] for key in self._files.paths if key.name == name and key.suffix != ".html"})

    def mail(
        self,
        name: str,
        event: Event,
        *,
        email: str | None = None,
        phone: str | None = None,
        variables: Mapping[str, Any] | None = None,
    ) -> RenderedMail:
        """The mail *name* about *event*. *email* and *phone* default to the user's.

        Raises:
            Reject: the template is missing or broken, or a variable is; says which file and line.
        """
        key, path = self._files.choose(name, ".txt", event.languages)
        values = self._values(event, key.language, email, phone, variables)
        subject, text = _split_subject(path, self._render(path, values))
        html_path = self._files.paths.get(key._replace(suffix=".html"))
        html = None if html_path is None else self._render(html_path, values).replace(BREAK, "\n")
        return RenderedMail(subject, text, html, key.language)

    def sms(
        self,
        name: str,
        event: Event,
        *,
        email: str | None = None,
        phone: str | None = None,
        variables: Mapping[str, Any] | None = None,
    ) -> RenderedSms:
        """The SMS *name* about *event*, kept to the GSM-7 alphabet where only typography stands in the way.

        Raises:
            Reject: as `mail`.
        """
        key, path = self._files.choose(name, ".sms", event.languages)
        values = self._values(event, key.language, email, phone, variables)
        text = gsm7.plain(self._render(path, values).replace(BREAK, "\n").strip())
        if not text:
            raise Reject(f"template {path} renders to nothing")
        return RenderedSms(text, gsm7.length(text), key.language)

    def check(self, names: Iterable[str] | None = None) -> list[str]:
        """What is wrong with the templates *names* (default: all), each rendered in each language with a made-up event."""
        wanted = self.names if names is None else list(names)
        problems = [self._files.missing(name) for name in wanted if name not in self.names]
        problems += self._files.problems
        for key in sorted(self._files.paths):
            if key.name in wanted:
                problems += [*self._files.incomplete(key), *self._try(key)]
        return problems

    def _values(
        self, event: Event, language: str, email: str | None, phone: str | None, variables: Mapping[str, Any] | None
    ) -> dict[str, Any]:
        return {
            "event": event,
            "user": event.user,
            "service_name": self._brand.service_name,
            "login_url": self._brand.login_url,
            "reset_url": self._brand.reset_url,
            "email": email or event.user.email,
            "phone": phone or event.user.phone,
            "language": language,
            **(variables or {}),
        }

    def _render(self, path: str, values: Mapping[str, Any]) -> str:
        try:
            return self._environment.get_template(path).render(values)
        except _OnlyGiven:
            raise
        except Exception as error:  # noqa: BLE001  a template is its author's code: whatever it raises, no retry mends it
            _refuse(path, error)

    def _try(self, key: TemplateKey) -> list[str]:
        path, values = self._files.paths[key], self._values(_sample(), key.language, None, None, None)
        try:
            text = self._render(path, {**self._given(path, values), **values})
            if key.suffix == ".txt":
                _split_subject(path, text)
        except _OnlyGiven:
            pass
        except Reject as error:
            return [error.reason]
        return []

    def _given(self, path: str, known: Mapping[str, Any]) -> dict[str, Any]:
        """Stand-ins for the variables that only the handler can give."""
        try:
            wanted = self._loader.variables(self._environment, path)
        except (TemplateError, ValueError, OSError):
            return {}  # rendering says what is wrong
        return {name: _stand_in(name) for name in wanted - known.keys()}


class _OnlyGiven(UndefinedError):
    """Something was asked of a stand-in that only the handler's real value could answer: no fault of the template."""


def _stand_in(name: str) -> ChainableUndefined:
    return ChainableUndefined(name=name, exc=_OnlyGiven)


def _split_subject(path: str, rendered: str) -> tuple[str, str]:
    first, _, rest = rendered.lstrip().partition("\n")
    label, colon, subject = first.partition(":")
    subject, text = one_line(subject.replace(BREAK, " ")), rest.replace(BREAK, "\n").strip()
    if label.strip().lower() != "subject" or not colon or not subject:
        raise Reject(f"template {path}: its first line should be the subject, as in 'Subject: Your account'")
    if not text:
        raise Reject(f"template {path} has a subject and no text")
    return subject[:_LONGEST_SUBJECT], text + "\n"


def _refuse(path: str, error: Exception) -> NoReturn:
    if isinstance(error, TemplateSyntaxError):
        place, what = f"{error.name or path} line {error.lineno}", error.message or "it can't be parsed"
    elif isinstance(error, TemplateNotFound):
        place, what = path, f"it includes {error.name!r}, which does not exist"
    else:
        frames = [f for f in traceback.extract_tb(error.__traceback__) if Path(f.filename).suffix in KINDS]
        place = f"{path} line {frames[-1].lineno}" if frames else path
        what = str(error) if isinstance(error, TemplateError) else f"{type(error).__name__}: {error}"
    raise Reject(f"template {place}: {scrub(what)}") from None


def _sample() -> Event:
    """An event in which everything is there, to try templates on."""
    user = User(
        id="a1b2c3", username="kim.b", email="kim.berg@example.com", phone="+12025550123", name="Kim Berg", locale="en"
    )
    context = EventContext(timestamp=1750000000.0, user_id="a1b2c3", triggered_by="admin_api", language="en")
    return Event(
        id="0001",
        type="user.created",
        raw_type="user.created",
        source="authgear",
        user=user,
        context=context,
        # What the payload holds differs by source and type: whatever a template asks of it here, it gets.
        payload=cast("dict[str, Any]", _stand_in("payload")),
    )
