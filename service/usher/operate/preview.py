"""Previews: the messages that a template makes of an event."""

from __future__ import annotations

from dataclasses import dataclass, replace

from usher.channels.templates import RenderedMail, RenderedSms
from usher.event import Event
from usher.operate.errors import NotFound, OperateError
from usher.outcome import Reject
from usher.parts import find_handlers, open_templates
from usher.settings import Settings


@dataclass(frozen=True, slots=True)
class Preview:
    """The messages of a template. It may have both kinds; None: it has no file for that kind."""

    mail: RenderedMail | None
    sms: RenderedSms | None


def preview(settings: Settings, template: str, event: Event, *, language: str | None = None) -> Preview:
    """Render a *template* with an *event*, in the user's language or in *language*.

    Raises:
        NotFound: there is no such template.
        OperateError: it can't be rendered with this event.
        HandlerError, SettingsError
    """
    templates = open_templates(settings, find_handlers(settings))
    kinds = templates.kinds(template)
    if not kinds:
        raise NotFound("; ".join(templates.check([template])))
    if language is not None:
        event = replace(event, context=replace(event.context, language=language))
    try:
        return Preview(
            mail=templates.mail(template, event) if "mail" in kinds else None,
            sms=templates.sms(template, event) if "SMS" in kinds else None,
        )
    except Reject as error:
        raise OperateError(error.reason) from None
