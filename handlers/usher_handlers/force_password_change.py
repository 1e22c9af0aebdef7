"""Require a new password at the first login of a user that an administrator created."""

from pydantic import BaseModel

from usher import Context, Event, Skip, on


class ForcePasswordChangeSettings(BaseModel):
    """`USHER_FORCE_PASSWORD_CHANGE__AFTER_RESET`: do so also after an administrator has set a new password."""

    after_reset: bool = False


@on("user.created", "password.reset", settings=ForcePasswordChangeSettings, optional=True, sends=False)
async def force_password_change(event: Event, ctx: Context) -> None:
    """Require a new password at the first login of a user that an administrator created."""
    if event.type == "password.reset" and not ctx.settings.after_reset:
        raise Skip("a password that an administrator set is left as it is")
    await ctx.idp.require_password_change(event)
