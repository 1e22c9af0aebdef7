"""What a topic is: its id, its partitions. Hides a Metadata request of our own, since aiokafka speaks a version without ids.

A topic that is deleted and made again has another id under the same name. Brokers give it from 2.8 on; of older ones it is empty.
The request names its topics, and never lets the brokers create one.
"""

from __future__ import annotations

import base64
import random
from collections.abc import Collection, Mapping
from io import BytesIO
from types import FunctionType, MethodType
from typing import Any, Final, NamedTuple

from aiokafka.client import AIOKafkaClient
from aiokafka.errors import (
    IncompatibleBrokerVersion,
    InvalidTopicError,
    KafkaConnectionError,
    KafkaError,
    NoError,
    TopicAuthorizationFailedError,
    UnknownTopicOrPartitionError,
    for_code,
)
from aiokafka.protocol.abstract import AbstractType
from aiokafka.protocol.api import Request, RequestStruct, Response
from aiokafka.protocol.metadata import MetadataRequest
from aiokafka.protocol.types import Boolean, CompactArray, CompactString, Int16, Int32, Schema, TaggedFields

_NONE: Final = bytes(16)
_ABSENT: Final = (UnknownTopicOrPartitionError, TopicAuthorizationFailedError, InvalidTopicError)


class SeenTopic(NamedTuple):
    """A topic that exists. *id* is as ``kafka-topics.sh --describe`` shows it; empty where the brokers are too old to say."""

    id: str
    partitions: int
    replicas: int


class _Uuid(AbstractType[str]):
    @classmethod
    def encode(cls, value: str) -> bytes:
        return base64.urlsafe_b64decode(value + "==") if value else _NONE

    @classmethod
    def decode(cls, data: BytesIO) -> str:
        raw = data.read(16)
        return "" if raw == _NONE else base64.urlsafe_b64encode(raw).decode().rstrip("=")


_NAME: Final = CompactString("utf-8")
_PARTITION: Final = (
    ("error_code", Int16),
    ("partition", Int32),
    ("leader", Int32),
    ("leader_epoch", Int32),
    ("replicas", CompactArray(Int32)),
    ("isr", CompactArray(Int32)),
    ("offline_replicas", CompactArray(Int32)),
    ("tags", TaggedFields),
)
_BROKERS: Final = CompactArray(
    ("node_id", Int32), ("host", _NAME), ("port", Int32), ("rack", _NAME), ("tags", TaggedFields)
)
_TOPICS: Final = CompactArray(
    ("error_code", Int16),
    ("topic", _NAME),
    ("topic_id", _Uuid),
    ("is_internal", Boolean),
    ("partitions", CompactArray(*_PARTITION)),
    ("authorized_operations", Int32),
    ("tags", TaggedFields),
)
_HEAD: Final = (
    ("throttle_time_ms", Int32),
    ("brokers", _BROKERS),
    ("cluster_id", _NAME),
    ("controller_id", Int32),
    ("topics", _TOPICS),
)
_WANTED: Final = (
    ("topics", CompactArray(("topic_id", _Uuid), ("topic", _NAME), ("tags", TaggedFields))),
    ("allow_auto_topic_creation", Boolean),
)


class _Response10(Response):
    API_KEY, API_VERSION = 3, 10
    SCHEMA = Schema(*_HEAD, ("cluster_authorized_operations", Int32), ("tags", TaggedFields))


class _Response12(Response):
    API_KEY, API_VERSION = 3, 12
    SCHEMA = Schema(*_HEAD, ("tags", TaggedFields))


class _Request10(RequestStruct):
    API_KEY, API_VERSION, RESPONSE_TYPE, FLEXIBLE_VERSION = 3, 10, _Response10, True
    SCHEMA = Schema(*_WANTED, ("cluster_operations", Boolean), ("topic_operations", Boolean), ("tags", TaggedFields))


class _Request12(RequestStruct):
    API_KEY, API_VERSION, RESPONSE_TYPE, FLEXIBLE_VERSION = 3, 12, _Response12, True
    SCHEMA = Schema(*_WANTED, ("topic_operations", Boolean), ("tags", TaggedFields))


class _TopicIds(Request[_Request10 | _Request12]):
    API_KEY = 3

    def __init__(self, names: Collection[str]) -> None:
        self._names = names

    def build(self, request_struct_class: type[_Request10 | _Request12]) -> _Request10 | _Request12:
        topics: list[tuple[str, str, Mapping[int, bytes]]] = [("", name, {}) for name in self._names]
        operations = [False] * (2 if request_struct_class is _Request10 else 1)
        return request_struct_class(topics, False, *operations, {})


async def seen(client: AIOKafkaClient, names: Collection[str]) -> Mapping[str, SeenTopic]:
    """Return the topics of *names* that exist and may be described.

    Raises:
        KafkaError: no broker answers, or it can't answer now.
    """
    if not names:
        return {}
    try:
        response: Any = await _ask(client, _TopicIds(names))
    except (NotImplementedError, IncompatibleBrokerVersion):  # brokers before 2.8
        response = await _ask(client, MetadataRequest(list(names), allow_auto_topic_creation=False))
    found = {}
    for topic in response.to_object()["topics"]:
        error, partitions = for_code(topic["error_code"]), topic["partitions"]
        if error is NoError:
            replicas = max((len(each["replicas"]) for each in partitions), default=1)
            found[topic["topic"]] = SeenTopic(topic.get("topic_id", ""), len(partitions), replicas)
        elif error not in _ABSENT:
            raise error(topic["topic"])
    return found


async def _ask(client: AIOKafkaClient, request: Request[Any]) -> object:
    """Send *request* to any broker that answers."""
    nodes = [broker.nodeId for broker in client.cluster.brokers()]
    random.shuffle(nodes)
    for node in nodes:
        try:
            return await client.send(node, request)
        except KafkaError:
            if node == nodes[-1]:
                raise
    raise KafkaConnectionError("no broker is known")


def never_create(client: AIOKafkaClient) -> None:
    """Let *client* ask for metadata without the brokers creating what it names: by default it asks them to.

    It runs aiokafka's own code, which finds another `MetadataRequest` under that name.
    """
    update: Any = AIOKafkaClient._metadata_update
    without = {**update.__globals__, "MetadataRequest": _ask_for_nothing_new}
    vars(client)["_metadata_update"] = MethodType(FunctionType(update.__code__, without), client)


def _ask_for_nothing_new(topics: list[str] | None) -> MetadataRequest:
    return MetadataRequest(topics, allow_auto_topic_creation=False)
