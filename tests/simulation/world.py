"""One schedule: the real workers on the in-memory log, a script of events, handlers and faults drawn from a seed.

What happens is recorded in `World.attempts` and `World.story`; `tests.simulation.check` says whether it may.
"""

from __future__ import annotations

import asyncio
import contextvars
import json
import random
from collections import Counter
from collections.abc import Callable, Collection, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import structlog
from tests.simulation.loop import PROCESS, Process, SimulatedLoop

from usher import Context, Event, Reject, Retry, RetryPolicy, on
from usher.delivery import Delivery, Headers, StoredRecord
from usher.engine.attempt import Attempts
from usher.engine.driver import Limits
from usher.engine.letters import OPEN_STATES, Letter, fold, pending_requests, request
from usher.engine.port import (
    Batch,
    Claim,
    LogConfig,
    LogUnavailable,
    Owner,
    Place,
    Position,
    dead_letter_topic,
    retry_topic,
)
from usher.engine.worker import Worker
from usher.handler import Handler, Router
from usher.metrics import Metrics
from usher.outcome import Hold, Unknown
from usher.testing.broker import Group, MemoryBroker
from usher.testing.log import MemoryLog

TOPIC = "events"
GROUP = "usher"
_IDLE = 6
EPOCH = 1_700_000_000.0
SESSION = 10.0
EXPIRY = 600.0
DRAIN = 3.0
SLOWEST_WRITE = 0.31
_DELAYS = (2, 10)
POLICY = RetryPolicy(_DELAYS, jitter=0.1)
FAULTS = ("crash", "graceful", "freeze", "outage", "refuse", "join", "compact", "ambush", "hand-back", "reset")
_QUIET = structlog.make_filtering_bound_logger(50)
_SILENT = structlog.wrap_logger(structlog.ReturnLogger(), wrapper_class=_QUIET, processors=[])


@dataclass(frozen=True)
class Plan:
    """Everything about a schedule that is not chance of the moment: what `shrink` makes smaller."""

    seed: int
    events: int
    users: int
    partitions: int
    handlers: int
    faults: tuple[str, ...]
    rounds: int
    replays: bool

    @classmethod
    def of(cls, seed: int) -> Plan:
        rng = random.Random(seed)
        faults = tuple(fault for fault in FAULTS if rng.random() < 0.35)
        return cls(
            seed=seed,
            events=rng.randrange(2, 12),
            users=rng.randrange(1, 4),
            partitions=rng.choice((1, 1, 2)),
            handlers=rng.choice((1, 1, 2)),
            faults=faults,
            rounds=rng.randrange(0, 7),
            replays=rng.random() < 0.4,
        )


@dataclass
class Attempt:
    """One attempt of a handler, as the world saw it."""

    process: str
    handler: str
    event: str
    number: int
    began: float
    replay: bool
    ended: float | None = None
    result: str = "running"
    not_before: float = 0.0
    """When the next attempt may begin at the earliest, by what the handler or the policy said."""


@dataclass(frozen=True)
class Sent:
    """An event as it lies in the log."""

    event: str
    user: str
    place: Place
    offset: int
    decodable: bool
    expired: bool


class World:
    """The broker, the processes, and the record of what they did."""

    def __init__(self, plan: Plan, loop: SimulatedLoop) -> None:
        self.plan = plan
        self.loop = loop
        self.rng = random.Random(plan.seed + 1)
        self.broker = _Broker(self)
        self.attempts: list[Attempt] = []
        self.story: list[str] = []
        self.sent: list[Sent] = []
        self.processes: list[tuple[Process, Worker, _Log, asyncio.Task[Any]]] = []
        self.running: Counter[tuple[str, str, str]] = Counter()
        self.violations: list[str] = []
        self.excused: set[tuple[str, str]] = set()
        self.replayed: Counter[tuple[str, str]] = Counter()
        self.handlers = [self._handler(f"h{number}") for number in range(plan.handlers)]
        self.ambush: tuple[str, bool] | None = None
        """Kill the first process that begins such a write: before it lands, or (True) after that, unheard."""
        self.ambushed: tuple[Process, _Log] | None = None
        self._script: dict[tuple[str, str], list[str]] = {}
        self._names = 0

    def now(self) -> float:
        return EPOCH + self.loop.time()

    def tell(self, what: str) -> None:
        self.story.append(f"{self.loop.time() - 1_000:8.3f}  {what}")

    # What happens

    async def play(self) -> None:
        """The whole schedule: events and faults, then everything is healed and comes to rest."""
        self.start()
        for index in range(self.plan.events):
            await self._append(index)
            await self._pause(2.0)
        for _ in range(self.plan.rounds):
            await self._pause(12.0)
            await self._fault()
            if self.plan.replays and self.rng.random() < 0.5:
                await self._ask_replay()
        await self._heal()
        if self.plan.replays:
            await self._ask_replay()
        await self._rest()
        await self._stop_all()

    def start(self) -> None:
        self._names += 1
        process = Process(f"w{self._names}")
        self.tell(f"{process.name} starts")
        log = _Log(self, process)
        worker = self._worker(log)
        task = self.loop.spawn(process, self._life(worker, log))
        self.processes.append((process, worker, log, task))

    async def _life(self, worker: Worker, log: MemoryLog) -> None:
        while True:
            try:
                await worker.run()
            except LogUnavailable:
                await asyncio.sleep(0.5)
                continue
            await log.close()
            return

    def _worker(self, log: MemoryLog) -> Worker:
        metrics, unused = Metrics(), cast("Any", None)
        attempts = Attempts(
            router=Router(self.handlers, ["admin_api"]),
            sender=unused,
            http=unused,
            settings={},
            policy=POLICY,
            metrics=metrics,
            logger=_SILENT,
            now=self.now,
            rng=self.rng,
        )
        limits = Limits(
            records=self.rng.choice((4, 100)),
            per_claim=self.rng.choice((4, 100)),
            intake_stops=self.rng.choice((3, 75)),
            per_lane=self.rng.choice((1, 3)),
            read=self.rng.choice((1, 3, 100)),
            drain=DRAIN,
        )
        return Worker(log, attempts, group=GROUP, metrics=metrics, logger=_SILENT, rng=self.rng, limits=limits)

    async def _append(self, index: int) -> None:
        rng, user = self.rng, f"u{self.rng.randrange(self.plan.users)}"
        event_id, decodable, expired = f"e{index}", rng.random() > 0.05, rng.random() < 0.05
        happened = self.now() - (EXPIRY * 2 if expired else 0)
        document = {
            "id": event_id,
            "type": "user.created",
            "payload": {"user": {"id": user}},
            "context": {"timestamp": happened, "user_id": user, "triggered_by": "admin_api", "app_id": "a"},
        }
        value = json.dumps(document).encode() if decodable else b"{not json " + event_id.encode()
        place = Place(TOPIC, self.broker.partition_of(user.encode()))
        offset = self.broker.put(place, user.encode(), value)
        self.tell(
            f"{event_id} of {user} is appended at {place.partition}@{offset}{'' if decodable else ', undecodable'}"
        )
        self.sent.append(Sent(event_id, user, place, offset, decodable, expired))
        for handler in self.handlers:
            self._script[handler.name, event_id] = self._behaviour()

    def _behaviour(self) -> list[str]:
        rng = self.rng
        if rng.random() < 0.5:
            return []
        if rng.random() < 0.1:
            return ["reject"]
        kinds = ("fail", "fail", "later", "hold", "hang", "stubborn", "unknown", "slow")
        return [rng.choice(kinds) for _ in range(rng.randrange(1, 5))]

    def _handler(self, name: str) -> Handler:
        async def act(event: Event, ctx: Context) -> None:
            await self._act(name, event, ctx)

        act.__name__ = name
        return on("user.created", timeout=5, expires_after=EXPIRY)(act)

    async def _act(self, name: str, event: Event, ctx: Context) -> None:
        process = PROCESS.get()
        assert process is not None
        user = event.user.id or ""
        attempt = Attempt(process.name, name, event.id, ctx.attempt, self.now(), replay=False)
        self.attempts.append(attempt)
        lane = (process.name, name, user)
        if self.running[lane]:
            self.violations.append(f"two at once: {name} for {user} in {process.name}, the second is {event.id}")
        if event.context.timestamp is not None and event.context.timestamp + EXPIRY < self.now():
            self.violations.append(f"too late: {name} ran for {event.id}")
        self.running[lane] += 1
        try:
            await self._behave(name, event.id, ctx)
        except BaseException as error:
            attempt.result = type(error).__name__
            attempt.not_before = self.now() + _least_wait(error, ctx.attempt)
            raise
        else:
            attempt.result = "done"
        finally:
            attempt.ended = self.now()
            self.running[lane] -= 1
            self.tell(f"{process.name} {name}({event.id}) attempt {ctx.attempt}: {attempt.result}")

    async def _behave(self, name: str, event: str, ctx: Context) -> None:
        script = self._script[name, event]
        how = script.pop(0) if script else "done"
        await asyncio.sleep(self.rng.choice((0, 0, 0.01, 1.0)))
        if how == "reject":
            raise Reject("no")
        if how == "fail":
            raise RuntimeError("failed")
        if how == "later":
            raise Retry("busy", after=self.rng.choice((0.5, 7, 30)))
        if how == "hold":
            raise Hold("paused", after=3)
        if how == "unknown":
            raise Unknown("no answer", otherwise="resend")
        if how == "slow":
            await asyncio.sleep(4)
        if how == "hang":
            await asyncio.sleep(10_000)
        if how == "stubborn":
            try:
                await asyncio.sleep(10_000)
            except asyncio.CancelledError:
                await asyncio.sleep(4)
                raise RuntimeError("would not be cancelled") from None

    # Faults

    async def _fault(self) -> None:
        if not self.plan.faults:
            return
        kind = self.rng.choice(self.plan.faults)
        alive = [entry for entry in self.processes if not entry[0].dead and not entry[0].frozen and not entry[3].done()]
        if kind == "outage":
            self.tell("the log is unavailable")
            self.broker.unavailable = True
            await self._pause(8.0)
            self.broker.unavailable = False
            self.broker.ring()
            self.tell("the log is back")
        elif kind == "refuse":
            self.broker.fail_next(
                self.rng.randrange(1, 3), LogUnavailable("refused"), lands_after=self.rng.choice((None, 0.5))
            )
            self.tell("the next writes are refused")
        elif kind == "compact":
            self.broker.compact(retry_topic(GROUP, TOPIC))
            self.tell("the retry topic is compacted")
        elif kind == "hand-back":
            self.tell("all claims are taken back and dealt anew")
            self.broker.deal_anew()
        elif kind == "ambush":
            await self._lie_in_wait()
        elif kind == "reset":
            await self._reset()
        elif kind == "join" and len(alive) < 3:
            self.start()
        elif alive:
            process, worker, log, task = self.rng.choice(alive)
            if kind == "crash":
                await self._crash(process, log)
            elif kind == "graceful":
                await self._stop(process, worker, task)
            elif kind == "freeze":
                await self._freeze(process, log)
        if not any(not p.dead and not t.done() for p, _, _, t in self.processes):
            await self._pause(3.0)
            self.start()

    async def _lie_in_wait(self) -> None:
        self.ambush = (self.rng.choice(("park", "tombstone", "letter", "commit")), self.rng.random() < 0.5)
        for _ in range(40):
            await asyncio.sleep(0.25)
            if self.ambushed is not None:
                break
        self.ambush = None
        if self.ambushed is not None:
            _, log = self.ambushed
            self.ambushed = None
            await self._replace(log)

    async def strike(self, moment: str, process: Process, log: _Log, *, landed: bool) -> None:
        """A write of *process* begins, or has *landed*: if that is what was lain in wait for, it ends here."""
        if self.ambush != (moment, landed) or process.dead or process.frozen:
            return
        self.ambush, self.ambushed = None, (process, log)
        self.excuse(process)
        process.dead = True
        self.tell(f"{process.name} is killed {'after' if landed else 'before'} a {moment} is written")
        await asyncio.get_running_loop().create_future()

    async def _reset(self) -> None:
        """Somebody sets an offset back while no worker runs; the metadata that was committed with the old one stays."""
        for process, worker, _, task in self.processes:
            if not process.dead and not process.frozen and not task.done():
                await self._stop(process, worker, task)
        known = self.broker.group(GROUP).committed
        for place, position in list(known.items()):
            back = max(0, position.next - self.rng.randrange(3))
            known[place] = Position(back, position.mark)
            self.tell(f"the offset of {place.partition} is set from {position.next} to {back}")
            for sent in self.sent:
                if sent.place == place and sent.offset >= back:
                    self.excused |= {(handler.name, sent.event) for handler in self.handlers}

    async def _crash(self, process: Process, log: _Log) -> None:
        self.excuse(process)
        process.dead = True
        self.tell(f"{process.name} is killed")
        await self._replace(log)

    async def _replace(self, log: _Log) -> None:
        await self._pause(1.0)
        self.start()
        await asyncio.sleep(self.rng.random() * SESSION)
        self.broker.leave(log)

    async def _stop(self, process: Process, worker: Worker, task: asyncio.Task[Any]) -> None:
        self.tell(f"{process.name} is asked to stop")
        worker.stop()
        await asyncio.wait([task], timeout=60)
        self.tell(f"{process.name} has stopped")
        self.excuse(process, only_running=True)
        process.dead = True

    async def _freeze(self, process: Process, log: _Log) -> None:
        self.excuse(process)
        process.frozen = True
        self.tell(f"{process.name} freezes")
        if self.rng.random() < 0.7:
            await asyncio.sleep(SESSION)
            self.broker.evict(log)
            self.tell(f"{process.name} is evicted")
            if not any(not p.dead and not p.frozen and not t.done() for p, _, _, t in self.processes):
                self.start()
            await self._pause(20.0)
            self.loop.thaw(process)
            self.tell(f"{process.name} thaws")
            await self._pause(2.0)
            self.excuse(process)
            await self.broker.readmit(log)
            self.tell(f"{process.name} has joined again")
        else:
            await self._pause(5.0)
            self.loop.thaw(process)
            self.tell(f"{process.name} thaws")

    def excuse(self, process: Process, *, only_running: bool = False) -> None:
        """What a fault may repeat: what is in flight there, and what ended there since the last commit."""
        for known, worker, *_ in self.processes:
            if known is process and not only_running:
                flights = [f.delivery for shard in worker._shards.values() for f in shard.flights.values()]
                self.excused |= {(delivery.handler, delivery.identity.id) for delivery in flights}
        horizon = self.now() - (0 if only_running else 3.0)
        for attempt in self.attempts:
            if attempt.process == process.name and (
                attempt.ended is None or (not only_running and attempt.ended >= horizon)
            ):
                self.excused.add((attempt.handler, attempt.event))

    def excuse_ended_since(self, process: Process, horizon: float) -> None:
        """What ended so late in a drain that it could not be written down before the claim went."""
        for attempt in self.attempts:
            if attempt.process == process.name and attempt.ended is not None and attempt.ended >= horizon:
                self.excused.add((attempt.handler, attempt.event))

    # Operators

    async def _ask_replay(self) -> None:
        pending = self.requests()
        asked = {delivery.replay.letter for delivery in pending if delivery.replay}
        for letter in self.letters():
            if letter.state in OPEN_STATES and letter.id not in asked and self.rng.random() < 0.7:
                key, value, headers = request(letter, id=f"r{len(self.story)}-{letter.id}")
                place = Place(retry_topic(GROUP, TOPIC), letter.partition)
                self.broker.put(place, key.encode(), value, headers)
                self.replayed[letter.handler, letter.delivery.identity.id] += 1
                self.tell(f"an operator asks for a replay of {letter.handler}({letter.delivery.identity.id})")

    # Rest

    async def _heal(self) -> None:
        self.broker.unavailable = False
        self.broker.ring()
        self.tell("all is well from here on")
        for process, _, log, task in self.processes:
            if process.frozen:
                self.loop.thaw(process)
            if process.dead or task.done():
                self.broker.leave(log)
        if not any(not p.dead and not t.done() for p, _, _, t in self.processes):
            self.start()

    async def _rest(self) -> None:
        for _ in range(400):
            await asyncio.sleep(5)
            if self._at_rest():
                return
        self.violations.append(
            f"never at rest: parked {list(self.parked())}, requests {len(self.requests())}, committed {self.committed()}"
        )

    async def _stop_all(self) -> None:
        for process, worker, _, task in self.processes:
            if not process.dead and not task.done():
                worker.stop()
                await asyncio.wait([task], timeout=60)
                if not task.done():
                    self.violations.append(f"{process.name} does not stop")
                elif task.exception() is not None:
                    self.violations.append(f"{process.name} ended with {task.exception()!r}")

    def _at_rest(self) -> bool:
        committed = self.committed()
        ends = {number: log.end for number, log in enumerate(self.broker.topic(TOPIC))}
        alive = {process.name for process, *_ in self.processes if not process.dead}
        busy = any(count and process in alive for (process, *_), count in self.running.items())
        return committed == ends and not self.parked() and not self.requests() and not busy

    def committed(self) -> dict[int, int]:
        known = self.broker.group(GROUP).committed
        return {
            number: known[Place(TOPIC, number)].next
            for number in range(self.plan.partitions)
            if Place(TOPIC, number) in known
        }

    def parked(self) -> dict[str, Delivery]:
        table: dict[str, Delivery] = {}
        for log in self.broker.topic(retry_topic(GROUP, TOPIC)):
            for record in log.records:
                key = (record.key or b"").decode()
                if key.startswith("replay/"):
                    continue
                if record.value is None:
                    table.pop(key, None)
                else:
                    table[key] = Delivery.from_record(record)
        return table

    def requests(self) -> Sequence[Delivery]:
        found: list[Delivery] = []
        for log in self.broker.topic(retry_topic(GROUP, TOPIC)):
            found += pending_requests(log.records).values()
        return found

    def letters(self) -> Sequence[Letter]:
        letters: dict[str, Letter] = {}
        for log in self.broker.topic(dead_letter_topic(GROUP, TOPIC)):
            fold(log.records, letters)
        return list(letters.values())

    async def _pause(self, most: float) -> None:
        await asyncio.sleep(self.rng.random() * most)


def _least_wait(error: BaseException, attempt: int) -> float:
    if isinstance(error, Retry | Hold) and error.after is not None:
        return error.after
    return float(_DELAYS[min(attempt, len(_DELAYS)) - 1])


class _Broker(MemoryBroker):
    """A broker whose writes take time and outlive those who asked for them."""

    def __init__(self, world: World) -> None:
        super().__init__(partitions=world.plan.partitions, clock=world.now)
        self._world = world
        self.latency = lambda: world.rng.choice((0.0, 0.0, 0.005, 0.3))

    def put(self, place: Place, key: bytes, value: bytes, headers: Any = ()) -> int:
        """Append from outside, at once."""
        log = self.partition(*place)
        log.records.append(
            StoredRecord(place.topic, place.partition, log.end, int(self.clock() * 1000), key, value, tuple(headers))
        )
        log.end += 1
        self.ring()
        return log.end - 1

    def _deal(self, group: Group) -> None:
        outside = contextvars.copy_context()  # who joins or leaves does not take the broker with it
        outside.run(PROCESS.set, None)
        outside.run(super()._deal, group)

    def deal_anew(self) -> None:
        self._deal(self.group(GROUP))

    async def attempt(self, land: Callable[[], None]) -> None:
        await asyncio.shield(self._world.loop.spawn(None, super().attempt(land)))


@dataclass(eq=False)
class _Owner:
    """A worker seen from the broker: calls run in the worker's process, which may be frozen."""

    world: World
    process: Process
    owner: Owner
    calls: list[Any] = field(default_factory=list)

    async def claimed(self, claims: Sequence[Claim]) -> None:
        self.world.tell(f"{self.process.name} gets {[claim.partition for claim in claims]}")
        await asyncio.wait([self.world.loop.spawn(self.process, self.owner.claimed(claims))], timeout=0.5)

    async def released(self, claims: Sequence[Claim]) -> None:
        world = self.world
        world.tell(f"{self.process.name} lets go of {[claim.partition for claim in claims]}")
        if self.process.dead:
            return
        began = world.now()
        await asyncio.shield(world.loop.spawn(self.process, self.owner.released(claims)))
        # What outlives the drain may run again elsewhere, and what the log would not let commit or write down in time.
        world.excuse(self.process, only_running=not world.broker.unavailable)
        if world.now() - began >= DRAIN:
            world.excuse_ended_since(self.process, world.now() - SLOWEST_WRITE)


class _Log(MemoryLog):
    def __init__(self, world: World, process: Process) -> None:
        config = LogConfig(group=GROUP, topics=(TOPIC,), start_from="earliest", drain=5.0)
        super().__init__(config, world.broker)
        self._world = world
        self._process = process

    async def open(self, owner: Owner) -> None:
        await super().open(_Owner(self._world, self._process, owner))

    async def read(self, claims: Collection[Claim], limit: int, wait: float) -> Sequence[Batch]:
        """Idle polls are what a schedule would spend most of its steps on: whatever happens wakes it anyway."""
        return await super().read(claims, limit, wait * _IDLE)

    async def park(self, claim: Claim, key: str, value: bytes, headers: Headers) -> None:
        await self._exposed("park", super().park(claim, key, value, headers))

    async def unpark(self, claim: Claim, key: str, headers: Headers = ()) -> None:
        await self._exposed("tombstone", super().unpark(claim, key, headers))

    async def bury(self, claim: Claim, key: bytes | None, value: bytes | None, headers: Headers) -> None:
        await self._exposed("letter", super().bury(claim, key, value, headers))

    async def commit(self, positions: Mapping[Claim, Position]) -> None:
        await self._exposed("commit", super().commit(positions))

    async def _exposed(self, moment: str, write: Coroutine[Any, Any, None]) -> None:
        try:
            await self._world.strike(moment, self._process, self, landed=False)
            await write
        finally:
            write.close()
        await self._world.strike(moment, self._process, self, landed=True)
