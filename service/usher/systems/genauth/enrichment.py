"""The look-ups that complete GenAuth's webhooks before they are stored. Hides how often and how long it looks for an answer."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import TypeVar

from usher.event import UNKNOWN, Event
from usher.outcome import Reject, Retry, Skip
from usher.systems.genauth.api import GenAuthApi
from usher.systems.genauth.feed import events_of
from usher.systems.genauth.source import PASSWORD_CHANGED, Repeats, who_made
from usher.systems.source import Arrival
from usher.systems.source import arrival as arrival_of

_T = TypeVar("_T")
_BEFORE, _AFTER = 300.0, 60.0
"""Seconds before and after a webhook in which an administrator's entry is searched: both clocks and the log may be late."""
_LATER = (2.0,)
"""Seconds until the audit log is read again, if it has no entry yet."""
_AGAIN = (0.5, 2.0)
"""Seconds until a failed look-up is tried again: by default GenAuth sends no webhook twice."""


@dataclass(slots=True)
class GenAuthEnrichment:
    """`System.enrich`: finds out who triggered an event, and which webhook calls are repeats.

    Args:
        api: None: no request can be made.
        repeats: the calls that this process has seen.
        now: gives Unix seconds.
        sleep: waits for so many seconds.
    """

    api: GenAuthApi | None
    repeats: Repeats
    now: Callable[[], float] = time.time
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep

    async def __call__(self, arrival: Arrival) -> Arrival:
        """Complete *arrival* by what can be found out.

        Raises:
            usher.outcome.Retry, usher.outcome.Hold: the API did not answer.
        """
        event = arrival.event
        if event is None:
            return arrival
        received = self.now()
        found = await self._by_audit_log(event, received)
        if found is not None:
            return found
        completed = self.repeats.joined(await self._by_profile(event), received)
        return arrival if completed is event else arrival_of(completed)

    async def _by_profile(self, event: Event) -> Event:
        """Find out who created a user, by the user's ``userSourceType``. Other fields of a webhook are the older, weaker sign."""
        sure = event.context.triggered_by_basis or ""
        user = event.user.id
        if self.api is None or user is None or event.type != "user.created":
            return event
        if event.context.triggered_by == "admin_api" or sure.startswith("userSourceType"):
            return event
        api = self.api
        try:
            profile = await self._patiently(lambda: api.profile(user))
        except (Skip, Reject) as refusal:
            return _decided(event, UNKNOWN, f"get-user gives no answer: {refusal.reason}")
        actor, basis = who_made(profile.get("userSourceType"), profile.get("registerSource"))
        return _decided(event, actor, f"get-user: {basis}")

    async def _by_audit_log(self, event: Event, received: float) -> Arrival | None:
        """Find the administrator's own entry about this change of a password. It replaces the webhook's event: its id is exact."""
        api = self.api
        if api is None or event.raw_type != PASSWORD_CHANGED or event.user.id is None:
            return None
        start, end = received - _BEFORE, received + _AFTER
        for wait in (0.0, *_LATER):
            if wait:
                await self.sleep(wait)
            entries = await self._patiently(lambda: api.audits(start, end)) or ()
            for found in reversed(events_of(entries, event.tenant)):
                change = found.event
                if change is not None and change.type == "password.reset" and change.user.id == event.user.id:
                    return found
        return None

    async def _patiently(self, ask: Callable[[], Awaitable[_T]]) -> _T:
        for wait in _AGAIN:
            try:
                return await ask()
            except Retry as trouble:
                if trouble.after is not None:
                    raise
                await self.sleep(wait)
            except Skip:  # a webhook may be quicker than what get-user reads
                await self.sleep(wait)
        return await ask()


def _decided(event: Event, actor: str, basis: str) -> Event:
    context = replace(event.context, triggered_by=actor, triggered_by_basis=basis)
    # Under the same id it would replace the audit log's entry, which knows the actor, and the poller would leave that out.
    known = event.id if actor != UNKNOWN else f"{event.id}-{UNKNOWN}"
    return replace(event, context=context, id=known)
