"""What a handler may do in the identity system that an event came from: `ctx.idp`. Hides which system that is.

Every call may raise `usher.outcome.Retry` or `Hold` (the system is down, slow, or refuses our credentials) and
`Reject` (it has no such thing, or says no for good): let them pass, they say what is to become of the delivery.
"""

from __future__ import annotations

from datetime import datetime
from typing import NamedTuple, Protocol

from usher.event import Event, User


class PasswordLink(NamedTuple):
    """A page where whoever has *url* sets the user's password: it goes to the user and nowhere else, logs included."""

    url: str
    expires_at: datetime | None


class IdentitySystem(Protocol):
    """One tenant of an identity system, through its API. The subject of each call is the event's user."""

    async def user(self, event: Event) -> User:
        """The user as the system knows him now: addresses, name, language. Asked by Usher itself where an event has no address.

        Raises:
            Skip: there is no such user (any more).
        """

    async def require_password_change(self, event: Event) -> None:
        """See to it that the user has to choose a new password at the next login. Doing it twice changes nothing."""

    async def clear_password_change(self, event: Event) -> None:
        """Take that back: the user has changed the password. Doing it twice changes nothing."""

    async def password_link(self, event: Event) -> PasswordLink:
        """A new link to a page where the user sets a password, for a mail of ours."""

    async def send_password_reset(self, event: Event) -> None:
        """Let the system itself send the user its reset message."""
