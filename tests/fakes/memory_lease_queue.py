"""The lease of a group in memory: which member has it, and which members believe to have it. Hides that the two may differ."""

from __future__ import annotations

from usher.eventlog.lease import HeldLease


class LeaseQueue:
    """The lease of one group. An evicted member loses it, but knows that only when it keeps a checkpoint or is readmitted.

    *holder* is the member that has the lease, None while nobody has it.
    """

    def __init__(self) -> None:
        self.holder: object | None = None
        self._believers: dict[int, HeldLease] = {}

    def give(self, member: object, held: HeldLease) -> None:
        """Give the lease to *member*, as *held*."""
        self.holder = member
        self._believers[id(member)] = held

    def give_back(self, member: object, held: HeldLease) -> None:
        """Take *held* back from *member*, whether that is still the lease of *member* or not."""
        held.end()
        if self._believers.get(id(member)) is held:
            self.end(member)

    def take_away(self, member: object) -> None:
        """Let another member have the lease. *member* does not know it yet."""
        if self.holder is member:
            self.holder = None

    def end(self, member: object) -> None:
        """Let *member* know that it has the lease no more."""
        self.take_away(member)
        if believed := self._believers.pop(id(member), None):
            believed.end()
