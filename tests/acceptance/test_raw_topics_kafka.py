"""Topics that hold a system's own events, on a real Kafka: as listeners write them, and in CloudEvents of every form."""

from __future__ import annotations

import base64
import json
import time
from collections import Counter
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from tests.engine import until
from tests.kafka import Broker, unique
from tests.service import environment, running

from usher.testing import raw_event
from usher.testing.providers import FakeProviders, Fault, answer
from usher.testing.wire import Request

SECRET = "Initial-Password-91c4"
REFUSED, LATER = "refused@example.org", "later@example.org"
_STRUCTURED = [("content-type", b"application/cloudevents+json; charset=UTF-8")]


def keycloak(name: str, *, operation: str = "CREATE") -> dict[str, Any]:
    """An admin event as Jackson writes it, with a password that an admin gave."""
    person = {
        "username": name,
        "email": f"{name}@example.org",
        "credentials": [{"type": "password", "value": SECRET, "temporary": True}],
    }
    return {
        "id": f"admin-{name}",
        "time": int(time.time() * 1000),
        "realmName": "harbour",
        "realmId": "harbour",
        "operationType": operation,
        "resourceType": "USER",
        "resourcePath": f"users/{name}",
        "representation": json.dumps(person),
        "authDetails": {"realmId": "master", "clientId": "admin-cli", "userId": "admin", "ipAddress": "192.0.2.10"},
    }


def registration(name: str) -> dict[str, Any]:
    """A user event: somebody has signed up himself."""
    details = {"username": name, "email": f"{name}@example.org"}
    return {"id": f"user-{name}", "time": int(time.time() * 1000), "type": "REGISTER", "realmName": "harbour", "userId": name,
            "details": details}  # fmt: skip


def auth0(name: str) -> tuple[bytes, list[tuple[str, bytes]]]:
    """Auth0's own CloudEvent, in binary form: its attributes are headers."""
    person = {"user_id": f"auth0|{name}", "email": f"{name}@example.org", "password": SECRET}
    data = {"object": person, "context": {"client": {"id": "dashboard"}}}
    attributes = {"specversion": "1.0", "type": "user.created", "id": f"evt_{name}", "source": "urn:auth0:harbour",
                  "time": datetime.now(UTC).isoformat(), "a0tenant": "harbour"}  # fmt: skip
    return json.dumps(data).encode(), [(f"ce_{key}", value.encode()) for key, value in attributes.items()]


def structured(document: Mapping[str, Any]) -> bytes:
    """A document in a CloudEvent in structured form, encoded so that nothing of it can be read in the bytes."""
    data = base64.b64encode(json.dumps(document).encode()).decode()
    return json.dumps({"specversion": "1.0", "type": "any", "source": "/any", "id": "1", "data_base64": data}).encode()


def _rule(request: Request) -> Fault | None:
    return answer(503) if request.to == LATER else None


@pytest.mark.timeout(150)
async def test_topics_of_their_own_bring_the_right_mails_and_keep_no_credential(kafka: Broker, tmp_path: Path) -> None:
    """Plain, structured and binary records become mails; what waits and what is given up holds no password of theirs."""
    events, kc, a0, group = unique("events"), unique("kc"), unique("a0"), unique("usher")
    for topic in (events, kc, a0):
        await kafka.create_topic(topic, 2)
    async with FakeProviders(refused={REFUSED}, rule=_rule) as provider:
        env = environment(
            event_log=f"kafka://{kafka.servers}",
            topics=f"{events},{kc}=keycloak,{a0}=auth0",
            group=group,
            start_from="earliest",
            retry_delays="1h",
            auth0__admin_clients="dashboard",
            email="sendgrid",
            mail_from="Accounts <accounts@example.org>",
            sendgrid__api_key=provider.sendgrid_api_key,
            sendgrid__base_url=provider.url,
        )
        await _produce(kafka, kc, json.dumps(keycloak("plain")).encode())
        await _produce(kafka, kc, structured(keycloak("wrapped")), _STRUCTURED)
        await _produce(kafka, kc, json.dumps(registration("himself")).encode())
        await _produce(kafka, kc, json.dumps(keycloak("refused")).encode())
        await _produce(kafka, kc, json.dumps(keycloak("later")).encode())
        await _produce(kafka, kc, f'{{"broken": "{SECRET}'.encode())
        await _produce(kafka, a0, *auth0("binary"))
        canonical = json.loads(raw_event(id="0c", email="canonical@example.org"))
        await _produce(kafka, events, structured(canonical), _STRUCTURED)

        async with running(tmp_path, env) as service:
            await service.line("parked", event_id="admin-later")
            await service.line("dead-lettered", event_id="admin-refused")
            await service.line("dead-lettered", reason="undecodable")
            await until(lambda: len({request.to for request in provider.accepted}) == 4)

    written_to = Counter(request.to for request in provider.accepted)
    assert written_to == Counter(f"{name}@example.org" for name in ("plain", "wrapped", "binary", "canonical"))
    kept = await _all_of(kafka, [f"{group}.{kc}-retry", f"{group}.{kc}-dlt"])
    assert len(kept) == 3
    assert not [value for value in kept if SECRET.encode() in value]
    assert SECRET not in "".join(map(str, service.lines))


async def _produce(kafka: Broker, topic: str, value: bytes, headers: list[tuple[str, bytes]] | None = None) -> None:
    producer = AIOKafkaProducer(bootstrap_servers=kafka.servers)
    await producer.start()
    try:
        await producer.send_and_wait(topic, value, headers=headers or [])
    finally:
        await producer.stop()


async def _all_of(kafka: Broker, topics: list[str]) -> list[bytes]:
    """The values in some topics."""
    consumer = AIOKafkaConsumer(
        *topics, bootstrap_servers=kafka.servers, auto_offset_reset="earliest", enable_auto_commit=False
    )
    await consumer.start()
    try:
        found: list[bytes] = []
        while batches := await consumer.getmany(timeout_ms=2000):
            found += [record.value for records in batches.values() for record in records if record.value is not None]
        return found
    finally:
        await consumer.stop()
