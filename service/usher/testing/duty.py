"""The duty of a group in memory: who has it, who believes to have it, and its notes on a broker that fails on request."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Sequence
from typing import TYPE_CHECKING

from usher.delivery import Record
from usher.engine.port import Duty, DutyLost, Place, notes_topic
from usher.eventlog.duty import HeldDuty

if TYPE_CHECKING:
    from usher.testing.broker import Member, MemoryBroker


class DutyRoll:
    """One group's duty. A member that is evicted loses it, but hears of it only when it keeps a note or is readmitted."""

    def __init__(self) -> None:
        self._holder: Member | None = None
        self._believers: dict[int, HeldDuty] = {}

    def depose(self, member: Member) -> None:
        """Let another have it; *member* does not know yet."""
        if self._holder is member:
            self._holder = None

    def tell(self, member: Member) -> None:
        """Let *member* know that it has the duty no more."""
        self.depose(member)
        if believed := self._believers.pop(id(member), None):
            believed.end()

    @contextlib.asynccontextmanager
    async def duty(self, broker: MemoryBroker, member: Member) -> AsyncIterator[Duty]:
        """Wait for the duty as *member*, have it, give it back."""
        group = broker.group(member.config.group)
        # A member that is closed has no owner, which it says itself.
        while member.owner and (self._holder or broker.unavailable or member not in group.members):
            await broker.wait()
        self._holder = member
        held = self._believers[id(member)] = self._held(broker, member)
        try:
            yield held
        finally:
            held.end()
            if self._believers.get(id(member)) is held:
                self.tell(member)
            broker.ring()

    def _held(self, broker: MemoryBroker, member: Member) -> HeldDuty:
        place = Place(notes_topic(member.config.group), 0)

        async def write(name: str, note: bytes) -> None:
            if self._holder is not member:
                held.end()
                raise DutyLost(f"the duty is not ours any more: the note {name!r} was not kept")
            await broker.write(place, name.encode(), note, ())

        held = HeldDuty(_notes(broker.partition(*place).records), write)
        return held


def _notes(records: Sequence[Record]) -> dict[str, bytes]:
    return {record.key.decode(): record.value for record in records if record.key and record.value is not None}
