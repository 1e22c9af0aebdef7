"""One schedule: the real workers on the hostile log, with events, handlers, faults and an operator drawn from a seed.

What happens is recorded in `World.history` and `World.story`; `tests.simulation.check` says whether it may.
"""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import structlog
from tests.simulation.faults import Faults
from tests.simulation.handlers import EXPIRY, POLICY, Handlers, WatchedAttempts
from tests.simulation.history import History, Life, Sent, is_strange
from tests.simulation.hostile import GROUP, RETRY_TOPIC, TOPIC, HostileBroker, HostileLog
from tests.simulation.loop import Process, SimulatedLoop
from tests.simulation.memory import miscounted, too_much
from tests.simulation.plan import Plan
from tests.simulation.receipts import Filed

from usher.delivery import Delivery, StoredRecord
from usher.delivery.headers import read_delivery
from usher.engine.dead_letters import OPEN_STATES, REQUEST_PREFIX, DeadLetter, fold, pending_requests, request
from usher.engine.limits import Limits
from usher.engine.worker import Worker
from usher.eventlog.errors import LogUnavailable
from usher.eventlog.names import dead_letter_topic
from usher.eventlog.port import Claim, TopicPartition
from usher.handler import Router
from usher.metrics import Metrics
from usher.receipts.keys import AddressKeys

EPOCH = 1_700_000_000.0
DRAIN = 3.0
_MOST_RELEASE = 5.0
_STOP_WITHIN = 60.0
_QUIET = structlog.make_filtering_bound_logger(50)
_SILENT = structlog.wrap_logger(structlog.ReturnLogger(), wrapper_class=_QUIET, processors=[])


@dataclass(eq=False)
class Running:
    """A worker in its process."""

    process: Process
    worker: Worker
    log: HostileLog
    task: asyncio.Task[Any]
    limits: Limits

    @property
    def up(self) -> bool:
        return not self.process.dead and not self.task.done()


class World:
    """The broker, the processes, and the record of what they did."""

    def __init__(self, plan: Plan, loop: SimulatedLoop) -> None:
        self.plan = plan
        self.loop = loop
        self.rng = random.Random(plan.seed + 1)
        self.history = History()
        self.story: list[str] = []
        self.processes: list[Running] = []
        self.faults = Faults(self)
        known = (plan.family, self.rng, self.history)
        self.handlers = Handlers(plan.handlers, *known, now=self.now, say=self.say, end=self.faults.end)
        filed = Filed([handler.name for handler in self.handlers.all], self.history)
        self.broker = HostileBroker(
            loop, self.rng, plan.family, self.history, filed, partitions=plan.partitions, epoch=EPOCH
        )

    def now(self) -> float:
        return EPOCH + self.loop.time()

    def say(self, what: str) -> None:
        self.story.append(f"{self.loop.time() - 1_000:8.3f}  {what}")

    async def pause(self, most: float) -> None:
        await asyncio.sleep(self.rng.random() * most)

    # What happens

    async def play(self) -> None:
        """The whole schedule: events and faults, then everything is healed and comes to rest."""
        self.start()
        await asyncio.gather(self._append_all(), self._meddle())
        self._heal()
        if self.plan.replays:
            self._ask_replay()
        await self._rest()
        for running in self.processes:
            if running.up:
                await self.stop(running)

    async def _append_all(self) -> None:
        for index in range(self.plan.events):
            self._append(index)
            await self.pause(self.plan.family.pause)

    async def _meddle(self) -> None:
        """Faults, one after the other, and an operator between them."""
        for _ in range(self.plan.rounds):
            await self.pause(self.plan.family.between)
            await self.faults.strike()
            if self.plan.replays and self.rng.random() < 0.5:
                self._ask_replay()

    def _append(self, index: int) -> None:
        rng = self.rng
        if self.history.sent and rng.random() < self.plan.family.twice:
            self._append_again(rng.choice(self.history.sent))
        event, user = f"e{index}", f"u{rng.randrange(self.plan.users)}"
        chance = rng.random()
        decodable, ours = chance > 0.05, not 0.05 < chance < 0.15
        happened = self.now() - rng.choice((0,) * 17 + (EXPIRY - 1, EXPIRY - 8, EXPIRY * 2))
        document = {
            "id": event,
            "type": "user.created",
            "payload": {"user": {"id": user}},
            "context": {
                "timestamp": happened,
                "user_id": user,
                "triggered_by": "admin_api" if ours else "user",
                "app_id": "a",
            },
        }
        value = json.dumps(document).encode() if decodable else b"{not json " + event.encode()
        topic_partition = TopicPartition(TOPIC, self.broker.partition_of(user.encode()))
        record = self._produce(topic_partition, user.encode(), value)
        what = "" if decodable and ours else ", undecodable" if not decodable else ", not ours"
        self.say(f"{event} of {user} is appended at {topic_partition.partition}@{record.offset}{what}")
        self.history.sent.append(
            Sent(event, user, topic_partition, record.offset, decodable, ours, topic_id=self.broker.topic_id(TOPIC))
        )
        self.handlers.prepare(event)

    def _append_again(self, sent: Sent) -> None:
        """A producer that heard no answer repeats what is there already."""
        if not sent.decodable or sent.again or sent.topic_id != self.broker.topic_id(TOPIC):
            return
        partition = self.broker.partition(*sent.topic_partition)
        first = partition.records[sent.offset]
        record = self._produce(sent.topic_partition, first.key, first.value)
        self.say(f"{sent.event} of {sent.user} is appended again at {sent.topic_partition.partition}@{record.offset}")
        self.history.sent.append(
            Sent(
                sent.event,
                sent.user,
                sent.topic_partition,
                record.offset,
                ours=sent.ours,
                again=True,
                topic_id=sent.topic_id,
            )
        )

    def _produce(self, topic_partition: TopicPartition, key: bytes | None, value: bytes | None) -> StoredRecord:
        """Append a record of any producer. The clocks of some are ahead, and some give no time."""
        right = self.broker.clock
        if self.rng.random() < self.plan.family.ahead:
            at = self.rng.choice((right() + 1_800, right() + 30 * 86_400, -0.001))
            self.broker.clock = lambda: at
        try:
            return self.broker.put(topic_partition, key, value)
        finally:
            self.broker.clock = right

    def _ask_replay(self) -> None:
        pending = self.requests()
        asked = {delivery.replay.dead_letter for delivery in pending if delivery.replay}
        for dead_letter in self.dead_letters():
            if dead_letter.state in OPEN_STATES and dead_letter.id not in asked and self.rng.random() < 0.7:
                request_id = f"r{len(self.story)}-{dead_letter.id}"
                key, value, headers = request(dead_letter, request_id=request_id)
                self.history.requests[request_id] = dead_letter.id
                self.broker.put(TopicPartition(RETRY_TOPIC, dead_letter.partition), key.encode(), value, headers)
                self.say(f"an operator asks for a replay of {dead_letter.handler}({dead_letter.delivery.uid.id})")

    # Processes

    def alive(self) -> list[Running]:
        """The workers that are up and not frozen."""
        return [running for running in self.processes if running.up and not running.process.frozen]

    def up(self) -> bool:
        """Whether any worker is there, frozen or not."""
        return any(running.up for running in self.processes)

    def start(self) -> None:
        process = Process(f"w{len(self.processes) + 1}")
        self.say(f"{process.name} starts")
        self.history.lives[process.name] = Life(process.name)
        log, limits = HostileLog(self, process, _MOST_RELEASE), self._limits()
        worker = self._worker(process, log, limits)
        task = self.loop.spawn(process, self._life(worker, log))
        self.processes.append(Running(process, worker, log, task, limits))

    @staticmethod
    async def _life(worker: Worker, log: HostileLog) -> None:
        while True:
            try:
                await worker.run()
            except LogUnavailable:
                await asyncio.sleep(0.5)
                continue
            await log.close()
            return

    def _limits(self) -> Limits:
        small, rng = self.plan.family.small, self.rng
        per_claim = rng.choice((4, 8)) if small and rng.random() < 0.5 else 100
        return Limits(
            records=rng.choice((4, 8)) if small else rng.choice((4, 100)),
            per_claim=per_claim,
            intake_stops=per_claim * 3 // 4,
            per_lane=rng.choice((1, 3)),
            read=rng.choice((1, 3, 100)) if per_claim < 100 or not small else rng.choice((1, 3)),
            drain=DRAIN,
        )

    def _worker(self, process: Process, log: HostileLog, limits: Limits) -> Worker:
        metrics, unused = Metrics(), cast("Any", None)
        attempts = WatchedAttempts(
            router=Router(self.handlers.all, ["admin_api"]),
            sender=unused,
            http=unused,
            settings={},
            policy=POLICY,
            metrics=metrics,
            logger=_SILENT,
            now=lambda: self.now() + process.wrong_by,
            rng=self.rng,
        )

        async def keys() -> AddressKeys:
            return AddressKeys([await log.address_key()])

        return Worker(
            log,
            attempts,
            group=GROUP,
            metrics=metrics,
            logger=_SILENT,
            rng=self.rng,
            limits=limits,
            find_keys=keys,
        )

    async def stop(self, running: Running) -> None:
        """Ask a worker to end in good order, and see that it does."""
        process, task = running.process, running.task
        self.say(f"{process.name} is asked to stop")
        self.history.lives[process.name].stopping = self.now()
        for tenure in self.history.tenures:
            if tenure.process == process.name:
                tenure.asked_back = min(tenure.asked_back, self.now())
        running.worker.stop()
        await asyncio.wait([task], timeout=_STOP_WITHIN)
        if not task.done():
            self.history.violate(f"{process.name} does not stop")
        elif task.exception() is not None:
            self.history.violate(f"{process.name} ended with {task.exception()!r}")
        self.say(f"{process.name} has stopped")
        self.history.lives[process.name].ended = self.now()
        process.dead = True

    async def strike(self, moment: str, process: Process, log: HostileLog, *, landed: bool) -> None:
        await self.faults.meet(moment, process, log, landed=landed)

    def hand_over(self, process: Process, claims: Sequence[Claim]) -> None:
        """Remember what a process has in memory of *claims*, whose topic was made anew."""
        running = next(running for running in self.processes if running.process is process)
        states = running.worker.claims.states
        for state in (states[claim] for claim in claims if claim in states):
            for in_flight in state.in_flight.values():
                delivery = in_flight.delivery
                self.history.handed_over.append((process.name, self.now(), delivery.handler, delivery.uid.id))

    def look_into(self, process: Process) -> None:
        """Promises 5 and 7: see that the worker in *process* counts all that it reads, and that what it holds in memory has bounds."""
        running = next(running for running in self.processes if running.process is process)
        asked = len(self.history.requests)
        for sentence in too_much(running.worker, running.limits, self.plan.handlers, asked):
            self.history.violate(f"memory: {process.name} {sentence}")
        for sentence in miscounted(running.worker, self.broker):
            self.history.violate(f"count: {process.name} {sentence}")

    # Rest

    def _heal(self) -> None:
        self.broker.unavailable = False
        self.broker.refusals.clear()
        self.broker.ring()
        self.say("all is well from here on")
        for running in self.processes:
            gone = running.process.dead or running.task.done()
            if gone and running.log in self.broker.group(GROUP).members:
                self.broker.leave(running.log)
        if not self.up():
            self.start()

    async def _rest(self) -> None:
        for _ in range(200):
            await asyncio.sleep(5)
            if self._at_rest():
                return
        self.history.violate(
            f"never at rest: parked {list(self.parked())}, requests {len(self.requests())}, committed {self.committed()},"
            f" landing {self.broker.landing}"
        )

    def _at_rest(self) -> bool:
        committed = self.committed()
        ends = {number: log.end for number, log in enumerate(self.broker.topic(TOPIC))}
        alive = {running.process.name for running in self.processes if not running.process.dead}
        busy = any(count and process in alive for (process, *_), count in self.handlers.running.items())
        landing = self.broker.landing
        return committed == ends and not self.parked() and not self.requests() and not busy and not landing

    def committed(self) -> dict[int, int]:
        """The committed offsets by partition."""
        known = self.broker.group(GROUP).committed
        return {
            number: known[TopicPartition(TOPIC, number)].next
            for number in range(self.plan.partitions)
            if TopicPartition(TOPIC, number) in known
        }

    def parked(self) -> dict[str, Delivery]:
        table: dict[str, Delivery] = {}
        for log in self.broker.topic(RETRY_TOPIC):
            for record in log.records:
                key = (record.key or b"").decode()
                if key.startswith(REQUEST_PREFIX) or is_strange(record):
                    continue
                if record.value is None:
                    table.pop(key, None)
                else:
                    table[key] = read_delivery(record)
        return table

    def requests(self) -> Sequence[Delivery]:
        found: list[Delivery] = []
        for log in self.broker.topic(RETRY_TOPIC):
            found += pending_requests(log.records).values()
        return found

    def dead_letters(self) -> Sequence[DeadLetter]:
        dead_letters: dict[str, DeadLetter] = {}
        for log in self.broker.topic(dead_letter_topic(GROUP, TOPIC)):
            fold(log.records, dead_letters)
        return list(dead_letters.values())
