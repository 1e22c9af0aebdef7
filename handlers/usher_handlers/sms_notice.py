"""Send an SMS to a user that an administrator created and that a mail would not reach."""

from typing import Literal

from pydantic import BaseModel

from usher import Context, Event, Skip, on
from usher_handlers._sending import is_for


class SmsNoticeSettings(BaseModel):
    """`USHER_SMS_NOTICE__WHEN`: send the SMS only to users without an email address, or to all users with a number."""

    when: Literal["no-email", "always"] = "no-email"


@on("user.created", settings=SmsNoticeSettings)
async def sms_notice(event: Event, ctx: Context) -> None:
    """Send an SMS on how to set a password to a user that an administrator created without an email address."""
    is_for(event)
    if event.user.email and ctx.settings.when == "no-email":
        raise Skip("the user has an email address, and gets a mail")
    await ctx.sms("sms_notice", to=event.user)
