"""The main job on a real Kafka, at a provider that fails and refuses: exactly the right messages, none missing, none twice."""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.engine import until
from tests.kafka import Broker, unique
from tests.service import environment, running, usher

from usher.testing.providers import FakeProviders, Fault, answer
from usher.testing.wire import Request

EVENTS, EVERY = 10_000, 20
USERS = EVENTS // EVERY


def _address(number: int) -> str:
    return f"person{number:04}@example.org"


def _records() -> Iterator[tuple[bytes, bytes]]:
    now = int(time.time())
    for number in range(EVENTS):
        ours = number % EVERY == 0
        user = f"user-{number:05}"
        event = {
            "id": f"{number:016x}",
            "seq": number,
            "type": "user.created",
            "payload": {
                "user": {
                    "id": user,
                    "standard_attributes": {
                        "email": _address(number // EVERY) if ours else f"{user}@elsewhere.example"
                    },
                }
            },
            "context": {
                "timestamp": now,
                "user_id": user,
                "triggered_by": "admin_api" if ours else "user",
                "app_id": "demo",
                "language": "en",
                "preferred_languages": [],
                "user_agent": "x" * 600,
            },
        }
        yield user.encode(), json.dumps(event).encode()


class _Rule:
    """503 to 5 % of the requests."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self.failed = 0

    def __call__(self, _request: Request) -> Fault | None:
        if self._rng.random() < 0.05:
            self.failed += 1
            return answer(503)
        return None


@pytest.mark.timeout(240)
async def test_ten_thousand_events_give_exactly_the_right_messages(kafka: Broker, tmp_path: Path) -> None:
    """Every admin's event is reported once; the refused are dead letters with reasons, and are sent by a replay once allowed."""
    topic, group = unique("events"), unique("usher")
    await kafka.create_topic(topic, 6)
    refused = {_address(number) for number in range(0, USERS, 100)}
    rule = _Rule(random.Random(7))
    async with FakeProviders(rule=rule, refused=refused) as provider:
        env = environment(
            event_log=f"kafka://{kafka.servers}",
            topics=topic,
            group=group,
            start_from="earliest",
            retry_delays="100ms,200ms,500ms,1s,2s,2s",
            email="sendgrid",
            mail_from="Accounts <accounts@example.org>",
            sendgrid__api_key=provider.sendgrid_api_key,
            sendgrid__base_url=provider.url,
        )
        await kafka.produce(topic, _records())
        async with running(tmp_path, env) as service:
            await provider.wait_seen(USERS // 3)
            assert await service.end() == 0
        async with running(tmp_path, env):
            await until(lambda: len(provider.accepted) >= USERS - len(refused), within=90)
            dead_letters = await _dead_letters(tmp_path, env, len(refused))
            assert {dead_letter["reason"] for dead_letter in dead_letters} == {"rejected"}
            assert not any(address in json.dumps(dead_letters) for address in refused)
            provider.refused.clear()
            code, out, err = await usher("dlq", "replay", "--all", "--yes", "--wait", cwd=tmp_path, env=env)
            assert code == 0, out + err
            assert await _dead_letters(tmp_path, env, 0) == []

    sent = Counter(request.to for request in provider.accepted)
    assert sent == Counter(_address(number) for number in range(USERS))
    assert rule.failed > 5


async def _dead_letters(cwd: Path, env: dict[str, str], count: int) -> list[dict[str, Any]]:
    """The open dead letters, once there are *count*."""
    async with asyncio.timeout(60):
        while True:
            code, out, err = await usher("dlq", "list", "--json", cwd=cwd, env=env)
            assert code == 0, err
            dead_letters: list[dict[str, Any]] = json.loads(out)
            if len(dead_letters) == count:
                return dead_letters
