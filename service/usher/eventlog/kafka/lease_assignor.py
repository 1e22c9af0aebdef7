"""The assignor of the lease's consumer group. Hides how one member gets the partition, and keeps it when others come and go.

Kafka's own assignors assign partitions by the names of the members. With them each worker that starts could take the lease from
the worker that has it, and give it back at the next rebalance, and so on for ever.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, cast

from aiokafka.cluster import ClusterMetadata
from aiokafka.coordinator.assignors.abstract import AbstractPartitionAssignor
from aiokafka.coordinator.protocol import ConsumerProtocolMemberAssignment, ConsumerProtocolMemberMetadata

_VERSION: Final = 0
_HAS_IT: Final = b"has-lease"


def lease_assignor(has_lease: Callable[[], bool]) -> type[AbstractPartitionAssignor]:
    """Make the assignor of one consumer. It calls *has_lease* at each rebalance: does this member have the lease?"""

    class LeaseAssignor(AbstractPartitionAssignor):
        """Gives all partitions to the member that says it has the lease, otherwise to the first by name."""

        name = "usher-lease"

        @classmethod
        def assign(
            cls, cluster: ClusterMetadata, members: Mapping[str, ConsumerProtocolMemberMetadata]
        ) -> dict[str, ConsumerProtocolMemberAssignment]:
            # The structs of aiokafka's protocol have their fields by name, but not in its types.
            metadata = cast("Mapping[str, Any]", members)
            chosen = min(metadata, key=lambda member: (metadata[member].user_data != _HAS_IT, member))
            everything = [
                (topic, sorted(cluster.partitions_for_topic(topic) or ())) for topic in metadata[chosen].subscription
            ]
            return {
                member: ConsumerProtocolMemberAssignment(_VERSION, everything if member == chosen else [], b"")
                for member in members
            }

        @classmethod
        def metadata(cls, topics: Iterable[str]) -> ConsumerProtocolMemberMetadata:
            return ConsumerProtocolMemberMetadata(_VERSION, list(topics), _HAS_IT if has_lease() else b"")

        @classmethod
        def on_assignment(cls, assignment: ConsumerProtocolMemberAssignment) -> None:
            """Do nothing: there is nothing to remember."""

    return LeaseAssignor
