"""The settings of the providers of mail and SMS, and how their own kinds of values are written."""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainValidator, ValidationInfo

from usher.addresses import MailSender, mail_domain
from usher.settings import values


def _account_sid(value: Any) -> str:
    return _sid(
        value,
        "AC",
        "an account SID: AC and 32 hexadecimal digits; an API key (SK…) goes into USHER_TWILIO__API_KEY, its secret into "
        "USHER_TWILIO__API_KEY_SECRET, and the account stays here",
    )


def _api_key(value: Any) -> str:
    return _sid(value, "SK", "the SID of an API key: SK and 32 hexadecimal digits")


def _sid(value: Any, kind: str, form: str) -> str:
    text = str(value).strip()
    if not re.fullmatch(kind + "[0-9a-fA-F]{32}", text):
        raise ValueError(f"should be {form}")
    return text


def _mail_domains(value: Any) -> tuple[str, ...]:
    return tuple(mail_domain(name) for name in values.split(value))


def _mail_from(value: Any, info: ValidationInfo) -> MailSender:
    """A sender; the domains that stand beside it are those of the own network."""
    return (
        value
        if isinstance(value, MailSender)
        else MailSender.parse(str(value), info.data.get("mail_internal_domains", ()))
    )


MailDomains = Annotated[tuple[str, ...], BeforeValidator(_mail_domains)]
MailFrom = Annotated[MailSender, PlainValidator(_mail_from)]
AccountSid = Annotated[str, BeforeValidator(_account_sid)]
ApiKey = Annotated[str, BeforeValidator(_api_key)]


class SendGridSettings(BaseModel):
    model_config = ConfigDict(frozen=True, validate_default=True)

    api_key: values.Credential | None = Field(None, description="SendGrid's API key; needed for `USHER_EMAIL=sendgrid`")
    base_url: values.BaseUrl = Field("https://api.sendgrid.com", description="SendGrid's address, without a path")


class TwilioSettings(BaseModel):
    model_config = ConfigDict(frozen=True, validate_default=True)

    account_sid: AccountSid | None = Field(None, description="Twilio's account (`AC…`); needed for `USHER_SMS=twilio`")
    auth_token: values.Credential | None = Field(None, description="its auth token; needed unless there is an API key")
    api_key: ApiKey | None = Field(
        None, description="an API key of the account (`SK…`), used in place of the auth token"
    )
    api_key_secret: values.Credential | None = Field(None, description="its secret; needed beside it")
    from_: values.TwilioFrom | None = Field(
        None, description="the number (`+…`) or messaging service (`MG…`) that SMS come from"
    )
    base_url: values.BaseUrl = Field("https://api.twilio.com", description="Twilio's address, without a path")


class SmtpSettings(BaseModel):
    model_config = ConfigDict(frozen=True)

    url: values.Smtp | None = Field(
        None,
        description="`smtp://user:password@host:587` or `smtps://…`, with user and password %-encoded; needed for `USHER_EMAIL=smtp`",
    )
    connections: values.Count = Field(
        8,
        description="how many connections to the SMTP server a worker has at once, one mail each: servers take few of one client",
    )
