"""`ctx.idp`: what a handler may do in the identity system that an event came from. Hides which system that is.

Every call may raise `usher.outcome.Retry` or `Hold` (the system is down, slow, or refuses our credentials) and
`Reject` (it has no such thing, or refuses for good). Do not catch them: they say what becomes of the delivery.
"""

from __future__ import annotations

from datetime import datetime
from typing import NamedTuple, Protocol

from usher.event import Event, User


class PasswordLink(NamedTuple):
    """The address of a page that sets the user's password. Anybody who has it can do so: only the user may get it, no log either."""

    url: str
    expires_at: datetime | None


class IdentitySystem(Protocol):
    """One tenant of an identity system, through its API. Each call is about the user of the event."""

    async def user(self, event: Event) -> User:
        """Return the user as the system has it now: user name, addresses, name, language. Usher itself asks where an event has no address.

        Raises:
            Skip: there is no such user (any more).
            Retry: there is none yet: within a minute of the user's creation.
        """

    async def require_password_change(self, event: Event) -> None:
        """Make the user choose a new password at the next login. To do it twice changes nothing."""

    async def clear_password_change(self, event: Event) -> None:
        """Take that back: the user has changed the password. To do it twice changes nothing."""

    async def password_link(self, event: Event) -> PasswordLink:
        """Return a new link to a page where the user sets a password, for a mail that Usher sends."""

    async def send_password_reset(self, event: Event) -> None:
        """Have the system itself send the user its reset message."""
