"""One attempt: what a handler is given, how long it may take, and how its end is read.

Hides the telling apart of a failure before anything left, an unknown outcome, and a failure after the message was sent.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from usher.delivery import Delivery
from usher.event import Event
from usher.handler import Context, Handler, Outgoing, Sender
from usher.outcome import OnUnknown, Unknown

if TYPE_CHECKING:
    from aiohttp import ClientSession
    from structlog.typing import FilteringBoundLogger


@dataclass(frozen=True, slots=True)
class Ending:
    """How an attempt ended: *error* None means that the handler returned. *seconds* is what it took."""

    error: BaseException | None
    message: Outgoing | None
    seconds: float

    @property
    def sent(self) -> bool:
        """Whether a provider is known to have the message."""
        return self.message is not None and self.message.state == "sent"


@dataclass(frozen=True, slots=True)
class Attempts:
    """What every attempt needs: the way out, the pooled session, each handler's settings."""

    sender: Sender
    http: ClientSession
    settings: Mapping[str, Any]
    log: FilteringBoundLogger

    async def run(self, handler: Handler, event: Event, delivery: Delivery) -> Ending:
        """Run *handler* once. Raises nothing but `asyncio.CancelledError`."""
        attempt = delivery.attempt + 1
        ctx = Context(
            event=event,
            handler=handler.name,
            attempt=attempt,
            sender=self.sender,
            log=self.log.bind(
                event_id=event.id,
                handler=handler.name,
                attempt=attempt,
                topic=delivery.origin.topic,
                partition=delivery.origin.partition,
                offset=delivery.origin.offset,
            ),
            http=self.http,
            settings=self.settings.get(handler.name),
            already_sent=delivery.sent,
        )
        error: BaseException | None = None
        began = time.perf_counter()
        try:
            async with asyncio.timeout(handler.timeout) as limit:
                await handler.function(event, ctx)
        except TimeoutError as ended:
            error = self._timed_out(ctx, handler, ended, ours=limit.expired())
        except (Exception, SystemExit) as ended:  # noqa: BLE001 - whatever a handler raises is an outcome
            error = ended
        return Ending(error, ctx.message, time.perf_counter() - began)

    @staticmethod
    def _timed_out(ctx: Context, handler: Handler, error: TimeoutError, *, ours: bool) -> Exception:
        message = ctx.message
        if message is not None and message.state == "left":
            otherwise: OnUnknown = "resend" if message.channel == "email" else "hold"
            text = f"no answer within the handler's {handler.timeout:g} s: it may have been sent"
            return Unknown(text, otherwise=otherwise)
        return TimeoutError(f"{handler.name} took longer than its {handler.timeout:g} s") if ours else error
