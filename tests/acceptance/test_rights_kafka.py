"""The rights that docs/operating.md says a worker needs are enough, by a broker that grants nothing else."""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import shlex
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewPartitions, NewTopic
from aiokafka.errors import GroupAuthorizationFailedError, TopicAuthorizationFailedError
from aiokafka.protocol.admin import CreateAclsRequest_v1
from aiokafka.protocol.api import Request
from tests.contract.logs import PATIENCE, Worker
from tests.kafka import Broker
from tests.service import Service, environment, running, usher

from usher.eventlog.kafka import KafkaLog
from usher.eventlog.names import checkpoints_topic, dead_letter_topic, receipts_topic, retry_topic
from usher.eventlog.port import LogConfig
from usher.kafka_options import kafka_options
from usher.testing import raw_event

OPERATING = Path(__file__).parents[2] / "docs" / "operating.md"
TOPIC, GROUP = "identity.events", "usher"
_LOGIN = "org.apache.kafka.common.security.plain.PlainLoginModule required"
_PROPERTIES = f"""\
sasl.enabled.mechanisms=PLAIN
sasl.mechanism.inter.broker.protocol=PLAIN
listener.name.sasl_plaintext.plain.sasl.jaas.config={_LOGIN} username="admin" password="a" user_admin="a" user_usher="u" user_billing="b";
authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer
super.users=User:admin;User:ANONYMOUS
allow.everyone.if.no.acl.found=false
"""
_OPERATIONS = {"Read": 3, "Write": 4, "Create": 5, "Delete": 6, "Alter": 7, "Describe": 8, "AlterConfigs": 11}
_ADMIN: dict[str, Any] = {
    "security_protocol": "SASL_PLAINTEXT",
    "sasl_mechanism": "PLAIN",
    "sasl_plain_username": "admin",
}


class Rule(NamedTuple):
    """One ACL as the protocol has it."""

    resource_type: int
    resource_name: str
    pattern: int
    principal: str
    host: str
    operation: int
    permission: int


class _CreateAcls(Request[CreateAclsRequest_v1]):
    API_KEY = 30

    def __init__(self, rules: list[Rule]) -> None:
        self._rules = rules

    def build(self, request_struct_class: type[CreateAclsRequest_v1]) -> CreateAclsRequest_v1:
        return request_struct_class(self._rules)


_CreateAcls._CLASSES = (CreateAclsRequest_v1,)


def documented() -> Iterator[Rule]:
    """The rules that the `kafka-acls.sh` commands of the page would make."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--add", action="store_true")
    parser.add_argument("--operation", action="append")
    for option in (
        "--bootstrap-server",
        "--allow-principal",
        "--deny-principal",
        "--topic",
        "--group",
        "--resource-pattern-type",
    ):
        parser.add_argument(option)
    text = OPERATING.read_text("utf-8").replace("\\\n", " ")
    for command in re.findall(r"^kafka-acls\.sh (.*)$", text, re.MULTILINE):
        given = parser.parse_args(shlex.split(command))
        kind, name = (2, given.topic) if given.topic else (3, given.group)
        pattern = 4 if given.resource_pattern_type == "prefixed" else 3
        for operation in given.operation:
            principal, permission = (given.allow_principal, 3) if given.allow_principal else (given.deny_principal, 2)
            yield Rule(kind, name, pattern, principal, "*", _OPERATIONS[operation], permission)


_TOO_WIDE = [
    Rule(2, GROUP, 4, "User:billing", "*", 2, 3),
    Rule(3, GROUP, 4, "User:billing", "*", 2, 3),
]
"""Somebody else's right to do everything with the topics and groups whose names begin with the group's."""
_NOT_OURS = f"{GROUP}.reports"


@asynccontextmanager
async def administered(broker: Broker) -> AsyncIterator[AIOKafkaAdminClient]:
    admin = AIOKafkaAdminClient(bootstrap_servers=broker.servers, **_ADMIN, sasl_plain_password="a")
    await admin.start()
    try:
        yield admin
    finally:
        await admin.close()


async def prepare(broker: Broker) -> None:
    """What an administrator does: the topics, the documented rights, and two events."""
    async with administered(broker) as admin:
        own = [NewTopic(f"{GROUP}.{TOPIC}-{kind}", 2, 1, topic_configs=configs) for kind, configs in (
            ("retry", {"cleanup.policy": "compact"}), ("dlt", {}),
        )]  # fmt: skip
        receipts = NewTopic(receipts_topic(GROUP), 2, 1, topic_configs={"retention.ms": "7776000000"})
        notes = NewTopic(checkpoints_topic(GROUP), 1, 1, topic_configs={"cleanup.policy": "compact"})
        await admin.create_topics([NewTopic(TOPIC, 2, 1), NewTopic(_NOT_OURS, 1, 1), *own, receipts, notes])
        answer: Any = await admin._client.send(
            admin._client.get_random_node(), _CreateAcls([*documented(), *_TOO_WIDE])
        )
        assert [error for error, _ in answer.creation_responses if error] == []
    async with AIOKafkaProducer(bootstrap_servers=broker.servers, **_ADMIN, sasl_plain_password="a") as producer:
        for id_, address in (("0a", "ann@example.org"), ("0b", "no-address")):
            await producer.send_and_wait(TOPIC, raw_event(id=id_, email=address), key=id_.encode())


async def has_lease(broker: Broker) -> None:
    """What a worker that polls does beside."""
    options = kafka_options(
        {
            "security_protocol": "SASL_PLAINTEXT",
            "sasl_mechanism": "PLAIN",
            "sasl_plain_username": "usher",
            "sasl_plain_password": "u",
        }
    )
    worker = Worker(KafkaLog(broker.address, LogConfig(GROUP, (TOPIC,)), options), "polls", [])
    await worker.log.open(worker)
    try:
        async with asyncio.timeout(PATIENCE), worker.log.lease() as lease:
            await lease.keep("audit", b"1")
    finally:
        await worker.log.close()


async def is_kept_out(broker: Broker) -> None:
    """The documented denials hold against a rule that lets another principal do everything: on each topic of ours, and on the group."""
    billing = {"security_protocol": "SASL_PLAINTEXT", "sasl_mechanism": "PLAIN", "sasl_plain_username": "billing"}
    options: dict[str, Any] = {"bootstrap_servers": broker.servers, **billing, "sasl_plain_password": "b"}
    ours = (retry_topic(GROUP, TOPIC), dead_letter_topic(GROUP, TOPIC), receipts_topic(GROUP), checkpoints_topic(GROUP))
    async with AIOKafkaProducer(**options, enable_idempotence=False) as producer:
        await producer.send_and_wait(_NOT_OURS, b"{}", key=b"its own")
        for topic in ours:
            with pytest.raises(TopicAuthorizationFailedError):
                await producer.send_and_wait(topic, b"{}", key=b"forged")
    admin = AIOKafkaAdminClient(**options)
    await admin.start()
    try:
        answer: Any = await admin.delete_topics([*ours, _NOT_OURS])
        refused = {name for name, error in answer.topic_error_codes if error == TopicAuthorizationFailedError.errno}
        assert refused == set(ours)
    finally:
        await admin.close()
    place = TopicPartition(_NOT_OURS, 0)
    for group in (GROUP, checkpoints_topic(GROUP)):
        consumer = AIOKafkaConsumer(**options, group_id=group)
        await consumer.start()
        try:
            consumer.assign([place])
            with pytest.raises(GroupAuthorizationFailedError):
                await consumer.commit({place: 0})
        finally:
            await consumer.stop()


async def test_the_documented_rights_are_enough(kafka: Broker, tmp_path: Path) -> None:
    """A worker starts, sends and dead-letters, and the command line looks, replays and drops; nothing is refused."""
    broker = Broker(tmp_path / "kafka", listener="SASL_PLAINTEXT", properties=_PROPERTIES)
    await asyncio.to_thread(broker.start)
    try:
        await prepare(broker)
        env = environment(
            event_log=f"kafka://{broker.servers}",
            start_from="earliest",
            kafka__security_protocol="SASL_PLAINTEXT",
            kafka__sasl_mechanism="PLAIN",
            kafka__sasl_plain_username="usher",
            kafka__sasl_plain_password="u",
            receipts__key="a key that no topic has",
        )
        async with running(tmp_path, env) as service:
            await service.line("message sent", event_id="0a")
            await service.line("dead-lettered", event_id="0b")
            for command, expected in (
                ("topics plan", 0), ("check", 0), ("why 0a", 0), ("dlq replay --all --wait", 1), ("dlq drop --all --yes", 0),
            ):  # fmt: skip
                code, out, err = await usher(*command.split(), cwd=tmp_path, env=env)
                assert code == expected, f"{command}: {out}{err}"
            _, out, _ = await usher("dlq", "list", "--state", "all", "--json", cwd=tmp_path, env=env)
            assert sorted(dead_letter["state"] for dead_letter in json.loads(out)) == ["dropped", "replaced"]
        await has_lease(broker)
        await is_kept_out(broker)
        troubles = [line for line in service.lines if line.get("level") in {"warning", "error"}]
        assert [line for line in troubles if not line["event"].startswith("the event loop is blocked")] == []
    finally:
        await asyncio.to_thread(broker.stop)


async def _widen(broker: Broker, *topics: str) -> None:
    async with administered(broker) as admin:
        await admin.create_partitions({topic: NewPartitions(3) for topic in topics})


async def _until_answer(service: Service, path: str, good: Callable[[int, str], bool]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not good(*await service.get(path)):  # noqa: ASYNC110 only by asking
            await asyncio.sleep(0.1)


@pytest.mark.usefixtures("kafka_jars")
async def test_a_new_partition_that_may_not_be_opened_waits_alone(tmp_path: Path) -> None:
    """Without the right to widen our topics the old partitions are delivered, also after a restart; the new one says what it needs."""
    broker = Broker(tmp_path / "kafka", listener="SASL_PLAINTEXT", properties=_PROPERTIES)
    await asyncio.to_thread(broker.start)
    own = [f"{GROUP}.{TOPIC}-{kind}" for kind in ("retry", "dlt")]
    env = environment(
        event_log=f"kafka://{broker.servers}",
        start_from="earliest",
        kafka__security_protocol="SASL_PLAINTEXT",
        kafka__sasl_mechanism="PLAIN",
        kafka__sasl_plain_username="usher",
        kafka__sasl_plain_password="u",
        kafka__metadata_max_age_ms=1000,
    )

    async def put(partition: int, id_: str) -> None:
        async with AIOKafkaProducer(bootstrap_servers=broker.servers, **_ADMIN, sasl_plain_password="a") as producer:
            event = raw_event(id=id_, email=f"{id_}@example.org")
            await producer.send_and_wait(TOPIC, event, key=id_.encode(), partition=partition)

    try:
        await prepare(broker)
        async with running(tmp_path, env) as service:
            await _widen(broker, TOPIC)
            line = await service.line("partition stopped", partition=2)
            assert f"--alter --topic {own[0]} --partitions 3" in line["hint"]
            for partition in range(3):
                await put(partition, f"c{partition}")
            await service.line("message sent", event_id="c0")
            await service.line("message sent", event_id="c1")
            status, body = await service.get("/readyz")
            assert (status, f"{TOPIC}/2" in body, "kafka-topics.sh" in body) == (503, True, True)
            labels = f'{{partition="2",topic="{TOPIC}"}}'
            stopped = f"usher_partition_stopped{labels} 1.0"
            await _until_answer(service, "/metrics", lambda _, text: stopped in text.splitlines())
        async with running(tmp_path, env) as service:
            await put(0, "d0")
            await service.line("message sent", event_id="d0")
            await _widen(broker, *own)
            await service.line("message sent", event_id="c2")
            await _until_answer(service, "/readyz", lambda status, _: status == 200)
    finally:
        await asyncio.to_thread(broker.stop)
