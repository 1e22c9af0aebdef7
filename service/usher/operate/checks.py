"""Check whether a worker with these settings could do its work, area by area. A problem comes with its solution."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NoReturn

from usher.channels import outbox
from usher.channels.transport import Transport
from usher.engine.index_file import index_folder, index_trouble
from usher.event_types import CANONICAL_TYPES, event_types
from usher.eventlog.errors import LogError, LogMissing, LogUnavailable
from usher.handler import Handler, HandlerError
from usher.operate.handlers import running_handlers
from usher.operate.topics import MISSING, TopicCheck, check_topics
from usher.outcome import Outcome
from usher.parts import find_handlers, open_templates
from usher.proxies import is_loopback_url
from usher.settings import Settings, SettingsError
from usher.settings.environment import PREFIX, leaves
from usher.settings.report import MASK
from usher.storage import exposed_key
from usher.systems.open import open_systems
from usher.systems.system import System

_LEAST_SECRET = 16


@dataclass(frozen=True, slots=True)
class CheckResult:
    """The result of one check. *kind* of a problem: a worker would be *refused* the start; the event log is *unreachable*; or *other*."""

    area: Literal["settings", "handlers", "templates", "channels", "systems", "event log"]
    status: Literal["ok", "warn", "problem"]
    what: str
    text: str
    kind: Literal["refused", "unreachable", "other"] = "other"


async def check_all(overrides: Mapping[str, Any]) -> list[CheckResult]:
    """Make all checks and return their results. If the settings can't be read, those are the only results."""
    try:
        settings = Settings.load(**overrides)
    except SettingsError as error:
        return _refused(error)
    found: Sequence[Handler] = ()
    results: list[CheckResult] = []
    try:
        found = find_handlers(settings)
        results += [*_handlers(settings, found), *_unsent(settings, found)]
    except SettingsError as error:
        results += _refused(error)
    except HandlerError as error:
        results.append(CheckResult("handlers", "problem", "", str(error), "refused"))
    else:
        results += _templates(settings, found)
    results += _channels(settings)
    results += _ways_out(settings)
    return [
        *_settings(settings, found),
        *results,
        *await _systems(settings),
        *await _event_log(settings),
        _temporary_folder(),
    ]


def _settings(settings: Settings, found: Iterable[Handler]) -> Iterator[CheckResult]:
    open_settings = _no_secrets(found)
    for row in settings.shown():
        if row.note != "default":
            handler, _, option = row.name.removeprefix(PREFIX).partition("__")
            hidden = option and handler.lower() in settings.handler_options and row.name not in open_settings
            yield CheckResult("settings", "ok", row.name, MASK if hidden else row.text)
    if "service_name" not in settings.model_fields_set:
        text = f"is not set: messages call the service {settings.service_name!r}"
        yield CheckResult("settings", "warn", "USHER_SERVICE_NAME", text)
    if settings.login_url is None:
        yield CheckResult("settings", "warn", "USHER_LOGIN_URL", "is not set: messages can't say where to log in")
    if exposed := exposed_key(settings):
        yield CheckResult("settings", "warn", "USHER_RECEIPTS__KEY", exposed)
    for name in settings.short_secrets(_LEAST_SECRET):
        text = f"is shorter than {_LEAST_SECRET} characters: it can be guessed; make a longer one"
        yield CheckResult("settings", "warn", name, text)


def _no_secrets(found: Iterable[Handler]) -> set[str]:
    """Return the names of the handlers' own settings that hold no secret, and of those that name a secret's file."""
    own = [
        leaf
        for handler in found
        if handler.settings is not None
        for leaf in leaves(handler.settings, f"{PREFIX}{handler.name.upper()}__")
    ]
    return {f"{leaf.name}_FILE" if leaf.secret else leaf.name for leaf in own}


def _handlers(settings: Settings, found: Sequence[Handler]) -> Iterator[CheckResult]:
    if not found:
        yield CheckResult("handlers", "problem", "", "there are none, so nothing would be sent; see USHER_HANDLERS_DIR")
    for handler in running_handlers(settings, found):
        types, actors = ", ".join(handler.types), ", ".join(handler.triggered_by)
        text = f"{types} by {actors}; retries: {handler.retries}; expires: {handler.expires}; {handler.origin}"
        yield CheckResult("handlers", "ok", handler.handler, text)


def _unsent(settings: Settings, found: Sequence[Handler]) -> Iterator[CheckResult]:
    """Warn of handlers for what no system sends that is set up. Without any system all events are a bridge's, and may be of any type."""
    ours = {system.source.name for system in open_systems(settings, _no_session)}
    senders = event_types()
    for handler in sorted(found, key=lambda handler: handler.name):
        lost = {name for name in handler.types if ours.isdisjoint(senders[name])}
        # A handler for a canonical type on all systems, as most bundled ones are, may be for one that a system lacks.
        shown = lost if lost == handler.types else lost - CANONICAL_TYPES.keys()
        for name in sorted(shown if ours else ()):
            text = f"no system that is set up sends {name} ({', '.join(senders[name])} would); `usher handlers --types` lists the types"
            yield CheckResult("handlers", "warn", handler.name, text)


def _no_session() -> NoReturn:
    raise RuntimeError("only the names of the systems are needed")


def _templates(settings: Settings, found: Sequence[Handler]) -> Iterator[CheckResult]:
    templates = open_templates(settings, found)
    problems = templates.check()
    for problem in problems:
        yield CheckResult("templates", "problem", "", problem)
    if not problems:
        yield CheckResult("templates", "ok", "", ", ".join(templates.names) or "there are none")


def _channels(settings: Settings) -> Iterator[CheckResult]:
    for what, provider in (("email", settings.email), ("sms", settings.sms)):
        if provider != "outbox":
            yield CheckResult("channels", "ok", f"{what}: {provider}", "configured; the credentials were not tried")
        elif problem := outbox.prepare(settings.outbox_dir):
            yield CheckResult("channels", "problem", f"{what}: outbox", problem)
        else:
            text = f"messages are written to {settings.outbox_dir} and not sent; set USHER_{what.upper()} to send them"
            yield CheckResult("channels", "warn", f"{what}: outbox", text)


def _ways_out(settings: Settings) -> Iterator[CheckResult]:
    """See by which way each HTTP API is called, and whether credentials are safe on it."""
    called: list[tuple[Literal["channels", "systems"], str, str]] = []
    if settings.email == "sendgrid":
        called.append(("channels", "email: sendgrid", settings.sendgrid.base_url))
    if settings.sms == "twilio":
        called.append(("channels", "sms: twilio", settings.twilio.base_url))
    for system, tenants in settings.tenants.items():
        for name, tenant in tenants.items():
            if tenant.api_url is not None:
                called.append(("systems", f"{system}/{name}: API" if name else f"{system}: API", tenant.api_url))
    for area, what, url in called:
        if proxy := settings.proxy.way_to(url):
            yield CheckResult(area, "ok", what, f"{url} is called by the proxy {proxy}")
        elif settings.proxy.by_scheme:
            yield CheckResult(area, "ok", what, f"{url} is called directly, past the proxy")
        if url.startswith("http://") and not is_loopback_url(url):
            text = f"{url} is no https: its credentials can be read on the way; use https://"
            yield CheckResult(area, "warn", what, text)


async def _systems(settings: Settings) -> list[CheckResult]:
    """Check the identity systems: how their events come in, and whether their APIs accept our credentials."""
    async with Transport(proxies=settings.proxy) as transport:
        systems = open_systems(settings, lambda: transport.session)
        results = [result for system in systems for result in _ways_in(system)]
        if not results:
            text = "POST /ingest/<system> answers 404: set USHER_<SYSTEM>__WEBHOOK_SECRET (Auth0: …__WEBHOOK_TOKEN) to take webhooks"
            results.append(CheckResult("systems", "warn", "webhook", text))
        for system in systems:
            results += [CheckResult("systems", "warn", system.title, warning) for warning in system.warnings]
            if system.api is not None:
                try:
                    results.append(CheckResult("systems", "ok", f"{system.title}: API", await system.api.check()))
                except Outcome as trouble:
                    results.append(CheckResult("systems", "problem", f"{system.title}: API", trouble.reason))
    return results


def _ways_in(system: System) -> Iterator[CheckResult]:
    if system.receives:
        text = f"POST {system.path} is open, for calls with its secret"
        yield CheckResult("systems", "ok", f"{system.title}: webhook", text)
    if system.feeds:
        text = f"one worker of the group reads {', '.join(feed.name for feed in system.feeds)}"
        yield CheckResult("systems", "ok", f"{system.title}: polling", text)


def _temporary_folder() -> CheckResult:
    if trouble := index_trouble():
        text = f"{trouble}; the index of parked deliveries lies there: free space, or let TMPDIR name another folder on a disk"
        return CheckResult("event log", "problem", "temporary folder", text)
    return CheckResult(
        "event log", "ok", "temporary folder", f"{index_folder()}: the index of parked deliveries lies there"
    )


async def _event_log(settings: Settings) -> list[CheckResult]:
    address = str(settings.event_log)
    try:
        topics = await check_topics(settings)
    except LogMissing as missing:
        return [CheckResult("event log", "warn", address, str(missing))]
    except LogUnavailable as error:
        return [CheckResult("event log", "problem", address, f"can't be reached: {error}", "unreachable")]
    except LogError as error:
        return [CheckResult("event log", "problem", address, str(error))]
    return [CheckResult("event log", "ok", address, "reachable"), *map(_topic, topics)]


def _topic(topic: TopicCheck) -> CheckResult:
    state, wrong = topic.state, topic.wrong
    if not wrong:
        rights = "" if state.writable else "; only a write would show whether it may be written"
        kind = ", compacted" if state.compacted else ""
        return CheckResult("event log", "ok", state.topic, f"{state.kind}: {state.partitions} partitions{kind}{rights}")
    hint = f"; run: {state.remedy}" if state.remedy else ""
    if wrong == MISSING and state.kind != "source":
        return CheckResult(
            "event log",
            "warn",
            state.topic,
            f"{state.kind}: missing; `usher run` creates it if it has the right to{hint}",
        )
    return CheckResult("event log", "problem", state.topic, f"{state.kind}: {wrong}{hint}")


def _refused(error: SettingsError) -> list[CheckResult]:
    """Make a result of each sentence; the setting's name, with which it begins, is split from the rest."""
    split = (problem.partition(": ") for problem in error.problems)
    return [CheckResult("settings", "problem", name, text, "refused") for name, _, text in split]
