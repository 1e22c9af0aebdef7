"""Send a welcome email to a user that an administrator created."""

from pydantic import BaseModel

from usher import Context, Event, on
from usher_handlers._sending import Sending, send


class WelcomeEmailSettings(BaseModel):
    """`USHER_WELCOME_EMAIL__SENDING`: ``words``, ``link`` or ``system``; see docs/handlers-bundled.md."""

    sending: Sending = "words"


@on("user.created", settings=WelcomeEmailSettings)
async def welcome_email(event: Event, ctx: Context) -> None:
    """Send a welcome email on how to set a password to a user that an administrator created."""
    await send(event, ctx, "welcome_email", ctx.settings.sending)
