"""One attempt: it runs the handler, and turns its end into a verdict.

Hides what the handler gets, how long it may take, and how a failure before anything has left, an unknown outcome, and a
failure after the message was sent are distinguished.
"""

from __future__ import annotations

import asyncio
import math
import random
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

from usher.context import Context, Sender, message_of
from usher.delivery import Delivery
from usher.engine.dead_letters import EXPIRED, HANDLER_GONE, UNDECODABLE
from usher.engine.deadline import Deadlines, Limit
from usher.engine.lanes import InFlight
from usher.event import Event, Undecodable
from usher.handler import Handler, Router
from usher.metrics import Metrics
from usher.outcome import (
    DONE,
    Dead,
    Done,
    OnUnknown,
    Outcome,
    Park,
    Reject,
    RetryPolicy,
    Unknown,
    Verdict,
    decide,
)
from usher.redact import about, scrub
from usher.system import IdentitySystem
from usher.systems.peek import peek

if TYPE_CHECKING:
    from aiohttp import ClientSession
    from structlog.typing import FilteringBoundLogger


_OF_ACCOUNTS = ("user.", "password.")
"""How the types begin for which it matters whether the account is disabled."""
_PATIENCE = 5.0
"""Seconds that a message which has an address waits for the look-up: it must not take the handler's time."""


def _no_system(_event: Event) -> None:
    return None


@dataclass(frozen=True, slots=True)
class Attempts:
    """Makes attempts. *policy* is for handlers without their own; *now* gives Unix seconds.

    *system_of* gives the identity system of an event, where Usher has access to its API.
    """

    router: Router
    sender: Sender
    http: ClientSession
    settings: Mapping[str, Any]
    policy: RetryPolicy
    metrics: Metrics
    logger: FilteringBoundLogger
    now: Callable[[], float]
    rng: random.Random
    system_of: Callable[[Event], IdentitySystem | None] = _no_system
    deadlines: Deadlines = field(default_factory=Deadlines, init=False)

    async def make(self, in_flight: InFlight) -> tuple[Verdict, Delivery]:
        """Try the delivery once. Returns the verdict, and the delivery as it is after the attempt.

        Raises nothing but `asyncio.CancelledError`.
        """
        delivery = in_flight.delivery
        handler = self.router.handlers.get(delivery.handler)
        if handler is None:
            return _given_up(HANDLER_GONE, f"no handler is named {delivery.handler!r} any more"), delivery
        try:
            event = in_flight.event = in_flight.event or peek(delivery.value)
        except Undecodable as reason:
            return _given_up(UNDECODABLE, str(reason)), delivery
        expires_at = _expires_at(handler, event, delivery)
        if expires_at is not None and expires_at < self.now() * 1000:
            if not (delivery.replay is not None and delivery.replay.even_expired):
                self.metrics.attempt(handler.name, EXPIRED)
                return _given_up(EXPIRED, f"older than the handler's {handler.expires_after:g} s"), delivery
            expires_at = None  # it is asked for all the same
        limit = in_flight.limit = self.deadlines.limit(handler.timeout)
        ctx = self._context(handler, event, delivery, limit, expires_at)
        with about(event):  # what it holds of its user is masked in what is said of a failure
            began = time.perf_counter()
            try:
                with limit:
                    if ctx._system is not None:
                        ctx.event = await _looked_up(event, ctx._system)
                    await handler.function(ctx.event, ctx)
            except (Exception, SystemExit, asyncio.CancelledError) as error:  # any of a handler's is an outcome
                if isinstance(error, asyncio.CancelledError) and _is_being_cancelled():
                    raise  # otherwise the handler awaited something that was
                return self._failed(handler, in_flight, ctx, error, time.perf_counter() - began)
            self.metrics.attempt(handler.name, DONE.label, time.perf_counter() - began)
            self._note_message(in_flight, ctx)
            if not in_flight.sent:
                self._nothing_sent(delivery, "")
        return DONE, delivery

    def _note_message(self, in_flight: InFlight, ctx: Context) -> None:
        """Keep what the attempt was to send. Where a provider has just accepted it, measure how long the user has waited."""
        in_flight.message = message_of(ctx)
        if (accepted := in_flight.accepted) is not None:
            waited = self.now() - _happened_at(ctx.event, in_flight.delivery) / 1000
            self.metrics.notice_delay.labels(in_flight.delivery.handler, accepted.channel).observe(max(0.0, waited))

    def longest_wait(self, handler: str) -> float:
        """Return the longest wait, in seconds, that the retry policy of *handler* asks for."""
        found = self.router.handlers.get(handler)
        return ((found.retry if found else None) or self.policy).longest

    def expiry_of(self, in_flight: InFlight) -> int | None:
        """Return when it becomes too late to send it, in Unix milliseconds. None: never, or that is not known."""
        handler = self.router.handlers.get(in_flight.delivery.handler)
        if handler is None:
            return None
        try:
            return _expires_at(handler, in_flight.event or peek(in_flight.delivery.value), in_flight.delivery)
        except Undecodable:
            return None

    def _context(
        self, handler: Handler, event: Event, delivery: Delivery, limit: Limit, expires_at: int | None
    ) -> Context:
        return Context(
            event=event,
            handler=handler.name,
            attempt=delivery.attempt + 1,
            clock=limit,
            sender=self.sender,
            base_logger=self.logger,
            origin=delivery.origin,
            http=self.http,
            settings=self.settings.get(handler.name),
            already_sent=delivery.sent,
            system=self.system_of(event),
            expires_at=None if expires_at is None else expires_at / 1000,
        )

    def _failed(
        self, handler: Handler, in_flight: InFlight, ctx: Context, error: BaseException, seconds: float
    ) -> tuple[Verdict, Delivery]:
        """Return the verdict on an attempt that ended with *error* after so many *seconds*, and the delivery as it is then."""
        delivery, limit, now = in_flight.delivery, in_flight.limit, self.now()
        if isinstance(error, TimeoutError):
            error = _timed_out(ctx, handler, error, ours=limit is not None and limit.expired)
        verdict = decide(
            error,
            attempt=delivery.attempt + 1,
            policy=handler.retry or self.policy,
            on_unknown=handler.on_unknown,
            now=now,
            rng=self.rng,
            may_park=delivery.replay is None,
            expires_at=ctx._expires_at,
        )
        self._report(delivery, error, seconds, verdict)
        self._note_message(in_flight, ctx)
        return verdict, _after(delivery, verdict, in_flight.sent, int(now * 1000))

    def _report(self, delivery: Delivery, error: BaseException, seconds: float, verdict: Verdict) -> None:
        self.metrics.attempt(delivery.handler, verdict.label, seconds)
        if isinstance(verdict, Done):
            self.metrics.skipped.labels(delivery.handler, verdict.code or "other").inc()
            self._nothing_sent(delivery, verdict.reason)
        elif not isinstance(error, Outcome):  # not on purpose: the author of the handler needs the traceback
            number = delivery.attempt + 1
            self.logger.warning(
                "handler failed", exc_info=error, event_id=delivery.uid.id, handler=delivery.handler, attempt=number
            )

    def _nothing_sent(self, delivery: Delivery, reason: str) -> None:
        number = delivery.attempt + 1
        self.logger.debug(
            "nothing sent", reason=reason, event_id=delivery.uid.id, handler=delivery.handler, attempt=number
        )


def _is_being_cancelled() -> bool:
    """Return whether this task is: not something that it awaits."""
    task = asyncio.current_task()
    return task is None or task.cancelling() > 0


async def _looked_up(event: Event, system: IdentitySystem) -> Event:
    """Return *event* with what the identity system knows of the user: the addresses, and whether the account is disabled.

    It is unchanged where it says both itself, where the user is not named, or deleted, or the system has no look-up. A message that
    has an address does not depend on the look-up. Log-ins and the like, of which there are many, are looked up for an address only.
    """
    addressed = bool(event.user.email or event.user.phone)
    known = addressed and (event.user.disabled is not None or not event.type.startswith(_OF_ACCOUNTS))
    if known or event.type == "user.deleted" or (event.user.id is None and event.context.user_id is None):
        return event
    try:
        async with asyncio.timeout(_PATIENCE if addressed else None):
            found = await system.user(event)
    except Reject:  # this system has no look-up
        return event
    except (Outcome, TimeoutError):
        if not addressed:
            raise
        return event
    if addressed:
        return replace(event, user=replace(event.user, disabled=found.disabled))
    said = {name: item for name, item in asdict(event.user).items() if item is not None}
    if found.disabled is not None:
        said["disabled"] = found.disabled
    return replace(event, user=replace(found, **said))


def _timed_out(ctx: Context, handler: Handler, error: TimeoutError, *, ours: bool) -> Exception:
    message = message_of(ctx)
    if message is not None and message.state == "left":
        otherwise: OnUnknown = "resend" if message.channel == "email" else "dead-letter"
        text = f"no answer within the handler's {handler.timeout:g} s: it may have been sent"
        return Unknown(text, otherwise=otherwise)
    return TimeoutError(f"{handler.name} took longer than its {handler.timeout:g} s") if ours else error


def _happened_at(event: Event, delivery: Delivery) -> float:
    """Return when it happened, in Unix milliseconds: by the event, else by its record."""
    stamp = event.context.timestamp
    return stamp * 1000 if stamp is not None else delivery.origin.timestamp


def _expires_at(handler: Handler, event: Event, delivery: Delivery) -> int | None:
    if handler.expires_after is None:
        return None
    happened = _happened_at(event, delivery)
    if happened < 0:  # parked by a version that took a record without a time for one of 1970
        return None
    return int(happened + handler.expires_after * 1000)


def _given_up(reason: str, error: str) -> Dead:
    return Dead(reason, reason, scrub(error), "")


def _after(delivery: Delivery, verdict: Verdict, sent: bool, now: int) -> Delivery:
    """Return the delivery as it is after its attempt."""
    if isinstance(verdict, Done):
        return delivery
    due = math.ceil(verdict.due * 1000) if isinstance(verdict, Park) else None
    attempt = verdict.attempt if isinstance(verdict, Park) else delivery.attempt + 1
    failed = delivery.failed(attempt=attempt, due=due, now=now, error=verdict.error, error_type=verdict.error_type)
    return replace(failed, sent=sent or delivery.sent)
