"""Tells a user that an administrator has changed or expired the password, and how to set a new one."""

from pydantic import BaseModel

from usher import Context, Event, Skip, on


class Settings(BaseModel):
    """`USHER_RESET_INSTRUCTIONS__ALSO_AFTER_REQUEST`: write also where the identity system has sent its own message."""

    also_after_request: bool = False


@on("password.reset", "password.expired", "password.reset_requested", settings=Settings)
async def reset_instructions(event: Event, ctx: Context) -> None:
    """Tell a user whose password an administrator changed or expired how to set a new one: by mail, else by SMS."""
    if event.context.told:
        raise Skip(event.context.told)
    if event.type == "password.reset_requested" and not ctx.settings.also_after_request:
        raise Skip("the identity system has sent its own message")
    send = ctx.sms if event.user.phone and not event.user.email else ctx.email
    await send("reset_instructions", to=event.user)
