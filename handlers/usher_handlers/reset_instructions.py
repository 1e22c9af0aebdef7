"""Tells a user that an administrator has changed or expired the password, and how to set a new one."""

from pydantic import BaseModel

from usher import Context, Event, Skip, on
from usher_handlers._sending import Sending, send


class Settings(BaseModel):
    """`USHER_RESET_INSTRUCTIONS__…`.

    ``ALSO_AFTER_REQUEST``: write also where the identity system has sent its own message. ``SENDING``: ``words``, ``link``
    or ``system``; see docs/handlers-bundled.md.
    """

    also_after_request: bool = False
    sending: Sending = "words"


@on("password.reset", "password.expired", "password.reset_requested", settings=Settings)
async def reset_instructions(event: Event, ctx: Context) -> None:
    """Tell a user whose password an administrator changed or expired how to set a new one: by mail, else by SMS."""
    if event.type == "password.reset_requested" and not ctx.settings.also_after_request:
        raise Skip("the identity system has sent its own message")
    by_sms = bool(event.user.phone and not event.user.email)
    await send(event, ctx, "reset_instructions", ctx.settings.sending, by_sms=by_sms)
