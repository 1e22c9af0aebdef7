"""From the settings to the parts: hides which setting goes where. The service is made of these, and commands look at some of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from usher.channels import Email, Sms
from usher.channels.open import open_email, open_sms
from usher.channels.templates import Brand, Templates, template_folders
from usher.channels.transport import Transport
from usher.handler import Handler
from usher.plugins import find, select
from usher.settings import Settings

if TYPE_CHECKING:
    from pydantic import SecretStr


def find_handlers(settings: Settings) -> list[Handler]:
    """The handlers that will run, from entry points and `USHER_HANDLERS_DIR`.

    Raises:
        HandlerError
        SettingsError: something is set for a handler that does not exist. One that is left out does.
    """
    found = find(settings.handlers_dir)
    settings.check_handler_options(handler.name for handler in found)
    return select(found, settings.handlers)


def open_templates(settings: Settings, handlers: Sequence[Handler]) -> Templates:
    """The templates of these handlers, the user's folder first."""
    brand = Brand(settings.service_name, settings.login_url, settings.reset_url)
    return Templates(template_folders(handlers), brand=brand, overrides=settings.templates_dir)


def open_channels(settings: Settings, transport: Transport) -> tuple[Email, Sms]:
    """The providers that the settings name, without their gates; nothing is connected yet."""
    email = open_email(
        settings.email,
        transport,
        outbox_dir=settings.outbox_dir,
        sendgrid_api_key=_secret(settings.sendgrid.api_key),
        sendgrid_base_url=settings.sendgrid.base_url,
        smtp_url=_secret(settings.smtp.url),
    )
    sms = open_sms(
        settings.sms,
        transport,
        outbox_dir=settings.outbox_dir,
        twilio_account_sid=settings.twilio.account_sid or "",
        twilio_auth_token=_secret(settings.twilio.auth_token),
        twilio_from=settings.twilio.from_ or "",
        twilio_base_url=settings.twilio.base_url,
    )
    return email, sms


def _secret(value: SecretStr | None) -> str:
    return "" if value is None else value.get_secret_value()
