"""Welcomes by mail whom an administrator has created."""

from usher import Context, Event, on


@on("user.created")
async def welcome_email(event: Event, ctx: Context) -> None:
    """Tell a user whom an administrator created how to set a password."""
    await ctx.email("welcome_email", to=event.user)
