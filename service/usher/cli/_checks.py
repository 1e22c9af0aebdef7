"""What `usher check` looks at, area by area. Each finding is a line with a status, and a problem says the way out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from usher.channels.transport import Transport
from usher.cli import _handler_view, _topics
from usher.eventlog.browse import TopicState
from usher.eventlog.errors import LogError, LogUnavailable
from usher.handler import Handler, HandlerError, Router
from usher.outcome import Outcome
from usher.parts import find_handlers, open_channels, open_templates
from usher.settings import Settings, SettingsError
from usher.settings.environment import PREFIX, leaves
from usher.settings.report import MASK
from usher.storage import browser
from usher.systems import System, open_systems


@dataclass(frozen=True, slots=True)
class Line:
    """One finding. *unreachable*: the log could not be asked, so that nothing is known."""

    area: Literal["settings", "handlers", "templates", "channels", "systems", "log"]
    status: Literal["ok", "warn", "problem"]
    what: str
    text: str
    unreachable: bool = False


async def all_of(overrides: Mapping[str, Any]) -> list[Line]:
    """All findings. With settings that can't be read there are no others."""
    try:
        settings = Settings.load(**overrides)
    except SettingsError as error:
        return [Line("settings", "problem", *_name_and_text(problem)) for problem in error.problems]
    found: Sequence[Handler] = ()
    lines: list[Line] = []
    try:
        found = find_handlers(settings)
        lines += _handlers(settings, found)
    except (HandlerError, SettingsError) as error:
        lines.append(Line("handlers", "problem", "", str(error)))
    else:
        lines += _templates(settings, found)
    lines += _channels(settings)
    return [*_settings(settings, found), *lines, *await _systems(settings), *await _log(settings)]


def _settings(settings: Settings, found: Iterable[Handler]) -> Iterator[Line]:
    told = _no_secrets(found)
    for row in settings.shown():
        if row.note != "default":
            handler, _, option = row.name.removeprefix(PREFIX).partition("__")
            hidden = option and handler.lower() in settings.handler_options and row.name not in told
            yield Line("settings", "ok", row.name, MASK if hidden else row.text)
    if "service_name" not in settings.model_fields_set:
        yield Line(
            "settings", "warn", "USHER_SERVICE_NAME", f"is not set: messages are about {settings.service_name!r}"
        )
    if settings.login_url is None:
        yield Line("settings", "warn", "USHER_LOGIN_URL", "is not set: messages can't say where to log in")


def _no_secrets(found: Iterable[Handler]) -> set[str]:
    """Of the handlers' own settings the names of those that their models do not keep secret, and of secrets' files."""
    own = [
        leaf
        for handler in found
        if handler.settings is not None
        for leaf in leaves(handler.settings, f"{PREFIX}{handler.name.upper()}__")
    ]
    return {f"{leaf.name}_FILE" if leaf.secret else leaf.name for leaf in own}


def _handlers(settings: Settings, found: Sequence[Handler]) -> Iterator[Line]:
    if not found:
        yield Line("handlers", "problem", "", "there are none: nothing would be sent; see USHER_HANDLERS_DIR")
    for row in _handler_view.rows(settings, Router(found, settings.triggered_by), found):
        name, *rest = (str(cell) for cell in _handler_view.cells(row))
        types, actors, retries, expiry, origin, _ = rest
        yield Line("handlers", "ok", name, f"{types} by {actors}; retries: {retries}; expires: {expiry}; {origin}")


def _templates(settings: Settings, found: Sequence[Handler]) -> Iterator[Line]:
    templates = open_templates(settings, found)
    problems = templates.check()
    for problem in problems:
        yield Line("templates", "problem", "", problem)
    if not problems:
        yield Line("templates", "ok", "", ", ".join(templates.names) or "there are none")


def _channels(settings: Settings) -> Iterator[Line]:
    email, sms = open_channels(settings, Transport())
    for what, provider, problems in (("email", email.name, email.check()), ("sms", sms.name, sms.check())):
        for problem in problems:
            yield Line("channels", "problem", f"{what}: {provider}", problem)
        if provider == "outbox" and not problems:
            text = f"messages are written to {settings.outbox_dir}, nobody gets them; set USHER_{what.upper()}"
            yield Line("channels", "warn", f"{what}: outbox", text)
        elif not problems:
            yield Line("channels", "ok", f"{what}: {provider}", "configured; credentials are not tried")


async def _systems(settings: Settings) -> list[Line]:
    """The identity systems: how their events come, and whether their APIs take our credentials."""
    async with Transport() as transport:
        try:
            systems = open_systems(settings, lambda: transport.session)
        except SettingsError as error:
            return [Line("systems", "problem", *_name_and_text(problem)) for problem in error.problems]
        lines = [line for system in systems for line in _ways_in(system)]
        if not lines:
            text = "POST /ingest/<system> answers 404: set USHER_<SYSTEM>__WEBHOOK_SECRET (Auth0: …__WEBHOOK_TOKEN) to take webhooks"
            lines.append(Line("systems", "warn", "webhook", text))
        for system in systems:
            lines += [Line("systems", "warn", system.title, warning) for warning in system.warnings]
            if system.api is not None:
                try:
                    lines.append(Line("systems", "ok", f"{system.title}: API", await system.api.check()))
                except Outcome as trouble:
                    lines.append(Line("systems", "problem", f"{system.title}: API", trouble.reason))
    return lines


def _ways_in(system: System) -> Iterator[Line]:
    if system.receives:
        text = f"POST {system.path} is open to those who know its secret"
        yield Line("systems", "ok", f"{system.title}: webhook", text)
    if system.feeds:
        text = f"one worker of the group reads {', '.join(feed.name for feed in system.feeds)}"
        yield Line("systems", "ok", f"{system.title}: polling", text)


async def _log(settings: Settings) -> list[Line]:
    try:
        async with browser(settings) as log:
            states = await log.topics()
    except LogUnavailable as error:
        return [Line("log", "problem", settings.event_log, f"can't be reached: {error}", unreachable=True)]
    except LogError as error:
        return [Line("log", "problem", settings.event_log, str(error))]
    return [Line("log", "ok", settings.event_log, "reachable"), *(_topic(state, states) for state in states)]


def _topic(state: TopicState, states: Sequence[TopicState]) -> Line:
    wrong = _topics.wrong(state, states)
    if not wrong:
        rights = "" if state.writable else "; whether it may be written can't be told without writing"
        kind = ", compacted" if state.compacted else ""
        return Line("log", "ok", state.topic, f"{state.kind}: {state.partitions} partitions{kind}{rights}")
    hint = f"; run: {state.remedy}" if state.remedy else ""
    if wrong == _topics.MISSING and state.kind != "source":
        return Line("log", "warn", state.topic, f"{state.kind}: missing; `usher run` creates it where it may{hint}")
    return Line("log", "problem", state.topic, f"{state.kind}: {wrong}{hint}")


def _name_and_text(problem: str) -> tuple[str, str]:
    """The setting's name, which a `SettingsError`'s sentence begins with, apart from the rest."""
    name, colon, text = problem.partition(": ")
    return (name, text) if colon else ("", problem)
