"""The circuit breaker in front of a provider: while the provider is of no use, deliveries are held and burn no attempts.

It pauses the channel for two reasons. *provider-refused*: the provider refused us, not the message (credentials, quota,
suspension); one delivery a minute probes, and the first one that is sent ends the pause. *circuit*: ten failures in a row
(transient, or no answer at all); one delivery every five seconds probes, and any verdict about its message ends the pause.

Some refusals of us may be about the message after all. The first one after a message that was sent holds this message alone;
a second one in a row pauses the channel. If others are sent, and this message is refused again, it is rejected. A message that
was refused probes only after those that wait and were not: one user's number stops nobody else.

It hides when to probe, and how held deliveries are spread, so that thousands do not come back in one moment.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, Literal, Protocol, TypeVar

import structlog

from usher.channels import Progress, ProviderRefused
from usher.metrics import Metrics
from usher.outcome import Hold, Reject, Retry, Unknown

Message_contra = TypeVar("Message_contra", bound="_Message", contravariant=True)
Reason = Literal["provider-refused", "circuit"]

PROBE_EVERY: dict[Reason, float] = {"provider-refused": 60.0, "circuit": 5.0}
"""Seconds between probes."""
PAUSES_AFTER = 10
"""Failures in a row that pause the channel."""
_CROWD = 5.0
"""Seconds in which at most as many held deliveries come back as are sent at once: also behind a slow provider few of them
wait for a turn."""
_MOST_SPREAD = 300.0
_PROBE_PATIENCE = 1.0
_BEHIND_OTHERS = 30.0
"""Seconds that a message which was refused leaves to others for the probe."""
_MOST_REFUSED = 10_000

_logger = structlog.get_logger(__name__)


class _Message(Protocol):
    @property
    def idempotency_key(self) -> str: ...


class _Provider(Protocol[Message_contra]):
    name: str

    async def send(self, message: Message_contra, progress: Progress, /) -> None: ...


@dataclass(slots=True)
class _Pause:
    """Why nothing is sent, and when the next probe is due. *held* counts deliveries since the last probe.

    *others_wait*: some of them were never refused.
    """

    reason: Reason
    said: str
    next_probe: float
    probing: bool = False
    held: int = 0
    others_wait: bool = False


class CircuitBreaker(Generic[Message_contra]):
    """A provider behind its circuit breaker; it is a provider itself. *channel* (``email``, ``sms``) labels the metric and the log lines.

    *at_once* is how many messages the worker sends at once, *clock* is monotonic, in seconds.
    """

    def __init__(
        self,
        provider: _Provider[Message_contra],
        channel: str,
        metrics: Metrics,
        at_once: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.name = provider.name
        self._provider = provider
        self._channel = channel
        self._metrics = metrics
        self._spacing = _CROWD / at_once
        self._clock = clock
        self._failures = 0
        self._newest_sent = float("-inf")
        self._refused: dict[str, float] = {}
        """By idempotency key, when a message was first refused as if the fault were ours."""
        self._trusted = False
        """Whether a message was sent since the last such refusal."""
        self._resumed_at = float("-inf")
        self._pause: _Pause | None = None
        for reason in PROBE_EVERY:
            metrics.channel_paused.labels(channel, reason).set(0)

    async def send(self, message: Message_contra, progress: Progress, /) -> None:
        """Send, if the channel is not paused or this is the probe.

        Raises:
            Hold: the channel is paused, also when this very message made it so.
            Retry, Reject, Unknown: as the provider says.
        """
        pause = self._pause
        if pause is None:
            await self._ask(message, progress, probe=False)
            return
        now, key = self._clock(), message.idempotency_key
        if pause.probing or now < self._turn(pause, key):
            raise self._hold(pause, key, now)
        pause.probing, pause.held, pause.others_wait = True, 0, False
        pause.next_probe = now + PROBE_EVERY[pause.reason]
        try:
            await self._ask(message, progress, probe=True)
        finally:
            pause.probing = False

    async def _ask(self, message: Message_contra, progress: Progress, *, probe: bool) -> None:
        start = self._clock()
        outcome = "unknown"  # what it is when it is cancelled
        try:
            await self._provider.send(message, progress)
            outcome = "done"
        except ProviderRefused as error:
            ending = self._refusal(error, message.idempotency_key, probe=probe)
            outcome = "permanent" if isinstance(ending, Reject) else "provider-refused"
            raise ending from None
        except Retry as error:
            outcome = "transient"
            self._failed(error.reason, start)
            raise
        except Reject:
            outcome = "permanent"
            self._answered(probe=probe, sent=False)
            raise
        except Unknown as error:
            self._failed(error.reason, start)
            raise
        else:
            self._newest_sent, self._trusted = max(self._newest_sent, start), True
            self._refused.pop(message.idempotency_key, None)
            self._answered(probe=probe, sent=True)
        finally:
            self._metrics.send_seconds.labels(self.name, outcome).observe(self._clock() - start)

    def _refusal(self, error: ProviderRefused, key: str, *, probe: bool) -> Hold | Reject:
        """What follows for the message with this *key* when the provider refuses us. Pauses the channel, unless others get through."""
        now, trusted = self._clock(), self._trusted
        if len(self._refused) >= _MOST_REFUSED and key not in self._refused:
            del self._refused[next(iter(self._refused))]
        first = self._refused.setdefault(key, now)
        if error.doubtful and first < self._newest_sent:  # one that was begun after it has been sent
            del self._refused[key]
            self._answered(probe=probe, sent=False)
            return Reject(error.reason)
        self._trusted = False
        if error.doubtful and trusted:
            self._answered(probe=probe, sent=False)
            return Hold(f"{error.reason} (others were sent just before)", after=PROBE_EVERY["provider-refused"])
        pause = self._begin_pause("provider-refused", error.reason)
        pause.probing = pause.probing and not probe
        return self._hold(pause, key, now)

    def _failed(self, said: str, began: float) -> None:
        if began < self._resumed_at:
            return  # news of the time before the pause
        self._failures += 1
        if self._pause is None and self._failures >= PAUSES_AFTER:
            self._begin_pause("circuit", said)

    def _answered(self, *, probe: bool, sent: bool) -> None:
        self._failures = 0
        # Only a probe ends the pause: what was under way when it began is news of the time before.
        if probe and self._pause is not None and (sent or self._pause.reason == "circuit"):
            self._end_pause(self._pause)

    def _begin_pause(self, reason: Reason, said: str) -> _Pause:
        if self._pause is not None and self._pause.reason == reason:
            return self._pause
        self._end_pause(self._pause, silently=True)
        pause = self._pause = _Pause(reason, said, self._clock() + PROBE_EVERY[reason])
        self._metrics.channel_paused.labels(self._channel, reason).set(1)
        hint = (
            "nothing is lost: deliveries wait, and one a minute is tried; mend what the provider names, nothing else is needed"
            if reason == "provider-refused"
            else "nothing is lost: deliveries wait, and one is tried every 5 s; nothing needs to be done unless it lasts"
        )
        _logger.error("channel paused", channel=self._channel, provider=self.name, reason=reason, said=said, hint=hint)
        return pause

    def _end_pause(self, pause: _Pause | None, *, silently: bool = False) -> None:
        if pause is None:
            return
        self._pause, self._resumed_at = None, self._clock()
        self._metrics.channel_paused.labels(self._channel, pause.reason).set(0)
        if not silently:
            _logger.info("channel resumed", channel=self._channel, provider=self.name, reason=pause.reason)

    def _turn(self, pause: _Pause, key: str) -> float:
        """When the message with this *key* may probe."""
        return pause.next_probe + (_BEHIND_OTHERS if pause.others_wait and key in self._refused else 0.0)

    def _hold(self, pause: _Pause, key: str, now: float) -> Hold:
        wait = max(self._turn(pause, key) - now, 0.0) if not pause.probing else _PROBE_PATIENCE
        pause.others_wait = pause.others_wait or key not in self._refused
        wait += min(pause.held * self._spacing, _MOST_SPREAD)
        pause.held += 1
        return Hold(f"{self._channel} is paused ({pause.reason}): {pause.said}", after=wait)
