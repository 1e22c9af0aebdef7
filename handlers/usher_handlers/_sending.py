"""How a message about a password comes to the user: ours with words, ours with a link, or the identity system's own."""

from typing import Literal

from usher import Context, Event, Skip

Sending = Literal["words", "link", "system"]
"""``words``: our message tells where to go and what to choose. ``link``: our message, with a link that the identity
system made. ``system``: the identity system sends its own."""


async def send(event: Event, ctx: Context, template: str, sending: Sending, *, by_sms: bool = False) -> None:
    """Send *template* to the event's user, in that way. Without an address nothing is made, and the channel says why.

    Raises:
        Skip: the user hears of it without us.
    """
    if event.context.already_notified_by:
        raise Skip(event.context.already_notified_by)
    if sending == "system":
        await ctx.idp.send_password_reset(event)
        return
    address = event.user.phone if by_sms else event.user.email
    link = await ctx.idp.password_link(event) if sending == "link" and address else None
    message = ctx.sms if by_sms else ctx.email
    await message(template, to=event.user, link=link)
