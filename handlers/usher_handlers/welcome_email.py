"""Welcomes by mail whom an administrator has created."""

from usher import Context, Event, Skip, on


@on("user.created")
async def welcome_email(event: Event, ctx: Context) -> None:
    """Tell a user whom an administrator created how to set a password."""
    if event.context.told:
        raise Skip(event.context.told)
    await ctx.email("welcome_email", to=event.user)
