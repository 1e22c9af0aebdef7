"""The settings of the providers of mail and SMS."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from usher.settings import values


class SendGridSettings(BaseModel):
    model_config = ConfigDict(frozen=True, validate_default=True)

    api_key: values.Credential | None = Field(None, description="SendGrid's API key; needed for `USHER_EMAIL=sendgrid`")
    base_url: values.BaseUrl = Field("https://api.sendgrid.com", description="SendGrid's address, without a path")


class TwilioSettings(BaseModel):
    model_config = ConfigDict(frozen=True, validate_default=True)

    account_sid: values.AccountSid | None = Field(
        None, description="Twilio's account (`AC…`); needed for `USHER_SMS=twilio`"
    )
    auth_token: values.Credential | None = Field(None, description="its auth token")
    from_: values.TwilioFrom | None = Field(
        None, description="the number (`+…`) or messaging service (`MG…`) that SMS come from"
    )
    base_url: values.BaseUrl = Field("https://api.twilio.com", description="Twilio's address, without a path")


class SmtpSettings(BaseModel):
    model_config = ConfigDict(frozen=True)

    url: values.Smtp | None = Field(
        None, description="`smtp://user:password@host:587` or `smtps://…`; needed for `USHER_EMAIL=smtp`"
    )
    connections: values.Count = Field(
        8,
        description="how many connections to the SMTP server a worker has at once, one mail each: servers take few of one client",
    )
