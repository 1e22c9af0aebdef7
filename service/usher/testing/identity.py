"""An identity system for tests of handlers that use `ctx.idp`: it does nothing, and records its calls."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

from usher.event import Event, User
from usher.outcome import Outcome
from usher.system import PasswordLink


@dataclass
class FakeIdentity:
    """A `usher.system.IdentitySystem` that does nothing.

    *calls* are the names of the calls, in order. If *trouble* is set, each call raises it.
    """

    url: str = "https://id.example.com/set?ticket=fake-ticket"
    expires_at: datetime | None = None
    trouble: Outcome | None = None
    calls: list[str] = field(default_factory=list)

    async def user(self, event: Event) -> User:
        self._called("user")
        return event.user

    async def require_password_change(self, event: Event) -> None:  # noqa: ARG002
        self._called("require_password_change")

    async def clear_password_change(self, event: Event) -> None:  # noqa: ARG002
        self._called("clear_password_change")

    async def password_link(self, event: Event) -> PasswordLink:  # noqa: ARG002
        self._called("password_link")
        return PasswordLink(self.url, self.expires_at)

    async def send_password_reset(self, event: Event) -> None:  # noqa: ARG002
        self._called("send_password_reset")

    def _called(self, name: str) -> None:
        self.calls.append(name)
        if self.trouble is not None:
            raise self.trouble
