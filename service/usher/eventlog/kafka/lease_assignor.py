"""Hides how one member of a consumer group gets everything, and keeps it when others come and go.

Kafka's assignors deal partitions by the members' names: each worker that starts could take the duty from the one that has it, and
on being asked for it again give it back, and so on for ever.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, cast

from aiokafka.cluster import ClusterMetadata
from aiokafka.coordinator.assignors.abstract import AbstractPartitionAssignor
from aiokafka.coordinator.protocol import ConsumerProtocolMemberAssignment, ConsumerProtocolMemberMetadata

_VERSION: Final = 0
_HOLDER: Final = b"holder"


def lease_assignor(holds: Callable[[], bool]) -> type[AbstractPartitionAssignor]:
    """An assignor for one consumer. *holds* is asked at each rebalance whether this member holds the duty."""

    class HolderAssignor(AbstractPartitionAssignor):
        """Gives all partitions to the member that says it holds them; where none does, to the first by name."""

        name = "usher-holder"

        @classmethod
        def assign(
            cls, cluster: ClusterMetadata, members: Mapping[str, ConsumerProtocolMemberMetadata]
        ) -> dict[str, ConsumerProtocolMemberAssignment]:
            # The structs of aiokafka's protocol have their fields by name, which its types do not tell.
            told = cast("Mapping[str, Any]", members)
            holder = min(told, key=lambda member: (told[member].user_data != _HOLDER, member))
            everything = [
                (topic, sorted(cluster.partitions_for_topic(topic) or ())) for topic in told[holder].subscription
            ]
            return {
                member: ConsumerProtocolMemberAssignment(_VERSION, everything if member == holder else [], b"")
                for member in members
            }

        @classmethod
        def metadata(cls, topics: Iterable[str]) -> ConsumerProtocolMemberMetadata:
            return ConsumerProtocolMemberMetadata(_VERSION, list(topics), _HOLDER if holds() else b"")

        @classmethod
        def on_assignment(cls, assignment: ConsumerProtocolMemberAssignment) -> None:
            """Nothing to be remembered."""

    return HolderAssignor
