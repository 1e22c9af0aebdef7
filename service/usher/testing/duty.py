"""Having the duty of a group in memory: the wait for it, and its notes on a broker that fails on request."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Sequence

from usher.delivery import Record
from usher.engine.port import Duty, DutyLost, Place, notes_topic
from usher.eventlog.duty import HeldDuty
from usher.testing.broker import Member, MemoryBroker


@contextlib.asynccontextmanager
async def on_duty(broker: MemoryBroker, member: Member) -> AsyncIterator[Duty]:
    """Wait for the duty as *member*, have it, give it back."""
    group = broker.group(member.config.group)
    # A member that is closed has no owner, which it says itself.
    while member.owner and (group.duty.holder or broker.unavailable or member not in group.members):
        await broker.wait()
    held = _held(broker, member)
    group.duty.give(member, held)
    try:
        yield held
    finally:
        group.duty.give_back(member, held)
        broker.ring()


def _held(broker: MemoryBroker, member: Member) -> HeldDuty:
    roll, place = broker.group(member.config.group).duty, Place(notes_topic(member.config.group), 0)

    async def write(name: str, note: bytes) -> None:
        if roll.holder is not member:
            held.end()
            raise DutyLost(f"the duty is not ours any more: the note {name!r} was not kept")
        await broker.write(place, name.encode(), note, ())

    held = HeldDuty(_notes(broker.partition(*place).records), write)
    return held


def _notes(records: Sequence[Record]) -> dict[str, bytes]:
    return {record.key.decode(): record.value for record in records if record.key and record.value is not None}
