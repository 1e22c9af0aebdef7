"""How Usher's own topics are looked after when several workers do it at once."""

from __future__ import annotations

from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any, cast

import pytest
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import InvalidPartitionsError

from usher.eventlog.kafka.topic import Topic
from usher.eventlog.kafka.topics import KafkaTopics
from usher.eventlog.port import LogConfig


class _Admin:
    """Of a cluster whose source topic has grown; what it says of the other two is old at first."""

    def __init__(self) -> None:
        self._partitions = {
            "events": 7,
            "usher.events-retry": 6,
            "usher.events-dlt": 6,
            "usher.receipts": 5,
            "usher.checkpoints": 1,
        }
        self._client = self
        self.cluster = SimpleNamespace(brokers=lambda: [SimpleNamespace(nodeId=1)])

    async def send(self, _node: int, _request: object) -> Any:
        topics = [
            {"topic": name, "error_code": 0, "topic_id": name, "partitions": [{"replicas": [1]}] * count}
            for name, count in self._partitions.items()
        ]
        return SimpleNamespace(to_object=lambda: {"topics": topics})

    async def describe_configs(self, _resources: object) -> list[Any]:
        return [SimpleNamespace(resources=[])]

    async def create_partitions(self, wanted: Mapping[str, object]) -> None:
        self._partitions |= dict.fromkeys(wanted, 7)
        raise InvalidPartitionsError("Topic already has 7 partition(s).")


async def test_a_topic_that_another_worker_has_widened_is_taken_as_it_is() -> None:
    """A worker that finds the topic widened between look and deed goes on, and does not call the topic misconfigured."""
    topics = KafkaTopics(cast("AIOKafkaAdminClient", _Admin()), "localhost:9092", LogConfig("usher", ("events",)))
    known = await topics.verified()
    assert {name: topic.partitions for name, topic in known.items()} == {
        "events": 7,
        "usher.events-retry": 7,
        "usher.events-dlt": 7,
        "usher.receipts": 7,
        "usher.checkpoints": 1,
    }


@pytest.mark.parametrize("kept", ["-1", "86400000", None, ""])
def test_a_topic_that_keeps_its_tombstones_is_right(kept: str | None) -> None:
    """For ever, too: Redpanda's default is -1. A broker may also tell no value."""
    configs = {"cleanup.policy": "compact", "retention.ms": kept, "delete.retention.ms": kept}
    assert Topic(6, 3, cast("Mapping[str, str]", configs)).loses("retry") == ("", "")


def test_a_topic_that_deletes_tombstones_soon_is_refused() -> None:
    """The command names what it needs."""
    wrong, config = Topic(6, 3, {"cleanup.policy": "compact", "delete.retention.ms": "0"}).loses("retry")
    assert wrong.startswith("delete.retention.ms=0: ")
    assert config == "delete.retention.ms=86400000"
