"""Checks a schedule that was played: each promise in a sentence. A violation is a sentence too."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

from tests.simulation.handlers import MOST_DEATHS, TIMEOUT
from tests.simulation.history import is_strange
from tests.simulation.hostile import TOPIC
from tests.simulation.repeats import Repeats
from tests.simulation.world import DRAIN, World

from usher.delivery.headers import read_delivery
from usher.engine.dead_letters import CRASHED

_SLACK = 1e-6


def violations(world: World) -> list[str]:
    """Everything that is wrong with what happened."""
    names = [handler.name for handler in world.handlers.all]
    repeats = Repeats(world.history, names, slowest=world.plan.family.slowest, drain=DRAIN)
    return [
        *world.history.violations,
        *_lost(world),
        *_not_ours(world),
        *_strangers(world),
        *_out_of_order(world),
        *repeats.violations(),
        *_early(world),
        *_forgetful(world),
        *_unsaid(world),
        *_deadly(world),
        *_without_receipt(world),
        *_cut_short(world),
        *_after_the_close(world),
    ]


def _lost(world: World) -> Iterator[str]:
    """Every delivery of every event was done or dead-lettered; undecodable bytes are dead letters."""
    done = {attempt.delivery for attempt in world.history.attempts if attempt.result == "done"}
    dead = {(dead_letter.handler, dead_letter.delivery.uid.id) for dead_letter in world.dead_letters()}
    undecodable = {
        (dead_letter.delivery.origin.partition, dead_letter.delivery.offset)
        for dead_letter in world.dead_letters()
        if not dead_letter.handler
    }
    kept = {*_ever_parked(world), *_handed_over(world)}
    topic_id = world.broker.topic_id(TOPIC)
    for sent in world.history.sent:
        gone = sent.topic_id != topic_id  # with its topic: what no worker had parked nobody could read again
        if not sent.decodable:
            if gone:
                continue
            if (sent.topic_partition.partition, sent.offset) not in undecodable:
                yield f"lost: the undecodable {sent.event}"
            continue
        for handler in world.handlers.all if sent.ours else ():
            about = (handler.name, sent.event)
            if about not in done and about not in dead and (about in kept or not gone):
                yield f"lost: {handler.name}({sent.event})"


def _ever_parked(world: World) -> Iterator[tuple[str, str]]:
    for records in world.history.retry.values():
        for record in records:
            if record.value is not None and not is_strange(record) and not (record.key or b"").startswith(b"replay/"):
                delivery = read_delivery(record)
                yield delivery.handler, delivery.uid.id


def _handed_over(world: World) -> Iterator[tuple[str, str]]:
    """What a worker had in memory of a topic that was made anew, where nothing kept it from parking that."""
    for process, at, handler, event in world.history.handed_over:
        life, until = world.history.lives[process], at + 2 * DRAIN + TIMEOUT
        troubled = any(trouble.begin <= until and trouble.end >= at for trouble in world.history.troubles)
        if not life.killed and min(life.ended, life.stopping) > until and not life.strayed(at, until) and not troubled:
            yield handler, event


def _strangers(world: World) -> Iterator[str]:
    """Nothing is written about what another group has in our retry topic."""
    for records in world.history.retry.values():
        for record in records:
            if (record.key or b"").decode() in world.history.strangers and not is_strange(record):
                yield f"not ours: a record was written about {record.key!r}"


def _not_ours(world: World) -> Iterator[str]:
    """No handler runs for what it is not for, nor for an event's second arrival in the topic."""
    strange = {sent.event for sent in world.history.sent if not sent.ours}
    strange |= {attempt.event for attempt in world.history.attempts if attempt.event.startswith("x")}
    again = {(sent.topic_id, sent.topic_partition.partition, sent.offset) for sent in world.history.sent if sent.again}
    for attempt in world.history.attempts:
        if attempt.event in strange:
            yield f"not ours: {attempt.handler} ran for {attempt.event}"
        if (attempt.topic_id, attempt.partition, attempt.offset) in again:
            yield f"twice: {attempt.handler} ran for the second arrival of {attempt.event}"


def _out_of_order(world: World) -> Iterator[str]:
    """In each lane first effects come in source order; what was given up before does not count."""
    first: dict[tuple[str, str], float] = {}
    for attempt in world.history.attempts:
        if attempt.result == "done":
            first[attempt.delivery] = min(attempt.ended, first.get(attempt.delivery, attempt.ended))
    buried: dict[tuple[str, str], float] = {}
    for dead_letter in world.dead_letters():
        buried.setdefault((dead_letter.handler, dead_letter.delivery.uid.id), dead_letter.at / 1000)
    lanes: dict[tuple[str, str, str], list[str]] = defaultdict(list)
    for sent in world.history.sent:
        if sent.decodable and sent.ours and not sent.again:
            for handler in world.handlers.all:
                lanes[handler.name, sent.user, sent.topic_id].append(sent.event)
    for (name, user, _), events in lanes.items():
        for index, later in enumerate(events):
            at = first.get((name, later))
            for earlier in events[:index]:
                over = min(first.get((name, earlier), 1e18), buried.get((name, earlier), 1e18))
                if at is not None and at < over - 0.002:
                    yield f"order: {name} did {later} before {earlier} of {user}"


def _early(world: World) -> Iterator[str]:
    """No attempt began before the time that the one before it asked for, or the policy says; unless a clock was set."""
    least: dict[tuple[str, str, int], float] = {}
    for attempt in world.history.attempts:
        if attempt.not_before and not attempt.request:
            about = (*attempt.delivery, attempt.number + 1)
            least[about] = min(attempt.not_before, least.get(about, attempt.not_before))
    for attempt in world.history.attempts:
        about = (*attempt.delivery, attempt.number)
        excused = attempt.request or world.history.clocks_set
        if about in least and attempt.began < least[about] - _SLACK and not excused:
            early = least[about] - attempt.began
            yield f"early: {attempt.handler}({attempt.event}) attempt {attempt.number}, by {early:.6f} s"


def _forgetful(world: World) -> Iterator[str]:
    """What the table said when a claim began is obeyed: the attempts that were made, and (unless a clock was set) when the next is due."""
    for attempt in world.history.attempts:
        known = world.history.known(attempt)
        if known is None or known.parked is None or attempt.request:
            continue
        delivery = f"{attempt.handler}({attempt.event})"
        if attempt.number <= known.parked.attempt:
            yield f"forgotten: {delivery} began attempt {attempt.number}, and {known.parked.attempt} had been made"
        elif (
            known.parked.due is not None
            and attempt.began < known.parked.due / 1000 - _SLACK
            and not world.history.clocks_set
        ):
            early = known.parked.due / 1000 - attempt.began
            yield f"early: {delivery} ran {early:.6f} s before the table said"


def _unsaid(world: World) -> Iterator[str]:
    """Rule 10: what became of a replay stands among the dead letters, before its request is taken out."""
    states = {dead_letter.id: dead_letter.state for dead_letter in world.dead_letters()}
    for request, dead_letter in world.history.requests.items():
        if states[dead_letter] == "open":
            yield f"unsaid: nothing says what became of {dead_letter} by the request {request}"


def _without_receipt(world: World) -> Iterator[str]:
    """Promise 11: every delivery that was done or given up has its receipt in the end."""
    filed, topic_id = world.broker.filed, world.broker.topic_id(TOPIC)
    ended = {
        (attempt.handler, attempt.event, attempt.offset)
        for attempt in world.history.attempts
        if attempt.result == "done" and not attempt.request and attempt.topic_id == topic_id
    }
    for dead_letter in world.dead_letters():
        delivery = dead_letter.delivery
        if dead_letter.state != "foreign" and delivery.origin.topic_id == topic_id:
            ended.add((dead_letter.handler, delivery.uid.id, delivery.origin.offset))
    for handler, event, offset in sorted(ended):
        if not filed.has(handler, event, offset):
            yield f"receipt: {handler}({event})@{offset} has ended, and has none"


def _deadly(world: World) -> Iterator[str]:
    """Promise 5: what ends its worker again and again is given up, and nothing else is for that."""
    for (handler, event), deaths in world.history.deaths.items():
        if deaths > MOST_DEATHS:
            yield f"deadly: {handler}({event}) ended {deaths} workers"
    for dead_letter in world.dead_letters():
        about = (dead_letter.handler, dead_letter.delivery.uid.id)
        others = world.history.deaths and about not in world.history.deaths  # where faults end workers, it may seem so
        if dead_letter.reason == CRASHED and others:
            yield f"deadly: {about[0]}({about[1]}) was given up for another's deed"


def _cut_short(world: World) -> Iterator[str]:
    """What runs when a worker is asked to let go may end within the drain."""
    for attempt in world.history.attempts:
        asked = attempt.tenure.asked_back
        timed_out = attempt.ended >= attempt.began + TIMEOUT - _SLACK
        if attempt.result == "CancelledError" and not timed_out and asked <= attempt.ended < asked + DRAIN - _SLACK:
            yield f"cut short: {attempt.handler}({attempt.event}) after {attempt.ended - asked:.3f} s of the drain"


def _after_the_close(world: World) -> Iterator[str]:
    """Once a worker was asked to let go, and knows it, nothing of that claim begins."""
    for attempt in world.history.attempts:
        asked, life = attempt.tenure.asked_back, world.history.lives[attempt.process]
        if attempt.began > asked + 0.001 and not life.strayed(asked - DRAIN, attempt.began):
            late = attempt.began - asked
            yield f"late: {attempt.handler}({attempt.event}) began {late:.3f} s after {attempt.process} was to let go"
