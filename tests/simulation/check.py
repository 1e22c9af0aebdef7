"""What must hold after a schedule, each promise in a sentence; a violation is a sentence too."""

from __future__ import annotations

from collections import defaultdict

from tests.simulation.world import World

_SLACK = 1e-6


def violations(world: World) -> list[str]:
    """Everything that is wrong with what happened."""
    return [*world.violations, *_lost(world), *_out_of_order(world), *_unexcused(world), *_early(world)]


def _lost(world: World) -> list[str]:
    """Every delivery of every event was done or dead-lettered; undecodable bytes are dead letters."""
    done = {(attempt.handler, attempt.event) for attempt in world.attempts if attempt.result == "done"}
    dead = {(letter.handler, letter.delivery.identity.id) for letter in world.letters()}
    undecodable = {
        (letter.delivery.origin.partition, letter.delivery.offset) for letter in world.letters() if not letter.handler
    }
    wrong = []
    for sent in world.sent:
        if not sent.decodable:
            if (sent.place.partition, sent.offset) not in undecodable:
                wrong.append(f"lost: the undecodable {sent.event}")
            continue
        for handler in world.handlers:
            about = (handler.name, sent.event)
            if about not in done and about not in dead:
                wrong.append(f"lost: {handler.name}({sent.event})")
    return wrong


def _out_of_order(world: World) -> list[str]:
    """In each lane first effects come in source order; what was given up before does not count."""
    first: dict[tuple[str, str], float] = {}
    for attempt in world.attempts:
        if attempt.result == "done" and attempt.ended is not None:
            about = (attempt.handler, attempt.event)
            first[about] = min(attempt.ended, first.get(about, attempt.ended))
    buried: dict[tuple[str, str], float] = {}
    for letter in world.letters():
        buried.setdefault((letter.handler, letter.delivery.identity.id), letter.at / 1000)
    lanes: dict[tuple[str, str], list[str]] = defaultdict(list)
    for sent in world.sent:
        if sent.decodable:
            for handler in world.handlers:
                lanes[handler.name, sent.user].append(sent.event)
    wrong = []
    for (name, user), events in lanes.items():
        for index, later in enumerate(events):
            at = first.get((name, later))
            for earlier in events[:index]:
                over = min(first.get((name, earlier), 1e18), buried.get((name, earlier), 1e18))
                if at is not None and at < over - 0.002:
                    wrong.append(f"order: {name} did {later} before {earlier} of {user}")
    return wrong


def _unexcused(world: World) -> list[str]:
    """Only what a fault caught in flight or uncommitted was done more than once; an operator's replay may add one."""
    times: dict[tuple[str, str], int] = defaultdict(int)
    for attempt in world.attempts:
        if attempt.result == "done":
            times[attempt.handler, attempt.event] += 1
    return [
        f"twice: {handler}({event}) was done {count} times"
        for (handler, event), count in times.items()
        if count > 1 + world.replayed[handler, event] and (handler, event) not in world.excused
    ]


def _early(world: World) -> list[str]:
    """No attempt began before the time that the one before it asked for, or the policy says."""
    least: dict[tuple[str, str, int], float] = {}
    for attempt in world.attempts:
        if attempt.not_before:
            about = (attempt.handler, attempt.event, attempt.number + 1)
            least[about] = min(attempt.not_before, least.get(about, attempt.not_before))
    return [
        f"early: {attempt.handler}({attempt.event}) attempt {attempt.number}, by {least[about] - attempt.began:.6f} s"
        for attempt in world.attempts
        if (about := (attempt.handler, attempt.event, attempt.number)) in least
        and attempt.began < least[about] - _SLACK
        and (attempt.handler, attempt.event) not in world.replayed
    ]
