"""The receipts of what has ended: each is made as the delivery ends, and is on the event log before anything there says that it has.

Hides the HMAC in the place of an address, and that one write files all that has ended by then.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from functools import partial

from usher.engine.claim_state import ClaimState
from usher.engine.dead_letters import EXPIRED
from usher.engine.lanes import InFlight
from usher.engine.writes import Writes
from usher.event import Event, is_read
from usher.eventlog.errors import LogUnavailable, TooLarge
from usher.handler import Handler
from usher.metrics import Metrics
from usher.outcome import Dead, Done
from usher.receipts import Receipt, State, pack
from usher.receipts.keys import AddressKeys
from usher.redact import scrub

_AGAIN = 1.0
_PATIENCE = 3.0
"""Seconds that a commit waits for receipts: it may be about other claims, too, and be the last one before they go."""
_OF_DEAD: Mapping[str, State] = {EXPIRED: "expired", "unknown-outcome": "unknown"}
"""The reasons of dead letters that are a state of their own."""

FindKeys = Callable[[], Awaitable[AddressKeys]]
"""Finds the keys for the HMAC of addresses. Raises `LogUnavailable`."""


@dataclass(eq=False, slots=True)
class Receipts:
    """Makes the receipts of a worker, and files them. Without *find_keys* there are none."""

    writes: Writes
    handlers: Mapping[str, Handler]
    metrics: Metrics
    now: Callable[[], float]
    find_keys: FindKeys | None = None
    _keys: AddressKeys | None = field(default=None, init=False)

    async def begin(self, state: ClaimState) -> None:
        """Find the keys, before anything of a claim can end. Returns without them once the claim is about to go."""
        while self.find_keys is not None and self._keys is None and state.releasing is None:
            try:
                self._keys = await self.find_keys()
            except LogUnavailable as error:
                self.writes.refused(error)
                await asyncio.sleep(_AGAIN)

    def ended(self, state: ClaimState, in_flight: InFlight, verdict: Done | Dead) -> None:
        """Make the receipt of a delivery that has ended."""
        attempts = in_flight.delivery.attempt
        if isinstance(verdict, Dead):
            became: State = _OF_DEAD.get(verdict.reason, "dead")
            reason = verdict.reason
        else:
            attempts += in_flight.limit is not None
            reason = verdict.code or verdict.reason
            if in_flight.accepted is not None:
                became = "sent"
            elif in_flight.outcome is not None:
                became = "replayed"
            else:
                became = "skipped" if verdict.label == "skipped" else "done"
        self._make(state, in_flight, became, reason, attempts)

    def sent(self, state: ClaimState, in_flight: InFlight) -> None:
        """Make the receipt of a message that was sent by an attempt which failed after that: the delivery has not ended."""
        self._make(state, in_flight, "sent", "", in_flight.delivery.attempt)

    def _make(self, state: ClaimState, in_flight: InFlight, became: State, reason: str, attempts: int) -> None:
        keys = self._keys
        if keys is None:
            return
        delivery, message = in_flight.delivery, in_flight.message
        event = message.event if message else in_flight.event
        handler = self.handlers.get(delivery.handler)
        origin, at, replay = delivery.origin, int(self.now() * 1000), delivery.replay
        channel, address = (message.channel, message.address) if message else ("", "")
        receipt = Receipt(
            topic=origin.topic,
            topic_id=origin.topic_id,
            partition=origin.partition,
            offset=origin.offset,
            handler=delivery.handler,
            replay=replay.id if replay else "",
            event_id=keys.kept(delivery.uid.id),
            type=event.type if event else "",
            source=delivery.uid.source,
            tenant=delivery.uid.tenant,
            user_id=keys.kept(event.user.id or event.context.user_id or "") if event else "",
            username=keys.kept(_username(event, became)),
            stored_at=origin.timestamp,
            state=became,
            reason=_text(reason),
            channel=channel,
            provider=message.provider if message else "",
            provider_id=message.provider_id if message else "",
            template=_text(message.template) if message else "",
            language=message.language if message else "",
            address=keys.address_hmac(address, channel) if address else b"",
            key=keys.name,
            attempts=attempts,
            began=at if delivery.first_failed_at is None else delivery.first_failed_at,
            at=at,
            sends=handler is None or handler.sends,
        )
        state.unfiled.add(receipt)
        self.metrics.receipts.labels(receipt.handler, receipt.channel, receipt.provider, became).inc()

    async def filed(self, state: ClaimState) -> bool:
        """File all that has ended in a claim, however long that takes. Returns whether it is filed; if not, the claim is gone."""
        return await self.writes.durable(state, partial(self.file, state), least=True)

    async def file_soon(self, state: ClaimState) -> None:
        """As `file`, but without a long wait for an event log that does not answer.

        Raises:
            TooLarge, LogUnavailable: as `file`.
        """
        try:
            async with asyncio.timeout(_PATIENCE):
                await self.file(state)
        except TimeoutError:
            claim = state.claim
            state.unfiled.trouble = (
                f"receipts of {claim.topic}/{claim.partition} are not acknowledged in {_PATIENCE:g} s"
            )
            raise LogUnavailable(state.unfiled.trouble) from None

    async def file(self, state: ClaimState) -> None:
        """File all that has ended in a claim. One write takes what has ended while the one before was under way.

        Raises:
            TooLarge, LogUnavailable: it is tried again with the next call.
        """
        unfiled, wanted = state.unfiled, state.unfiled.made
        while unfiled.filed < wanted:
            async with unfiled.turn:
                if receipts := unfiled.receipts[:]:
                    try:
                        await self.writes.event_log.file(state.claim, pack(receipts))
                    except (TooLarge, LogUnavailable) as error:
                        unfiled.trouble = scrub(error)
                        raise
                    del unfiled.receipts[: len(receipts)]
                    unfiled.trouble = ""


def _text(given: object) -> str:
    """Return the text that a handler has *given*: it may have given something else."""
    return given if isinstance(given, str) else scrub(given)


def _username(event: Event | None, became: State) -> str:
    """Return the user's name. Where no message was to be sent, an event that nobody has looked into is not read for it alone."""
    if event is None or (became == "done" and not is_read(event)):
        return ""
    return event.user.username or ""
