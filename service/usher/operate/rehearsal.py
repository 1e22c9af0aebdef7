"""Find out what handlers would do with an event: run them, with the real templates and address checks, but send nothing."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn, cast

import structlog

from usher.channels import Mail, MailProvider, Progress, SmsMessage
from usher.channels.sender import MessageSender
from usher.channels.templates import Templates
from usher.channels.transport import Transport
from usher.context import Context, Outgoing, message_of
from usher.event import Event
from usher.handler import Handler, Router, Ruling
from usher.outcome import Reject, Skip, duration_text
from usher.parts import find_handlers, open_channels, open_templates
from usher.redact import about, scrub
from usher.settings import Settings
from usher.systems.canonical import canonical_document
from usher.systems.document import dump
from usher.systems.open import open_systems

if TYPE_CHECKING:
    from aiohttp import ClientSession

    from usher.system import IdentitySystem

_NAMES = {"email": "mail", "sms": "SMS"}


@dataclass(frozen=True, slots=True)
class Rehearsed:
    """What one handler would do with an event: whether it *runs*, the *condition* that decided, and what it *would* do."""

    handler: str
    runs: bool
    condition: str
    would: str


async def rehearse(settings: Settings, event: Event) -> list[Rehearsed]:
    """Find out for each handler what it would do with *event*.

    Raises:
        HandlerError, SettingsError
    """
    found = find_handlers(settings)
    systems = open_systems(settings, lambda: Transport().session)
    rehearsal = Rehearsal(
        settings, found, settings.for_handlers(found), time.time(), lambda event: systems.of(event) is not None
    )
    return [
        Rehearsed(ruling.handler.name, ruling.runs, ruling.condition, await rehearsal.would(ruling, event))
        for ruling in Router(found, settings.triggered_by).explain(event)
    ]


def as_stored(settings: Settings, event: Event) -> Event:
    """Return *event* with what its source adds to an event before it is stored, which depends on the settings.

    Raises:
        SettingsError
    """
    system = open_systems(settings, lambda: Transport().session).which(event)
    if system is None or not system.source.plain:
        return event
    arrivals = system.source.arrivals(dump(canonical_document(event)), {}, time.time())
    return next((arrival.event for arrival in arrivals if arrival.event), event)


class _Calls(Exception):
    """The handler was about to call an API; the text says which."""


class _NoHttp:
    """Takes the place of a handler's HTTP session, and makes no request."""

    def __getattr__(self, name: str) -> NoReturn:
        raise _Calls("an HTTP API of its own")


class _NoApi:
    """Takes the place of the API of *system*, and makes no request."""

    def __init__(self, system: str) -> None:
        self._system = system

    def __getattr__(self, call: str) -> NoReturn:
        raise _Calls(f"the API of {self._system} ({call})")


class _PreparesMail:
    """Takes the place of a provider of mail: makes of each mail what would go out, and sends nothing."""

    def __init__(self, provider: MailProvider) -> None:
        self.name = provider.name
        self._provider = provider

    async def send(self, mail: Mail, progress: Progress, /) -> None:
        self._provider.prepare(mail)
        progress.state = "sent"


class _AcceptsSms:
    """Takes the place of a provider of SMS, and sends nothing."""

    name = "rehearsal"

    async def send(self, _message: SmsMessage, progress: Progress, /) -> None:
        progress.state = "sent"


class Rehearsal:
    """Runs handlers without consequences.

    Args:
        found: all handlers that run; their templates are used, after those in the user's folder.
        own: each handler's settings, by name.
        now: Unix seconds, for expiry.
        has_api: says whether the API of the system that an event came from is set up.
    """

    def __init__(
        self,
        settings: Settings,
        found: Sequence[Handler],
        own: Mapping[str, Any],
        now: float,
        has_api: Callable[[Event], bool],
    ) -> None:
        self._templates = open_templates(settings, found)
        provider, _ = open_channels(settings, Transport())
        self._sender = MessageSender(
            self._templates,
            sender=settings.mail_from,
            email=_PreparesMail(provider),
            sms=_AcceptsSms(),
            internal_domains=settings.mail_internal_domains,
        )
        self._own = own
        self._now = now
        self._has_api = has_api

    async def would(self, ruling: Ruling, event: Event) -> str:
        """Say in a few words what the handler of *ruling* would do with *event*."""
        handler = ruling.handler
        if not ruling.runs:
            return ""
        if self._expired(handler, event):
            return f"would be dead-lettered as expired: it is older than {duration_text(handler.expires_after or 0)}"
        has_api = self._has_api(event)
        ctx = Context(
            event=event,
            handler=handler.name,
            attempt=1,
            sender=self._sender,
            base_logger=structlog.wrap_logger(
                None, processors=[_drop], wrapper_class=structlog.make_filtering_bound_logger(0)
            ),
            http=cast("ClientSession", _NoHttp()),
            settings=self._own.get(handler.name),
            system=cast("IdentitySystem", _NoApi(event.source)) if has_api else None,
        )
        error: BaseException | None = None
        try:
            async with asyncio.timeout(handler.timeout):
                await handler.function(event, ctx)
        except (Exception, SystemExit) as raised:  # noqa: BLE001 - a handler may raise anything, and the answer says what
            error = raised
        with about(event):
            ending = _ending(error, message_of(ctx), self._templates, event)
        if has_api and not (event.user.email or event.user.phone):
            return (
                f"would look the user up in {event.source}, which explain does not; if nothing is found there, {ending}"
            )
        return ending

    def _expired(self, handler: Handler, event: Event) -> bool:
        if handler.expires_after is None or event.time is None:
            return False
        return event.time.timestamp() + handler.expires_after < self._now


def _ending(error: BaseException | None, message: Outgoing | None, templates: Templates, event: Event) -> str:
    if isinstance(error, _Calls):
        return f"would call {error}; explain makes no request, so what follows is not known"
    if isinstance(error, Skip):
        return f"would be skipped: {scrub(error.reason)}"
    if isinstance(error, Reject):
        return f"would be dead-lettered: {scrub(error.reason)}"
    if error is not None:
        return f"would fail: {type(error).__name__}: {scrub(error)}"
    if message is None:
        return "would run, and send nothing"
    return f"would send {_NAMES[message.channel]} {message.template} ({_language(message, templates, event)})"


def _language(message: Outgoing, templates: Templates, event: Event) -> str:
    render = templates.mail if message.channel == "email" else templates.sms
    field = "email" if message.channel == "email" else "phone"
    address = message.to if isinstance(message.to, str) else getattr(message.to, field)
    return render(message.template, event, variables=message.variables, **{field: address}).language


def _drop(*_: object) -> NoReturn:
    raise structlog.DropEvent
