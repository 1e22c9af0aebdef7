"""Clear the flag that a new password is required, once the user has set one and if the system does not clear it itself."""

from usher import Context, Event, on


@on("password.changed", triggered_by="user", expires_after=None, optional=True, sends=False)
async def clear_reset_flag(event: Event, ctx: Context) -> None:
    """Clear the flag that requires a new password, after a user has set one."""
    await ctx.idp.clear_password_change(event)
