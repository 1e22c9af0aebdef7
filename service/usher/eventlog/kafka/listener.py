"""The listener of a consumer: passes what the group assigns and takes back to the member that the consumer belongs to."""

from __future__ import annotations

from collections.abc import Collection
from typing import Protocol

from aiokafka import AIOKafkaConsumer
from aiokafka import TopicPartition as KafkaPartition
from aiokafka.abc import ConsumerRebalanceListener


class ClaimKeeper(Protocol):
    """What is called. The consumer comes along: it may be an earlier one than the member has now."""

    async def begin_claims(self, consumer: AIOKafkaConsumer, partitions: Collection[KafkaPartition]) -> None: ...

    async def end_claims(self, consumer: AIOKafkaConsumer) -> None: ...


class Listener(ConsumerRebalanceListener):
    """Passes the callbacks of one consumer to the member. aiokafka swallows errors here, so there must be none."""

    def __init__(self, member: ClaimKeeper, consumer: AIOKafkaConsumer) -> None:
        self._member = member
        self._consumer = consumer

    async def on_partitions_revoked(self, revoked: Collection[KafkaPartition]) -> None:  # noqa: ARG002
        await self._member.end_claims(self._consumer)

    async def on_partitions_assigned(self, assigned: Collection[KafkaPartition]) -> None:
        await self._member.begin_claims(self._consumer, assigned)
