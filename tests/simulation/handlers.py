"""The handlers of a schedule: what each attempt will do is drawn when its event is appended, and each one is recorded.

Hides the ways in which a handler fails. Records at once what may never happen: two attempts for one user at the same time in
a process, and a message that comes too late.
"""

from __future__ import annotations

import asyncio
import contextvars
import random
from collections import Counter
from collections.abc import Callable

from tests.simulation.history import Attempt, History
from tests.simulation.loop import PROCESS, Process
from tests.simulation.plan import Family

from usher import Context, Event, Reject, Retry, RetryPolicy, on
from usher.delivery import Delivery
from usher.engine.attempt import Attempts
from usher.engine.lanes import InFlight
from usher.handler import Handler
from usher.outcome import Hold, Unknown, Verdict

EXPIRY = 600.0
_DELAYS = (2, 10)
POLICY = RetryPolicy(_DELAYS, jitter=0.1)
TIMEOUT = 5
MOST_DEATHS = 6
"""So many workers may one delivery end, see docs/parking.md."""
_REQUEST: contextvars.ContextVar[str] = contextvars.ContextVar("request", default="")


class WatchedAttempts(Attempts):
    """Attempts that let the handlers know whether they are replays."""

    async def make(self, in_flight: InFlight) -> tuple[Verdict, Delivery]:
        _REQUEST.set(in_flight.delivery.replay.id if in_flight.delivery.replay else "")
        return await super().make(in_flight)


class Handlers:
    """*count* handlers that follow their scripts, and record in *history* what they did. *now* gives Unix seconds."""

    def __init__(
        self,
        count: int,
        family: Family,
        rng: random.Random,
        history: History,
        *,
        now: Callable[[], float],
        say: Callable[[str], None],
        end: Callable[[Process], None],
    ) -> None:
        self.all = [self._handler(f"h{number}") for number in range(count)]
        self.running: Counter[tuple[str, str, str]] = Counter()
        """How many attempts run for (process, handler, user)."""
        self._family = family
        self._rng = rng
        self._history = history
        self._now = now
        self._say = say
        self._end_process = end
        self._deadly = False
        self._script: dict[tuple[str, str], list[str]] = {}

    def prepare(self, event: str) -> None:
        """Decide how each handler's attempts at *event* will end; once there is nothing more to fail, it works."""
        for handler in self.all:
            self._script[handler.name, event] = self._behaviour()

    def _behaviour(self) -> list[str]:
        rng = self._rng
        if not self._deadly and rng.random() < self._family.deadly:
            self._deadly = True
            return ["deadly"] * (MOST_DEATHS + 1)
        if rng.random() >= self._family.failing:
            return []
        if rng.random() < 0.1:
            return ["reject"]
        return [rng.choice(self._family.kinds) for _ in range(rng.randrange(1, 5))]

    def _handler(self, name: str) -> Handler:
        async def act(event: Event, ctx: Context) -> None:
            await self._act(name, event, ctx)

        act.__name__ = name
        return on("user.created", timeout=TIMEOUT, expires_after=EXPIRY)(act)

    async def _act(self, name: str, event: Event, ctx: Context) -> None:
        process = PROCESS.get()
        assert process is not None
        assert ctx._origin is not None
        partition, offset = ctx._origin.partition, ctx._origin.offset
        tenure = self._history.tenure(process.name, partition)
        where, topic_id = (partition, offset, tenure), ctx._origin.topic_id
        attempt = Attempt(process.name, name, event.id, ctx.attempt, *where, self._now(), topic_id, _REQUEST.get())
        self._history.attempts.append(attempt)
        lane = (process.name, name, event.user.id or "")
        if self.running[lane]:
            self._history.violate(f"two at once: {name} for {lane[2]} in {process.name}, the second is {event.id}")
        # a replay goes before what its lane has, whatever becomes of that
        if not attempt.request and (tenure.claim, attempt.short) in self._history.parking:
            self._history.violate(f"two at once: {name}({event.id}) runs while it is being parked in {process.name}")
        now = self._now() + process.wrong_by
        if event.context.timestamp is not None and event.context.timestamp + EXPIRY < now:
            self._history.violate(f"too late: {name} ran for {event.id}")
        self.running[lane] += 1
        try:
            await self._behave(name, event.id, process)
        except GeneratorExit:  # its process was killed, and Python has collected what is left of it: nothing happened
            raise
        except BaseException as error:
            attempt.result = type(error).__name__
            attempt.not_before = self._now() + _least_wait(error, ctx.attempt)
            self._end(attempt, lane)
            raise
        else:
            attempt.result = "done"
            self._end(attempt, lane)

    def _end(self, attempt: Attempt, lane: tuple[str, str, str]) -> None:
        attempt.ended = self._now()
        self.running[lane] -= 1
        self._say(f"{attempt.process} {attempt.handler}({attempt.event}) attempt {attempt.number}: {attempt.result}")

    async def _behave(self, name: str, event: str, process: Process) -> None:
        script = self._script[name, event]
        how = script.pop(0) if script else "done"
        await asyncio.sleep(self._rng.choice((0, 0, 0.01, 1.0)))
        match how:
            case "deadly":
                self._history.deaths[name, event] += 1
                self._end_process(process)
                await asyncio.get_running_loop().create_future()
            case "reject":
                raise Reject("no")
            case "fail":
                raise RuntimeError("failed")
            case "soon":
                raise Retry("busy", after=0.2)
            case "later":
                raise Retry("busy", after=self._rng.choice((0.5, 7, 30)))
            case "next year":
                raise Retry("busy", after=366 * 86_400)
            case "hold":
                raise Hold("paused", after=3)
            case "unknown":
                raise Unknown("no answer", otherwise="resend")
            case "slow":
                await asyncio.sleep(2.0 + 2.8 * self._rng.random())
            case "slow failure":
                await asyncio.sleep(2.0 + 2.8 * self._rng.random())
                raise RuntimeError("failed late")
            case "hang":
                await asyncio.sleep(10_000)
            case "stubborn":
                await _refuse_to_be_cancelled()


async def _refuse_to_be_cancelled() -> None:
    try:
        await asyncio.sleep(10_000)
    except asyncio.CancelledError:
        await asyncio.sleep(4)
        raise RuntimeError("would not be cancelled") from None


def _least_wait(error: BaseException, attempt: int) -> float:
    if isinstance(error, Retry | Hold) and error.after is not None:
        return error.after
    return float(_DELAYS[min(attempt, len(_DELAYS)) - 1])
