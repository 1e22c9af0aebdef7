"""Send a message to a user after an administrator has changed or expired the password."""

from pydantic import BaseModel

from usher import Context, Event, Skip, on
from usher_handlers._sending import Sending, send


class ResetInstructionsSettings(BaseModel):
    """`USHER_RESET_INSTRUCTIONS__…`.

    ``ALSO_AFTER_REQUEST``: send it also if the identity system has sent its own message. ``SENDING``: ``words``, ``link``
    or ``system``; see docs/handlers-bundled.md.
    """

    also_after_request: bool = False
    sending: Sending = "words"


@on("password.reset", "password.expired", "password.reset_requested", settings=ResetInstructionsSettings)
async def reset_instructions(event: Event, ctx: Context) -> None:
    """Send instructions for a new password, by mail or else by SMS, after an administrator changed or expired a user's."""
    if event.type == "password.reset_requested" and not ctx.settings.also_after_request:
        raise Skip("the identity system has sent its own message")
    by_sms = bool(event.user.phone and not event.user.email)
    await send(event, ctx, "reset_instructions", ctx.settings.sending, by_sms=by_sms)
