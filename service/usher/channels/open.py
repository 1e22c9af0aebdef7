"""Which provider a setting's word means. Nothing is connected here; `check` of what comes back says what is missing."""

from __future__ import annotations

from pathlib import Path

from usher.channels import Email, Sms
from usher.channels.outbox import MailOutbox, SmsOutbox
from usher.channels.smtp import Smtp
from usher.channels.transport import Transport

EMAIL_PROVIDERS = ("outbox", "sendgrid", "smtp")
SMS_PROVIDERS = ("outbox", "twilio")


def open_email(
    kind: str,
    transport: Transport,
    *,
    outbox_dir: Path | str = "outbox",
    sendgrid_api_key: str = "",
    sendgrid_base_url: str = "https://api.sendgrid.com",
    smtp_url: str = "",
) -> Email:
    """The provider of mail that *kind* names, one of `EMAIL_PROVIDERS`. The transport may still be closed.

    Raises:
        ValueError: there is no such provider.
    """
    if kind == "outbox":
        return MailOutbox(outbox_dir)
    if kind == "smtp":
        return Smtp(smtp_url)
    if kind == "sendgrid":
        from usher.channels.sendgrid import SendGrid  # noqa: PLC0415 slow to import: its users pay

        return SendGrid(transport, api_key=sendgrid_api_key, base_url=sendgrid_base_url)
    raise ValueError(f"USHER_EMAIL: there is no provider {kind!r}; it is one of {', '.join(EMAIL_PROVIDERS)}")


def open_sms(
    kind: str,
    transport: Transport,
    *,
    outbox_dir: Path | str = "outbox",
    twilio_account_sid: str = "",
    twilio_auth_token: str = "",
    twilio_from: str = "",
    twilio_base_url: str = "https://api.twilio.com",
) -> Sms:
    """The provider of SMS that *kind* names, one of `SMS_PROVIDERS`. The transport may still be closed.

    Raises:
        ValueError: there is no such provider.
    """
    if kind == "outbox":
        return SmsOutbox(outbox_dir)
    if kind == "twilio":
        from usher.channels.twilio import Twilio  # noqa: PLC0415 slow to import: its users pay

        return Twilio(
            transport,
            account_sid=twilio_account_sid,
            auth_token=twilio_auth_token,
            sender=twilio_from,
            base_url=twilio_base_url,
        )
    raise ValueError(f"USHER_SMS: there is no provider {kind!r}; it is one of {', '.join(SMS_PROVIDERS)}")
