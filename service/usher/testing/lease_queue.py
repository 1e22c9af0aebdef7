"""Who has a group's duty in memory, and who believes to have it: hides that the two may differ."""

from __future__ import annotations

from usher.eventlog.lease import HeldLease


class LeaseQueue:
    """One group's duty. A member that is evicted loses it, but hears of it only when it keeps a note or is readmitted.

    *holder* is the member that has it, None while nobody does.
    """

    def __init__(self) -> None:
        self.holder: object | None = None
        self._believers: dict[int, HeldLease] = {}

    def give(self, member: object, held: HeldLease) -> None:
        """Let *member* have it, as *held*."""
        self.holder = member
        self._believers[id(member)] = held

    def give_back(self, member: object, held: HeldLease) -> None:
        """Take *held* back from *member*, whether it is still what *member* has or not."""
        held.end()
        if self._believers.get(id(member)) is held:
            self.tell(member)

    def depose(self, member: object) -> None:
        """Let another have it; *member* does not know yet."""
        if self.holder is member:
            self.holder = None

    def tell(self, member: object) -> None:
        """Let *member* know that it has the duty no more."""
        self.depose(member)
        if believed := self._believers.pop(id(member), None):
            believed.end()
