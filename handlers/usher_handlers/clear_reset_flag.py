"""Takes back that a new password is required, once the user has set one, where the identity system does not by itself."""

from usher import Context, Event, on


@on("password.changed", triggered_by="user", expires_after=None, optional=True)
async def clear_reset_flag(event: Event, ctx: Context) -> None:
    """Require no new password any more from a user who has just set one."""
    await ctx.idp.clear_password_change(event)
