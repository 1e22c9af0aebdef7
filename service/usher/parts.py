"""Make the parts that the settings describe: handlers, templates, providers. Hides which setting goes where."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from usher.channels import MailProvider, Sms
from usher.channels.outbox import MailOutbox, SmsOutbox
from usher.channels.sendgrid import SendGrid
from usher.channels.smtp import Smtp
from usher.channels.templates import Brand, Templates, template_folders
from usher.channels.transport import Transport
from usher.handler import Handler
from usher.plugins import find, select
from usher.settings import Settings
from usher.settings.secret_values import know_handlers

_T = TypeVar("_T")


def find_handlers(settings: Settings) -> list[Handler]:
    """The handlers that will run, from entry points and `USHER_HANDLERS_DIR`.

    Raises:
        HandlerError
        SettingsError: something is set for a handler that does not exist. One that is left out does.
    """
    found = find(settings.handlers_dir)
    settings.check_handler_options(handler.name for handler in found)
    know_handlers(found, settings.handler_options)
    return select(found, settings.handlers)


def open_templates(settings: Settings, handlers: Sequence[Handler]) -> Templates:
    """The templates of these handlers, the user's folder first."""
    brand = Brand(settings.service_name, settings.login_url, settings.reset_url)
    return Templates(template_folders(handlers), brand=brand, overrides=settings.templates_dir)


def open_channels(settings: Settings, transport: Transport) -> tuple[MailProvider, Sms]:
    """The providers that the settings name, without their circuit breakers; nothing is connected yet."""
    return _email(settings, transport), _sms(settings, transport)


def _email(settings: Settings, transport: Transport) -> MailProvider:
    if settings.email == "smtp":
        return Smtp(_given(settings.smtp.url))
    if settings.email == "sendgrid":
        given = settings.sendgrid
        return SendGrid(transport, api_key=_given(given.api_key).get_secret_value(), base_url=given.base_url)
    return MailOutbox(settings.outbox_dir)


def _sms(settings: Settings, transport: Transport) -> Sms:
    if settings.sms == "twilio":
        from usher.channels.twilio import Twilio  # noqa: PLC0415 slow to import: its users pay

        given = settings.twilio
        return Twilio(
            transport,
            account_sid=_given(given.account_sid),
            user=given.api_key or _given(given.account_sid),
            password=_given(given.api_key_secret or given.auth_token).get_secret_value(),
            sender=_given(given.from_),
            base_url=given.base_url,
        )
    return SmsOutbox(settings.outbox_dir)


def _given(value: _T | None) -> _T:
    """*value*, which is there: the settings lack nothing that the provider they name needs."""
    assert value is not None  # noqa: S101
    return value
