"""What a handler would do with an event: it really runs, with the real templates and address checks, and nothing is sent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NoReturn, cast

import structlog

from usher.app import open_templates
from usher.channels import Mail, Progress, Text
from usher.channels.post import Post
from usher.channels.templates import Templates
from usher.delivery import Delivery, Origin
from usher.engine.attempt import Attempts, Ending
from usher.event import Event
from usher.handler import Handler, Outgoing, Ruling
from usher.outcome import Reject, Skip
from usher.redact import scrub
from usher.settings import Settings
from usher.sources import event_key

if TYPE_CHECKING:
    from aiohttp import ClientSession

_NAMES = {"email": "mail", "sms": "SMS"}


class _Calls(Exception):
    """The handler wanted to make a request of its own."""


class _NoHttp:
    """Stands where a handler finds its HTTP session."""

    def __getattr__(self, name: str) -> NoReturn:
        raise _Calls(name)


class _Accepts:
    """A provider that is content with everything and does nothing."""

    name = "rehearsal"

    def check(self) -> list[str]:
        return []

    async def send(self, _message: Mail | Text, progress: Progress, /) -> None:
        progress.state = "sent"


class Rehearsal:
    """Runs handlers without consequences.

    Args:
        found: all handlers that run; the templates are theirs, under the user's.
        own: each handler's settings, by name.
    """

    def __init__(self, settings: Settings, found: Sequence[Handler], own: Mapping[str, Any]) -> None:
        self._templates = open_templates(settings, found)
        silent: Any = structlog.wrap_logger(None, processors=[_drop], wrapper_class=structlog.stdlib.BoundLogger)
        self._attempts = Attempts(
            sender=Post(self._templates, sender=settings.mail_from, email=_Accepts(), sms=_Accepts()),
            http=cast("ClientSession", _NoHttp()),
            settings=own,
            log=silent,
        )

    async def would(self, ruling: Ruling, event: Event) -> str:
        """What the handler of *ruling* would do with *event*, in a few words."""
        if not ruling.runs:
            return "does not run"
        handler = ruling.handler
        origin = Origin("", 0, 0, 0, event_key(event))
        ending = await self._attempts.run(handler, event, Delivery(handler.name, event.identity, "", origin, b""))
        return _told(ending, self._templates, event)


def _told(ending: Ending, templates: Templates, event: Event) -> str:
    error, message = ending.error, ending.message
    if isinstance(error, _Calls):
        return "would call an HTTP API of its own; what follows is not known, since explain makes no request"
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
