"""Having the duty of a group in memory: the wait for it, and its notes on a broker that fails on request."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Sequence

from usher.delivery import Record
from usher.engine.port import Lease, LeaseLost, TopicPartition, checkpoints_topic
from usher.eventlog.lease import HeldLease
from usher.testing.broker import GroupMember, MemoryBroker


@contextlib.asynccontextmanager
async def on_duty(broker: MemoryBroker, member: GroupMember) -> AsyncIterator[Lease]:
    """Wait for the duty as *member*, have it, give it back."""
    group = broker.group(member.config.group)
    # A member that is closed has no owner, which it says itself.
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
    roll, topic_partition = (
        broker.group(member.config.group).lease,
        TopicPartition(checkpoints_topic(member.config.group), 0),
    )

    async def write(name: str, checkpoint: bytes) -> None:
        if roll.holder is not member:
            held.end()
            raise LeaseLost(f"the duty is not ours any more: the note {name!r} was not kept")
        await broker.write(topic_partition, name.encode(), checkpoint, ())

    held = HeldLease(_checkpoints(broker.partition(*topic_partition).records), write)
    return held


def _checkpoints(records: Sequence[Record]) -> dict[str, bytes]:
    return {record.key.decode(): record.value for record in records if record.key and record.value is not None}
