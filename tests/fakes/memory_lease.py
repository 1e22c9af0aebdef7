"""The lease of a group in memory. Hides the wait for it, and that its checkpoints are on a broker that may fail."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator

from tests.fakes.memory_broker import GroupMember, MemoryBroker

from usher.eventlog.errors import LeaseLost
from usher.eventlog.lease import HeldLease, fold_checkpoints
from usher.eventlog.names import checkpoints_topic
from usher.eventlog.port import Lease, TopicPartition


@contextlib.asynccontextmanager
async def memory_lease(broker: MemoryBroker, member: GroupMember) -> AsyncIterator[Lease]:
    """Wait for the lease of the group of *member*, have it, give it back."""
    group = broker.group(member.config.group)
    # A member that is closed has no owner: it raises.
    while member.owner and (group.lease.holder or broker.unavailable or member not in group.members):
        await broker.wait()
    held = _held(broker, member)
    group.lease.give(member, held)
    try:
        yield held
    finally:
        group.lease.give_back(member, held)
        broker.ring()


def _held(broker: MemoryBroker, member: GroupMember) -> HeldLease:
    queue = broker.group(member.config.group).lease
    topic_partition = TopicPartition(checkpoints_topic(member.config.group), 0)

    async def write(name: str, checkpoint: bytes) -> None:
        if queue.holder is not member:
            held.end()
            raise LeaseLost(f"another worker has the lease now: the checkpoint {name!r} was not kept")
        await broker.write(topic_partition, name.encode(), checkpoint, ())

    checkpoints: dict[str, bytes] = {}
    fold_checkpoints(broker.partition(*topic_partition).records, member.config.group, checkpoints)
    held = HeldLease(checkpoints, write)
    return held
