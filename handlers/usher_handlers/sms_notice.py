"""Tells by SMS whom an administrator has created, where a mail would not reach them."""

from typing import Literal

from pydantic import BaseModel

from usher import Context, Event, Skip, on


class Settings(BaseModel):
    """`USHER_SMS_NOTICE__WHEN`: only users without an email address get the SMS, or all who have a number."""

    when: Literal["no-email", "always"] = "no-email"


@on("user.created", settings=Settings)
async def sms_notice(event: Event, ctx: Context) -> None:
    """Tell a user whom an administrator created, and who has a phone and no email, how to set a password."""
    if event.context.already_notified_by:
        raise Skip(event.context.already_notified_by)
    if event.user.email and ctx.settings.when == "no-email":
        raise Skip("the user has an email address, and is written to there")
    await ctx.sms("sms_notice", to=event.user)
