"""Send a message about a password: ours with words, ours with a link, or the identity system's own."""

from typing import Literal

from usher import AccountDisabled, Context, Event, Skip

Sending = Literal["words", "link", "system"]
"""``words``: our message says where to set a password. ``link``: our message, with a link that the identity system made.
``system``: the identity system sends its own message."""


def is_for(event: Event) -> None:
    """Return where the event's user should get a message about the account.

    Raises:
        Skip: the user is notified without us, or can't log in (`AccountDisabled`).
    """
    if event.context.already_notified_by:
        raise Skip(event.context.already_notified_by)
    if event.user.disabled:
        raise AccountDisabled("disabled: the user can't log in, nor set a password")


async def send(event: Event, ctx: Context, template: str, sending: Sending, *, by_sms: bool = False) -> None:
    """Send *template* to the event's user, as *sending* says. Without an address no link is made, and the channel says why.

    Raises:
        Skip: see `is_for`.
    """
    is_for(event)
    if sending == "system":
        await ctx.idp.send_password_reset(event)
        return
    address = event.user.phone if by_sms else event.user.email
    link = await ctx.idp.password_link(event) if sending == "link" and address else None
    message = ctx.sms if by_sms else ctx.email
    await message(template, to=event.user, link=link)
