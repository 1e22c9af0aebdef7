"""Usher, the hook runner for identity events: the door for those who write handlers.

    from usher import Context, Event, on

    @on("user.created")
    async def welcome_email(event: Event, ctx: Context) -> None:
        await ctx.email("welcome_email", to=event.user)

Importing this loads neither a Kafka client, nor an HTTP client, nor a provider's package.
"""

from usher.context import Context
from usher.event import Event, User
from usher.handler import Handler, HandlerError, on
from usher.outcome import AccountDisabled, Outcome, Reject, Retry, RetryPolicy, Skip

__version__ = "0.1.0"

__all__ = [
    # A handler and what it is given
    "on",
    "Event",
    "User",
    "Context",
    "Handler",
    # How it may end, and what then
    "Outcome",
    "Retry",
    "Reject",
    "Skip",
    "AccountDisabled",
    "RetryPolicy",
    # What is wrong with it
    "HandlerError",
]  # fmt: skip
