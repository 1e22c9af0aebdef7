"""The Context: what a handler gets beside the event, with the one message that it may send.

Its public attributes are for handlers, and docs/handlers.md lists them. Those of the engine begin with an underscore.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol

from usher.event import Event, User, idempotency_key
from usher.outcome import Reject

if TYPE_CHECKING:
    from aiohttp import ClientSession
    from structlog.typing import FilteringBoundLogger

    from usher.delivery import Origin
    from usher.system import IdentitySystem


SendState = Literal["new", "left", "back", "sent"]
"""How far a message has come: see `Outgoing`."""


class Sender(Protocol):
    """Sends the message of a handler: renders the template, checks the address, calls the provider."""

    async def email(self, outgoing: Outgoing) -> None: ...
    async def sms(self, outgoing: Outgoing) -> None: ...


class AttemptClock(Protocol):
    """The timeout of an attempt. `stop` it while the message waits for its turn, `start` it again when it is sent."""

    def stop(self) -> None: ...
    def start(self) -> None: ...


@dataclass(slots=True)
class Outgoing:
    """The one message of a delivery, before rendering. *logger* is bound to the delivery.

    The channel sets *state*: ``new``, then ``left`` once any byte of the request may have reached the provider, ``back`` when
    it is known that the provider did not take the message, ``sent`` when it is known that it did. After *expires_at* (Unix
    seconds) it is of no use. Of one that was rendered *provider*, *language* and the *address* are known, and of one that was accepted
    *provider_id*, where the provider gives one.
    """

    template: str
    to: User | str
    event: Event
    variables: Mapping[str, Any]
    handler: str
    idempotency_key: str
    channel: Literal["email", "sms"]
    logger: FilteringBoundLogger
    clock: AttemptClock | None = None
    expires_at: float | None = None
    state: SendState = "new"
    provider: str = ""
    provider_id: str = ""
    language: str = ""
    address: str = ""


class Context:
    """What a handler gets beside the event. Each attempt has its own.

    *attempt* counts from 1. *idempotency_key* is the same for every attempt and replay of this delivery: give it to an API
    that takes one. *http* is a pooled `aiohttp.ClientSession`. *settings* is the handler's own model, filled from
    ``USHER_<HANDLER>__…``.
    """

    __slots__ = (
        "_already_sent", "_clock", "_expires_at", "_logger", "_message", "_origin", "_sender", "_system",
        "attempt", "event", "handler", "http", "settings",
    )  # fmt: skip

    def __init__(
        self,
        event: Event,
        handler: str,
        attempt: int,
        *,
        sender: Sender,
        base_logger: FilteringBoundLogger,
        http: ClientSession,
        settings: Any = None,
        already_sent: bool = False,
        origin: Origin | None = None,
        clock: AttemptClock | None = None,
        system: IdentitySystem | None = None,
        expires_at: float | None = None,
    ) -> None:
        self.event, self.handler, self.attempt = event, handler, attempt
        self.http, self.settings = http, settings
        self._sender, self._logger, self._origin = sender, base_logger, origin
        self._already_sent, self._clock, self._system = already_sent, clock, system
        self._expires_at = expires_at
        self._message: Outgoing | None = None

    @property
    def idp(self) -> IdentitySystem:
        """The identity system that the event came from, through its API.

        Raises:
            Reject: there are no credentials for it, or the event does not say which one it is.
        """
        if self._system is None:
            source = self.event.source
            raise Reject(
                f"{self.handler} needs the API of {source} (tenant {self.event.tenant!r}), but it has no settings; "
                f"set USHER_{source.upper()}__…, see `usher check`"
            )
        return self._system

    @property
    def logger(self) -> FilteringBoundLogger:
        """The logger, bound to this attempt: its lines carry event id, handler, attempt, topic, partition and offset."""
        at = self._origin
        place = {} if at is None else {"topic": at.topic, "partition": at.partition, "offset": at.offset}
        return self._logger.bind(event_id=self.event.id, handler=self.handler, attempt=self.attempt, **place)

    @property
    def idempotency_key(self) -> str:
        return idempotency_key(self.handler, self.event.uid)

    async def email(self, template: str, *, to: User | str, **variables: Any) -> None:
        """Send the mail *template* to a user or an address: once in a delivery. A user without an address is a `Skip`.

        Raises:
            Skip, Retry, Reject, Unknown, Hold: do not catch them. They say what became of the message.
        """
        if (outgoing := self._one("email", template, to, variables)) is not None:
            await self._sender.email(outgoing)

    async def sms(self, template: str, *, to: User | str, **variables: Any) -> None:
        """Send the SMS *template* to a user or a number: once in a delivery. A user without a number is a `Skip`.

        Raises:
            Skip, Retry, Reject, Unknown, Hold: do not catch them. They say what became of the message.
        """
        if (outgoing := self._one("sms", template, to, variables)) is not None:
            await self._sender.sms(outgoing)

    def _one(
        self, channel: Literal["email", "sms"], template: str, to: User | str, variables: Mapping[str, Any]
    ) -> Outgoing | None:
        if self._message is not None:
            raise Reject(
                f"{self.handler} sends a second message ({template!r} after {self._message.template!r}) for one delivery; "
                "a retry would repeat the first: make it two handlers"
            )
        self._message = Outgoing(
            template, to, self.event, variables, self.handler, self.idempotency_key, channel, self.logger, self._clock,
            self._expires_at,
        )  # fmt: skip
        if self._already_sent:  # an earlier attempt sent it, and then failed: it must not be sent again
            self._message.state = "sent"
            return None
        return self._message


def message_of(ctx: Context) -> Outgoing | None:
    """Return the message of this attempt, with its state; None: the handler has sent none."""
    return ctx._message
