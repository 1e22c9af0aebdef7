"""The faults of a schedule, each in a few lines. Each is recorded, since it excuses something.

Hides how a fault is staged. `tests.simulation.repeats` knows what it may lead to.
"""

from __future__ import annotations

import asyncio
import contextvars
import json
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from tests.simulation.history import FORGED, STRANGER, Trouble
from tests.simulation.hostile import GROUP, RECOVERY, RETRY_TOPIC, TOPIC, HostileLog, Refusal
from tests.simulation.loop import Process

from usher.delivery import Delivery, Origin
from usher.delivery.headers import ATTEMPT, DUE, ORIGINAL_GROUP, delivery_headers, owner_headers
from usher.engine.index_file import IndexFile
from usher.event import EventUid
from usher.eventlog.port import Position, TopicPartition

if TYPE_CHECKING:
    from tests.simulation.world import Running, World

SESSION = 10.0
"""Seconds after which the broker counts a silent member out."""
_WRITES = ("park", "tombstone", "dead-letter", "receipts", "commit")


class Faults:
    """Stages the faults of a plan in a world."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._rng = world.rng
        self._ambush: tuple[str, str] | None = None
        """Kill the first process that begins such a write: before it, during it, or after it has landed without an answer."""
        self._ambushed: tuple[Process, HostileLog] | None = None
        self._closing_in: asyncio.Task[None] | None = None
        self._of_log: dict[str, Callable[[], Awaitable[None]]] = {
            "ambush": self._lie_in_wait,
            "clock": self._set_clocks,
            "commits-refused": self._refuse_commits,
            "compact": self._compact,
            "forge": self._forge,
            "hand-back": self._hand_back,
            "outage": self._outage,
            "refuse": self._refuse,
            "remake": self._remake,
            "reset": self._reset,
            "slow": self._slow,
            "strangers": self._strangers,
        }
        self._of_process: dict[str, Callable[[Running], Awaitable[None]]] = {
            "crash": self._crash,
            "disk-full": self._fill_disk,
            "evict": self._evict,
            "freeze": self._freeze,
            "graceful": self._leave,
        }

    async def strike(self) -> None:
        """Stage one of the faults of the plan. At least one process is alive afterwards."""
        world = self._world
        if not world.plan.faults:
            return
        kind = self._rng.choice(world.plan.faults)
        alive = world.alive()
        if kind in self._of_log:
            await self._of_log[kind]()
        elif kind == "join":
            if len(alive) < 3:
                world.start()
        elif alive:
            await self._of_process[kind](self._rng.choice(alive))
        if not world.up():
            await world.pause(3.0)
            world.start()

    # Of processes

    async def _crash(self, running: Running) -> None:
        self._kill(running.process, "is killed")
        await self._replace(running.log)

    def _kill(self, process: Process, how: str) -> None:
        world = self._world
        life = world.history.lives[process.name]
        life.ended, life.killed = world.now(), True
        process.dead = True
        world.broker.strand(process)
        world.say(f"{process.name} {how}")

    def end(self, process: Process) -> None:
        """End *process*, as a handler may that eats the memory. The next worker gets what it had at once."""
        world = self._world
        running = next(running for running in world.processes if running.process is process)
        self._kill(process, "is ended by a delivery")
        world.broker.leave(running.log)
        world.loop.call_soon(world.start, context=contextvars.Context())

    async def _replace(self, log: HostileLog) -> None:
        world = self._world
        await world.pause(1.0)
        world.start()
        await asyncio.sleep(self._rng.random() * SESSION)
        world.broker.leave(log)

    async def _leave(self, running: Running) -> None:
        """In good order; now and then while the claims are being dealt anew for another reason."""
        if self._rng.random() < 0.3:
            await self._hand_back()
            await self._world.pause(4.0)
        if running.up:
            await self._world.stop(running)

    async def _freeze(self, running: Running) -> None:
        world, process = self._world, running.process
        stray = self._goes_astray(process)
        process.frozen = True
        world.broker.strand(process)
        world.say(f"{process.name} freezes")
        evicted = self._rng.random() < 0.7
        if evicted:
            await asyncio.sleep(SESSION)
            self._count_out(running)
            await world.pause(20.0)
        else:
            await world.pause(5.0)
        world.loop.thaw(process)
        world.say(f"{process.name} thaws")
        if evicted:
            await self._comes_back(running)
        stray[1] = world.now()

    async def _fill_disk(self, running: Running) -> None:
        """The disk refuses the index of parked deliveries, now or at a query: all of it is lost."""
        self._world.say(f"the disk of {running.process.name} is full")
        for state in list(running.worker.claims.states.values()):
            if self._rng.random() < 0.5:
                state.table.file.lose("the disk is full")
            elif self._rng.random() < 0.8:
                _refuse(state.table.file, self._rng.choice(("", "SELECT 1 FROM parked WHERE lane")))

    async def _evict(self, running: Running) -> None:
        """Evict a member that is alive and well, and does not know it for a while."""
        stray = self._goes_astray(running.process)
        self._count_out(running)
        await self._world.pause(10.0)
        await self._comes_back(running)
        stray[1] = self._world.now()

    def _goes_astray(self, process: Process) -> list[float]:
        stray = [self._world.now(), float("inf")]
        self._world.history.lives[process.name].strays.append(stray)
        return stray

    def _count_out(self, running: Running) -> None:
        world = self._world
        world.broker.evict(running.log)
        world.say(f"{running.process.name} is evicted")
        if not [other for other in world.alive() if other is not running]:
            world.start()

    async def _comes_back(self, running: Running) -> None:
        world = self._world
        await world.pause(2.0)
        await world.broker.readmit(running.log)
        world.say(f"{running.process.name} has joined again")

    # Of the log

    async def _lie_in_wait(self) -> None:
        family = self._world.plan.family
        self._ambush = (self._rng.choice(family.ambushes), self._rng.choice(("before", "during", "after")))
        for _ in range(40):
            await asyncio.sleep(0.25)
            if self._ambushed is not None:
                break
        self._ambush = None
        if self._closing_in is not None:
            await self._closing_in
            self._closing_in = None
        if self._ambushed is not None:
            _, log = self._ambushed
            self._ambushed = None
            await self._replace(log)

    async def meet(self, moment: str, process: Process, log: HostileLog, *, landed: bool) -> None:
        """Kill *process* where the ambush is for this write: it begins, or it has *landed*."""
        if self._ambush is None or process.dead or process.frozen:
            return
        kind, when = self._ambush
        if kind != moment or landed != (when == "after"):
            return
        self._ambush = None
        if when == "during":
            self._closing_in = self._world.loop.spawn(None, self._kill_soon(process, log, moment))
            return
        self._ambushed = (process, log)
        self._kill(process, f"is killed {when} a {moment} is written")
        await asyncio.get_running_loop().create_future()

    async def _kill_soon(self, process: Process, log: HostileLog, moment: str) -> None:
        await self._world.pause(self._world.plan.family.slowest)
        if not process.dead and not process.frozen:
            self._kill(process, f"is killed while a {moment} is written")
            self._ambushed = (process, log)

    async def _outage(self) -> None:
        world = self._world
        began = world.now()
        world.say("the event log is unavailable")
        world.broker.unavailable = True
        await world.pause(8.0)
        world.broker.unavailable = False
        world.broker.ring()
        world.say("the event log is back")
        world.history.troubles.append(Trouble(began - world.plan.family.slowest, world.now() + RECOVERY))

    async def _refuse(self) -> None:
        kinds, count = self._rng.choice((_WRITES, ("park",), ("tombstone",))), self._rng.randrange(1, 3)
        late = self._rng.choice((None, 0.5, 8.0, 25.0)) if "commit" not in kinds else None
        self._world.broker.refusals.append(Refusal(kinds, count, late))
        self._world.say(
            f"the next {count} of {', '.join(kinds)} are refused{f', and land {late} s later' if late else ''}"
        )

    async def _refuse_commits(self) -> None:
        """Nothing is wrong with the log but that it takes no commits, as while a group finds itself anew; often the end."""
        world = self._world
        refusal = Refusal(("commit",), float("inf"))
        began = world.now()
        world.say("commits are refused")
        world.broker.refusals.append(refusal)
        await asyncio.sleep(1.0 + self._rng.random() * 8.0)
        if (alive := world.alive()) and self._rng.random() < 0.7:
            running = self._rng.choice(alive)
            self._kill(running.process, "is killed")
            world.broker.refusals.remove(refusal)
            world.history.troubles.append(Trouble(began, world.now() + RECOVERY))
            await self._replace(running.log)
            return
        world.broker.refusals.remove(refusal)
        world.history.troubles.append(Trouble(began, world.now() + RECOVERY))
        world.say("commits are taken again")

    async def _slow(self) -> None:
        """Let one kind of write take long. A process that waits for it may be killed before it lands."""
        world = self._world
        kind, seconds, began = self._rng.choice(_WRITES), 0.5 + self._rng.random() * 4.0, world.now()
        world.say(f"each {kind} takes {seconds:.1f} s")
        world.broker.slow[kind] = seconds
        await world.pause(8.0)
        if (alive := world.alive()) and self._rng.random() < 0.5:
            await self._crash(self._rng.choice(alive))
        del world.broker.slow[kind]
        world.say(f"a {kind} takes no longer than usual")
        world.history.troubles.append(Trouble(began, world.now() + seconds + RECOVERY))

    async def _set_clocks(self) -> None:
        """The wall clocks of some workers are wrong for a while, by hours or by seconds; then they are right."""
        world = self._world
        wrong_by = self._rng.choice((-18_000.0, -18_000.0, -5.0, 5.0, 18_000.0))
        chosen = [running.process for running in world.alive() if self._rng.random() < 0.7]
        for process in chosen:
            self._set_clock(process, wrong_by)
        await world.pause(12.0)
        for process in chosen:
            self._set_clock(process, 0.0)

    def _set_clock(self, process: Process, wrong_by: float) -> None:
        world = self._world
        process.wrong_by = wrong_by
        world.history.clocks_set.append(world.now())
        world.say(f"the clock of {process.name} is {f'wrong by {wrong_by:+.0f} s' if wrong_by else 'right'}")

    async def _compact(self) -> None:
        world = self._world
        world.broker.compact(RETRY_TOPIC)
        world.history.compactions += [(partition, len(records)) for partition, records in world.history.retry.items()]
        world.say("the retry topic is compacted")

    async def _hand_back(self) -> None:
        self._world.say("all claims are taken back and assigned again")
        self._world.broker.reassign()

    async def _reset(self) -> None:
        """Somebody sets an offset back while no worker runs; the metadata that was committed with the old one stays."""
        world = self._world
        for running in world.alive():
            await world.stop(running)
        known = world.broker.group(GROUP).committed
        for topic_partition, position in list(known.items()):
            back = max(0, position.next - self._rng.randrange(3))
            known[topic_partition] = Position(back, position.mark)
            world.say(f"the offset of {topic_partition.partition} is set from {position.next} to {back}")
            world.history.resets.append((world.now(), topic_partition.partition, back))

    async def _remake(self) -> None:
        """Somebody deletes the source topic and creates it again. What no worker has read is gone with it."""
        self._world.say("the source topic is made anew")
        self._world.broker.remake(TOPIC)

    async def _strangers(self) -> None:
        """Another group, whose retry topic has the name of ours, parks something, and is done with what is parked here."""
        world, parked = self._world, self._invented("theirs")
        self._put(parked.key, parked, (ORIGINAL_GROUP, STRANGER))
        done = owner_headers(STRANGER.decode(), "theirs")
        for key, ours in world.parked().items():
            world.broker.put(TopicPartition(RETRY_TOPIC, ours.origin.partition), key.encode(), None, done)
        world.say(f"another group parks {parked.uid.id}, and writes tombstones about what is parked here")

    async def _forge(self) -> None:
        """Somebody who may write there does so in our name: numbers that are out of range, and one delivery under the keys of others."""
        world, invented = self._world, self._invented(TOPIC)
        for name in (DUE, ATTEMPT):
            self._put(invented.key, invented, (ORIGINAL_GROUP, GROUP.encode()), (name, b"9" * 30), (FORGED, b"1"))
        for key in world.parked():
            self._put(key, invented, (ORIGINAL_GROUP, GROUP.encode()), (FORGED, b"1"))
        world.say(f"{invented.uid.id} is forged")

    def _invented(self, topic: str) -> Delivery:
        """A delivery of no event that was ever sent, parked and due."""
        world = self._world
        user, event = f"u{self._rng.randrange(world.plan.users)}", f"x{len(world.story)}"
        value = json.dumps({"id": event, "type": "user.created", "payload": {"user": {"id": user}}}).encode()
        origin = Origin(topic, 0, self._rng.randrange(9), int(world.now() * 1000), b"k")
        uid = EventUid("authgear", "a", event)
        return Delivery("h0", uid, f"authgear/a/{user}", origin, value, attempt=9, due=1)

    def _put(self, key: str, parked: Delivery, *more: tuple[str, bytes]) -> None:
        """Append the record of *parked* to the retry topic under *key*."""
        world = self._world
        world.history.strangers.add(parked.key)
        partition = int(key.rpartition("@")[2].partition("-")[0])
        headers = [*delivery_headers(parked), *more]
        world.broker.put(TopicPartition(RETRY_TOPIC, partition), key.encode(), parked.value, headers)


def _refuse(file: IndexFile, what: str) -> None:
    """Let *file* refuse the next query that begins with *what*."""
    rows = file.rows

    def refuse(query: str, *values: object) -> list[tuple[Any, ...]]:
        if query.startswith(what):
            file.lose("the disk is full")
        return rows(query, *values)

    file.rows = refuse  # type: ignore[method-assign]
