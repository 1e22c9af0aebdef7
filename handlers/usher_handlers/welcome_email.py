"""Welcomes by mail whom an administrator has created."""

from pydantic import BaseModel

from usher import Context, Event, on
from usher_handlers._sending import Sending, send


class Settings(BaseModel):
    """`USHER_WELCOME_EMAIL__SENDING`: ``words``, ``link`` or ``system``; see docs/handlers-bundled.md."""

    sending: Sending = "words"


@on("user.created", settings=Settings)
async def welcome_email(event: Event, ctx: Context) -> None:
    """Tell a user whom an administrator created how to set a password."""
    await send(event, ctx, "welcome_email", ctx.settings.sending)
